// @ts-check
/**
 * A language model on the GPU, from ids to ids: what `decoder.json` says, run.  `wgpu_q4/decoder/program.py` tells
 * what the parts of a program are.
 *
 * @typedef {[number, [number, number, number], number[]][]} Steps pipeline, workgroups, buffers
 * @typedef {[number, number[]][]} Words a buffer, and its first words
 * @typedef {{rows: number, layers: Steps, last: Steps, sizes: Words}} Pass
 * @typedef {null | string | [number, "packed" | "scales"]} From zeros, a tensor, or a part of a matrix
 * @typedef {{name: string, bytes: number, uniform: boolean, from: From}} Planned
 * @typedef {object} Program
 * @property {string} layers the file with the tensors
 * @property {string} file the file of the matrices
 * @property {string[]} matrices their names
 * @property {{first: number[], before: string, after: string, between: string | null}} chat
 * @property {number} bytes of the layers
 * @property {number} capacity positions of the cache
 * @property {number[]} end ids that end a text
 * @property {string} about the model in words
 * @property {Planned[]} buffers
 * @property {import("./runner.js").Modules} modules
 * @property {{module: string, constants: Record<string, number>}[]} pipelines
 * @property {Steps} near
 * @property {Steps} far
 * @property {number} reach
 * @property {Steps} head
 * @property {Steps} greedy
 * @property {Steps} draw
 * @property {Pass[]} passes
 * @property {Words} writes
 * @property {number} ids
 * @property {number} state
 * @property {number} settings
 * @property {number} counter
 * @property {Record<string, number>} limits
 *
 * @typedef {{pipeline: GPUComputePipeline, group: GPUBindGroup, workgroups: [number, number, number]}[]} Commands
 * @typedef {{staging: GPUBuffer, mapped: Promise<undefined>, count: number}} Submission
 */
import { missing } from "./limits.js";
import { Compiler } from "./runner.js";
import { settingsOf } from "./sampling.js";
import { streamTensors } from "./stream.js";

const MOST_STEPS = 16;
const MILLISECONDS = 100; // that a submission should take: text then flows, and Stop is heard soon

export class Decoder {
  /**
   * @param {GPUDevice} device
   * @param {Program} program
   * @param {GPUBuffer[]} buffers
   */
  constructor(device, program, buffers) {
    this.device = device;
    this.program = program;
    this.buffers = buffers;
    this.compiler = new Compiler(device, program.modules);
    /** @type {Map<Steps, Promise<Commands>>} */
    this.made = new Map();
    const size = 4 * MOST_STEPS;
    this.staging = [0, 1].map(() =>
      device.createBuffer({ size, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST }),
    );
  }

  /**
   * Put a model on the GPU.
   *
   * @param {GPUDevice} device
   * @param {Program} program
   * @param {import("./runner.js").Weights[]} matrices of embedding and head, the same twice if they are tied
   * @param {(text: string, share: number) => void} progress
   * @returns {Promise<Decoder>}
   * @throws {Error} The device allows too little, or has not enough memory.
   */
  static async load(device, program, matrices, progress) {
    const why = missing(program.limits, device.limits);
    if (why) throw new Error(why);
    const { STORAGE, UNIFORM, COPY_SRC, COPY_DST } = GPUBufferUsage;
    device.pushErrorScope("out-of-memory");
    const buffers = program.buffers.map(({ name, bytes, uniform, from }) => {
      if (Array.isArray(from)) return matrices[from[0]][from[1] === "packed" ? "weight" : "scales"];
      const usage = (uniform ? UNIFORM : STORAGE | COPY_SRC) | COPY_DST;
      return device.createBuffer({ label: name, size: Math.max(16, bytes), usage });
    });
    const own = buffers.filter((_, number) => !Array.isArray(program.buffers[number].from));
    try {
      if (await device.popErrorScope()) throw new Error("The GPU has not enough memory for this model.");
      /** @type {Map<string, GPUBuffer>} */
      const tensors = new Map();
      program.buffers.forEach(({ from }, number) => {
        if (typeof from === "string") tensors.set(from, buffers[number]);
      });
      const decoder = new Decoder(device, program, buffers);
      // What the first answer needs is compiled while the layers come, and the rest when it is needed.
      const { near, head, greedy, passes } = program;
      const first = [near, head, greedy, passes[0].layers, passes[0].last];
      const compiling = Promise.all(first.map((part) => decoder.#commands(part)));
      compiling.catch(() => undefined); // said below
      await streamTensors(program.layers, device, tensors, (done) => {
        const [come, all] = [done, program.bytes].map((bytes) => (bytes / 1e6).toFixed(1));
        progress(`Loading the layers: ${come} of ${all} MB`, done / program.bytes);
      });
      progress("Compiling the kernels…", 1);
      await compiling;
      for (const [buffer, words] of program.writes) decoder.#write(buffer, words);
      return decoder;
    } catch (error) {
      own.forEach((buffer) => buffer.destroy());
      throw error;
    }
  }

  /** Bytes on the GPU, by what they are for. */
  get bytes() {
    const held = { tied: 0, layers: 0, cache: 0, work: 0 };
    this.program.buffers.forEach(({ name, from }, number) => {
      const { size } = this.buffers[number];
      if (Array.isArray(from)) held.tied += size;
      else if (from !== null) held.layers += size;
      else held[/^(keys|values) of layer/.test(name) ? "cache" : "work"] += size;
    });
    held.work += this.staging.reduce((sum, { size }) => sum + size, 0);
    return held;
  }

  /**
   * Yield the ids that follow a prompt; the GPU runs a submission ahead.  A caller that stops early ends it.
   *
   * @param {number[]} prompt at least one id
   * @param {number} most new ids
   * @param {import("./sampling.js").Sampling | null} sampling null for the most likely ids
   * @param {number} keep positions of the cache, filled before, that stand before the prompt
   * @yields {number}
   */
  async *generate(prompt, most, sampling, keep) {
    const { capacity, end } = this.program;
    const position = keep + prompt.length;
    const room = capacity - position + 1;
    if (room < 1) throw new Error(`The conversation has ${position} tokens; the model's cache holds ${capacity} here.`);
    const count = Math.min(most, room);
    if (sampling) {
      const first = this.program.writes.find(([buffer]) => buffer === this.program.settings);
      this.#write(this.program.settings, settingsOf(first?.[1] ?? [], sampling));
      this.#write(this.program.counter, [prompt.length - 1]);
    }
    const choose = await this.#commands(sampling ? this.program.draw : this.program.greedy);
    const waiting = [await this.#prefill(prompt, choose, keep)];
    let [submitted, steps, before] = [1, 1, 0];
    try {
      for (let read = waiting.shift(); read; read = waiting.shift()) {
        const ahead = Math.min(steps, count - submitted);
        if (ahead > 0) {
          waiting.push(await this.#steps(position + submitted - 1, ahead, choose));
          submitted += ahead;
        }
        const ids = await this.#read(read);
        const now = performance.now();
        if (before) steps = Math.min(MOST_STEPS, Math.max(1, Math.round((MILLISECONDS * read.count) / (now - before))));
        before = now;
        for (const id of ids) {
          if (end.includes(id)) return;
          yield id;
        }
      }
    } finally {
      for (const submission of waiting) await this.#read(submission);
    }
  }

  /**
   * Submit the passes of a prompt; the last makes the id that follows.
   *
   * @param {number[]} prompt
   * @param {Commands} choose
   * @param {number} keep
   * @returns {Promise<Submission>}
   */
  async #prefill(prompt, choose, keep) {
    const { passes, ids, state, head } = this.program;
    const largestFirst = [...passes].reverse();
    this.#write(ids, prompt, keep);
    for (let start = 0; ; ) {
      // What a pass has rows for beyond those that are left is computed for nothing, so it is at least half full.
      const left = prompt.length - start;
      const pass = largestFirst.find((one) => left > one.rows / 2) ?? passes[0];
      const rows = Math.min(left, pass.rows);
      const parts = [pass.layers, pass.last, head].map((part) => this.#commands(part));
      const [layers, last, logits] = await Promise.all(parts);
      for (const [buffer, words] of pass.sizes) this.#write(buffer, [rows, ...words.slice(1)]);
      this.#write(state, [keep + start, rows]);
      if (rows === left) return this.#submit([layers, last, logits, choose], keep + prompt.length, 1);
      this.#submit([layers], 0, 0);
      start += rows;
    }
  }

  /**
   * Submit steps, the first with the row at a position.
   *
   * @param {number} position
   * @param {number} count
   * @param {Commands} choose
   */
  async #steps(position, count, choose) {
    const { near, far, reach } = this.program;
    const parts = [];
    for (let at = position; at < position + count; at++) {
      parts.push(await this.#commands(at < reach ? near : far), choose);
    }
    return this.#submit(parts, position + 1, count);
  }

  /**
   * Submit commands, and the copy of the ids that they make.
   *
   * @param {Commands[]} parts
   * @param {number} first the place of the first id
   * @param {number} count
   * @returns {Submission}
   */
  #submit(parts, first, count) {
    const encoder = this.device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    for (const { pipeline, group, workgroups } of parts.flat()) {
      pass.setPipeline(pipeline);
      pass.setBindGroup(0, group);
      pass.dispatchWorkgroups(...workgroups);
    }
    pass.end();
    const staging = this.staging[0];
    if (count) {
      encoder.copyBufferToBuffer(this.buffers[this.program.ids], 4 * first, staging, 0, 4 * count);
      this.staging.reverse(); // the other one serves the next submission
    }
    this.device.queue.submit([encoder.finish()]);
    return { staging, count, mapped: count ? staging.mapAsync(GPUMapMode.READ) : Promise.resolve(undefined) };
  }

  /**
   * Return the ids of a submission.
   *
   * @param {Submission} submission
   */
  async #read({ staging, mapped, count }) {
    await mapped;
    const ids = new Uint32Array(staging.getMappedRange(0, 4 * count).slice(0));
    staging.unmap();
    return ids;
  }

  /**
   * @param {number} buffer
   * @param {number[]} words
   * @param {number} [place] of the first word
   */
  #write(buffer, words, place = 0) {
    this.device.queue.writeBuffer(this.buffers[buffer], 4 * place, new Uint32Array(words));
  }

  /**
   * Return steps with their pipelines and bind groups, made when they are first asked for.
   *
   * @param {Steps} steps
   * @returns {Promise<Commands>}
   */
  #commands(steps) {
    let made = this.made.get(steps);
    if (made === undefined) {
      made = Promise.all(steps.map((step) => this.#command(...step)));
      this.made.set(steps, made);
    }
    return made;
  }

  /**
   * @param {number} number of the pipeline
   * @param {[number, number, number]} workgroups
   * @param {number[]} bound
   */
  async #command(number, workgroups, bound) {
    const planned = this.program.pipelines[number];
    const { pipeline, layout } = await this.compiler.pipeline(planned);
    const bindings = Object.keys(this.program.modules[planned.module].bindings);
    const entries = bound.map((buffer, place) => ({
      binding: Number(bindings[place]),
      resource: { buffer: this.buffers[buffer] },
    }));
    return { pipeline, workgroups, group: this.device.createBindGroup({ layout, entries }) };
  }
}
