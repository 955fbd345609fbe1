// @ts-check
/**
 * The page: what a visitor sees and clicks.
 *
 * @typedef {import("./runner.js").Program} Program
 * @typedef {{names: string[], shape: [number, number, number, string], programs: Record<string, Program>}} Planned
 *   a matrix of kernels.json; the shape is V, K, G and the dtype of the scales
 * @typedef {{file: string, matrices: Planned[]}} PlannedFile
 * @typedef {{corners: string, tokenizer: boolean, decoder: number, files: PlannedFile[],
 *   modules: import("./runner.js").Modules}} Kernels
 *   corners: the file of small matrices for the cases; decoder: bytes of a model's layers, 0 without a model
 */
import { nearestRows, rowLengths } from "./cosine.js";
import { element, inBytes, made, say, sayError, showProgress } from "./dom.js";
import { decode, wrong } from "./parity.js";
import { draw } from "./picture.js";
import { Compiler, openDevice, Runner, uploadMatrix } from "./runner.js";
import { download, fetchFile, readMatrix } from "./safetensors.js";
import { Talk } from "./talk.js";
import { Times } from "./times.js";
import { Tokens } from "./tokens.js";

/** How many of the nearest tokens are shown. */
const NEIGHBOURS = 8;

class Page {
  /**
   * @param {GPUDevice} device
   * @param {Kernels} kernels
   * @param {Tokens} tokens
   */
  constructor(device, kernels, tokens) {
    this.device = device;
    this.kernels = kernels;
    this.compiler = new Compiler(device, kernels.modules);
    this.tokens = tokens;
    this.times = new Times(element("times"));
    /** @type {{file: string, planned: Planned, runner: Runner} | null} */
    this.shown = null;
    /** @type {Map<Planned, import("./runner.js").Weights>} */
    this.uploaded = new Map();
    /** @type {Map<Planned, Float64Array>} */
    this.lengths = new Map(); // of the rows
    /** @type {Set<Planned>} */
    this.kept = new Set();
  }

  /** Every matrix of the user's files. */
  get choices() {
    const files = this.kernels.files.filter(({ file }) => file !== this.kernels.corners);
    return files.flatMap(({ file, matrices }) => matrices.map((planned) => ({ file, planned })));
  }

  /** Let the visitor act. */
  start() {
    for (const { file, planned } of this.choices) {
      const [vocab, embedDim, groupSize] = planned.shape;
      const text = `${planned.names.join(" = ")} (${file}): ${vocab} × ${embedDim}, groups of ${groupSize}`;
      element("matrix").append(made("option", text));
    }
    const many = this.tokens.tokens.length > 0;
    element("hint").textContent = many ? "a word or an id" : "an id";
    element("token").value = ["blue", "the"].find((word) => this.tokens.has(word)) ?? "0";
    element("matrix").addEventListener("change", () => this.show().catch(sayError));
    element("lookup").addEventListener("submit", (/** @type {Event} */ event) => {
      event.preventDefault();
      this.lookUp(element("token").value).catch(sayError);
    });
    element("parity").addEventListener("click", () => this.parity().catch(sayError));
  }

  /** Load the chosen matrix, and look the typed token up in it. */
  async show() {
    element("work").hidden = true;
    const { file, planned } = this.choices[element("matrix").selectedIndex];
    this.shown?.runner.destroy();
    if (this.shown && this.shown.planned !== planned) this.drop(this.shown.planned);
    this.shown = null;
    const runner = new Runner(this.device, this.compiler, await this.matrix(file, planned));
    this.shown = { file, planned, runner };
    this.times.clear();
    element("cases").replaceChildren();
    element("verdict").textContent = "";
    element("work").hidden = false;
    await this.lookUp(element("token").value);
  }

  /**
   * Return a matrix on the GPU, which is loaded when it is first asked for.
   *
   * @param {string} file
   * @param {Planned} planned
   */
  async matrix(file, planned) {
    const weights = this.uploaded.get(planned) ?? this.upload(file, await this.load(file), planned);
    this.uploaded.set(planned, weights);
    return weights;
  }

  /**
   * Return a matrix on the GPU that stays there.
   *
   * @param {string} file
   * @param {string} name
   */
  async keep(file, name) {
    const found = this.choices.find((choice) => choice.file === file && choice.planned.names.includes(name));
    if (found === undefined) throw new Error(`decoder.json was made for another ${file}: write the folder again`);
    this.kept.add(found.planned);
    return this.matrix(file, found.planned);
  }

  /**
   * Free a matrix, unless it is kept.
   *
   * @param {Planned} planned
   */
  drop(planned) {
    if (this.kept.has(planned)) return;
    Object.values(this.uploaded.get(planned) ?? {}).forEach((buffer) => buffer.destroy());
    this.uploaded.delete(planned);
  }

  /**
   * Return the bytes of a file; show how many of them have come.
   *
   * @param {string} file
   */
  load(file) {
    return showProgress((progress) =>
      download(file, (done, total) => {
        progress(`Loading ${file}: ${inBytes(done)}`, total ? Math.min(1, done / total) : 0);
      }),
    );
  }

  /**
   * Return a matrix of a file on the GPU.
   *
   * @param {string} file
   * @param {ArrayBuffer} whole the bytes of the file
   * @param {Planned} planned
   */
  upload(file, whole, planned) {
    const matrix = readMatrix(whole, planned.names[0]);
    const [vocab, embedDim, , scales] = planned.shape;
    if (matrix.vocab !== vocab || matrix.embedDim !== embedDim || matrix.scalesDtype !== scales) {
      throw new Error(`kernels.json was made for another ${file}: write the folder again with wgpu-q4 web`);
    }
    this.lengths.set(planned, rowLengths(matrix));
    return uploadMatrix(this.device, matrix);
  }

  /**
   * Show a token's embedding and its nearest tokens.
   *
   * @param {string} text an id or a word
   */
  async lookUp(text) {
    if (this.shown === null) return;
    const { planned, runner } = this.shown;
    const { programs } = planned;
    const id = this.tokens.idOf(text, planned.shape[0]);
    const ids = new Int32Array([id]);
    const row = await this.times.measure("embedding of one id", () => runner.run(programs.embedding_1, { ids }));
    const values = new Float32Array(row);
    const products = await this.times.measure("row to all logits", () => runner.run(programs.linear_1, { x: values }));
    draw(element("picture"), values);
    const most = values.reduce((largest, value) => Math.max(largest, Math.abs(value)), 0);
    element("caption").textContent =
      `${this.named(id)}: ${values.length} values, row by row; blue −${most.toPrecision(3)}, ` +
      `white 0, red +${most.toPrecision(3)}`;
    this.offer(row, id);
    const lengths = /** @type {Float64Array} */ (this.lengths.get(planned));
    const nearest = nearestRows(new Float32Array(products), lengths, lengths[id], NEIGHBOURS);
    element("nearest").replaceChildren(...nearest.map((near) => this.neighbour(near.id, near.cosine)));
    element("resident").textContent = inBytes(runner.residentBytes);
    element("scratch").textContent = inBytes(runner.scratchBytes);
    say("Ready.");
  }

  /**
   * Offer the values as a file.
   *
   * @param {ArrayBuffer} row
   * @param {number} id
   */
  offer(row, id) {
    const link = element("download");
    URL.revokeObjectURL(link.href);
    link.href = URL.createObjectURL(new Blob([row]));
    link.download = `embedding-${id}.f32`;
    link.hidden = false;
  }

  /** @param {number} id */
  named(id) {
    const text = this.tokens.textOf(id);
    return text ? `${id} “${text}”` : `${id}`;
  }

  /**
   * Return a line of the list of nearest tokens.
   *
   * @param {number} id
   * @param {number} cosine of the angle between the two embeddings
   */
  neighbour(id, cosine) {
    const button = made("button", this.named(id));
    button.dataset.id = String(id);
    button.addEventListener("click", () => {
      element("token").value = id;
      this.lookUp(String(id)).catch(sayError);
    });
    const line = document.createElement("li");
    line.append(button, ` ${cosine.toFixed(3)}`);
    return line;
  }

  /** Run the cases of the corners and of the shown matrix; say green or red for each. */
  async parity() {
    if (this.shown === null) return;
    const { file, planned, runner } = this.shown;
    element("parity").disabled = true;
    element("verdict").textContent = "";
    element("cases").replaceChildren();
    const { corners, files } = this.kernels;
    try {
      /** @type {import("./parity.js").Case[]} */
      const cases = await (await fetchFile("cases.json")).json();
      let red = 0;
      let count = 0;
      const whole = await this.load(corners);
      for (const corner of files.find((one) => one.file === corners)?.matrices ?? []) {
        const weights = this.upload(corners, whole, corner);
        const small = new Runner(this.device, this.compiler, weights);
        const own = cases.filter((one) => one.file === corners && one.matrix === corner.names[0]);
        red += await this.compare(own, corner, small);
        count += own.length;
        small.destroy();
        Object.values(weights).forEach((buffer) => buffer.destroy());
      }
      const own = cases.filter((one) => one.file === file && one.matrix === planned.names[0]);
      red += await this.compare(own, planned, runner);
      count += own.length;
      element("verdict").className = red || !count ? "red" : "green";
      element("verdict").textContent = red
        ? `${red} of ${count} cases are wrong on this browser and adapter.`
        : `All ${count} cases are right.`;
      say("Ready.");
    } finally {
      element("parity").disabled = false;
    }
  }

  /**
   * Run cases of one matrix.
   *
   * @param {import("./parity.js").Case[]} cases
   * @param {Planned} planned
   * @param {Runner} runner
   * @returns {Promise<number>} how many are wrong
   */
  async compare(cases, planned, runner) {
    const compared = cases.map(async (one) => {
      try {
        const inputs = Object.fromEntries(Object.entries(one.inputs).map(([name, data]) => [name, decode(data)]));
        return wrong(one.expected, await runner.run(planned.programs[one.program], inputs));
      } catch (error) {
        return error instanceof Error ? error.message : String(error);
      }
    });
    let red = 0;
    for (const [number, one] of cases.entries()) {
      const why = await compared[number];
      red += Number(why !== "");
      const text = `${why ? "✗" : "✓"} ${one.matrix}: ${one.title}${why && `: ${why}`}`;
      element("cases").append(made("li", text, why ? "red" : "green"));
    }
    return red;
  }
}

async function main() {
  say("Looking for a GPU…");
  const { device, adapter, isSoftware } = await openDevice();
  element("adapter").textContent = adapter;
  device.addEventListener("uncapturederror", (event) => {
    sayError(/** @type {GPUUncapturedErrorEvent} */ (event).error.message);
  });
  device.lost.then(({ message }) => say(`The GPU was lost: ${message} Load the page again.`, true));
  /** @type {Kernels} */
  const kernels = await (await fetchFile("kernels.json")).json();
  const tokenizer = kernels.tokenizer ? await (await fetchFile("tokenizer.json")).json() : null;
  const page = new Page(device, kernels, new Tokens(tokenizer));
  page.start();
  await page.show();
  if (kernels.decoder) new Talk(device, isSoftware, kernels.decoder, tokenizer, (file, name) => page.keep(file, name));
}

main().catch(sayError);
