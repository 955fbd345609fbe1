// @ts-check
/** The part of the page where a visitor talks to the model. */
import { Bpe } from "./bpe.js";
import { Decoder } from "./decoder.js";
import { element, inBytes, made, say, sayError, showProgress } from "./dom.js";
import { fetchFile } from "./safetensors.js";

export class Talk {
  /**
   * @param {GPUDevice} device
   * @param {boolean} isSoftware true if the device computes on the processor
   * @param {number} bytes of the layers
   * @param {any} tokenizer the content of `tokenizer.json`
   * @param {(file: string, name: string) => Promise<import("./runner.js").Weights>} matrixOf uploads a matrix once
   */
  constructor(device, isSoftware, bytes, tokenizer, matrixOf) {
    this.device = device;
    this.tokenizer = tokenizer;
    this.matrixOf = matrixOf;
    this.stopped = false;
    /** @type {{decoder: Decoder, bpe: Bpe} | null} */
    this.loaded = null;
    /** @type {number[]} */
    this.said = []; // the ids of the conversation; all but the last are in the cache
    element("talk").hidden = false;
    element("slow").hidden = !isSoftware;
    element("load").textContent = `Load the model: ${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;
    element("load").addEventListener("click", () => this.load().catch(sayError));
    element("fresh").addEventListener("click", () => {
      this.said = [];
      element("answers").replaceChildren();
    });
    element("stop").addEventListener("click", () => (this.stopped = true));
    element("ask").addEventListener("submit", (/** @type {Event} */ event) => {
      event.preventDefault();
      this.answer(element("prompt").value).catch(sayError);
    });
    element("prompt").addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      if (!element("send").disabled) element("ask").requestSubmit();
    });
    element("draw").addEventListener("change", () => {
      for (const id of ["temperature", "top-p", "seed"]) element(id).disabled = !element("draw").checked;
    });
  }

  /** Put the model on the GPU. */
  async load() {
    element("load").disabled = true;
    try {
      const bpe = new Bpe(this.tokenizer);
      /** @type {import("./decoder.js").Program} */
      const program = await (await fetchFile("decoder.json")).json();
      /** @type {import("./runner.js").Weights[]} */
      const matrices = [];
      for (const name of program.matrices) matrices.push(await this.matrixOf(program.file, name));
      const decoder = await showProgress((progress) => Decoder.load(this.device, program, matrices, progress));
      this.loaded = { decoder, bpe };
      const { tied, layers, cache, work } = decoder.bytes;
      element("held-tied").textContent = inBytes(tied);
      element("held-layers").textContent = `${inBytes(layers)}: ${program.about}`;
      element("held-cache").textContent = `${inBytes(cache)} for ${program.capacity} positions`;
      element("held-work").textContent = inBytes(work);
      element("load").parentElement.hidden = true;
      element("asking").hidden = false;
      element("prompt").focus();
      say("Ready.");
    } catch (error) {
      element("load").disabled = false;
      throw error;
    }
  }

  /** What the visitor chose, or null for the most likely text. */
  get sampling() {
    if (!element("draw").checked) return null;
    const [temperature, topP, seed] = ["temperature", "top-p", "seed"].map((id) => element(id).valueAsNumber);
    return { temperature, topP, seed };
  }

  /**
   * Show the model's answer while it is made.
   *
   * @param {string} text the visitor's words
   */
  async answer(text) {
    if (this.loaded === null || text === "") return;
    const { decoder, bpe } = this.loaded;
    const { first, before, after, between } = decoder.program.chat;
    const keep = between === null ? 0 : Math.max(0, this.said.length - 1);
    const kept = this.said.slice(0, keep);
    const prompt = keep
      ? [this.said[keep], ...bpe.encode(between + text + after)]
      : [...first, ...bpe.encode(before + text + after)];
    const shown = made("p", "", "answer");
    element("answers").append(made("p", text, "asked"), shown);
    const [add, sampling] = [bpe.decoder(), this.sampling];
    this.stopped = false;
    element("send").disabled = element("fresh").disabled = true;
    element("stop").disabled = false;
    say(`Reading ${prompt.length} tokens…`);
    try {
      const start = performance.now();
      let [begun, count, id] = [start, 0, 0];
      for await (id of decoder.generate(prompt, element("most").valueAsNumber, sampling, keep)) {
        if (count++ === 0) {
          begun = performance.now();
          this.said = [...kept, ...prompt];
          element("prompt").value = "";
        }
        this.said.push(id);
        shown.textContent += add(id);
        const seconds = (performance.now() - begun) / 1000;
        const rate = count > 1 ? `; ${((count - 1) / seconds).toFixed(1)} tokens a second` : "";
        say(`${count} tokens${rate}.`);
        shown.dataset.ids = `${shown.dataset.ids ?? ""} ${id}`.trim();
        if (this.stopped) break;
      }
      shown.textContent += add();
      const [read, seconds] = [(begun - start) / 1000, (performance.now() - begun) / 1000];
      const rate = count > 1 ? `, ${((count - 1) / seconds).toFixed(1)} a second` : "";
      element("speed").textContent =
        `The prompt's ${prompt.length} tokens took ${read.toFixed(2)} s; ${count} new ones${rate}.`;
      say(this.stopped ? "Stopped." : "Ready.");
    } finally {
      element("send").disabled = element("fresh").disabled = false;
      element("stop").disabled = true;
    }
  }
}
