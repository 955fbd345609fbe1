// @ts-check
/**
 * A matrix on the GPU, and the programs of `kernels.json` that run on it.
 *
 * @typedef {{module: string, constants: Record<string, number>, workgroups: [number, number, number],
 *   bindings: Record<string, string | number[]>}} Step
 * @typedef {{buffers: Record<string, number>, steps: Step[], result: string}} Program
 * @typedef {Record<string, {code: string, bindings: Record<string, GPUBufferBindingType>}>} Modules
 * @typedef {{pipeline: GPUComputePipeline, layout: GPUBindGroupLayout}} Compiled
 * @typedef {{weight: GPUBuffer, scales: GPUBuffer}} Weights a matrix on the GPU
 */
import { wanted } from "./limits.js";

/**
 * Return a device with all that its adapter allows.
 *
 * @returns {Promise<{device: GPUDevice, adapter: string, isSoftware: boolean}>} adapter: in words
 * @throws {Error} There is no WebGPU here; the message says what to do.
 */
export async function openDevice() {
  if (!globalThis.isSecureContext) {
    throw new Error("Browsers offer WebGPU to pages of https:// and of localhost only: open this page so.");
  }
  if (!navigator.gpu) {
    throw new Error(
      "This browser has no WebGPU. Use a current Chrome or Edge, also on Android; Safari 26 or newer; or Firefox, " +
        "141 or newer on Windows, 147 or newer on a Mac with Apple silicon. On Linux, Chrome 147 has it for GPUs of " +
        "NVIDIA and newer ones of Intel; for others start it with --enable-unsafe-webgpu --ozone-platform=x11 " +
        "--use-angle=vulkan --enable-features=Vulkan,VulkanFromANGLE.",
    );
  }
  const adapter = await navigator.gpu.requestAdapter({ powerPreference: "high-performance" });
  if (adapter === null) {
    throw new Error(
      "This browser has WebGPU, but found no GPU that it may use. Turn on “Use graphics acceleration when " +
        "available” in its settings, update the graphics driver, and see chrome://gpu for the reason.",
    );
  }
  const device = await adapter.requestDevice({ requiredLimits: wanted(adapter.limits) });
  const { vendor, architecture, description } = adapter.info;
  const words = [...new Set([vendor, architecture, description])].filter(Boolean).join(" ");
  const isSoftware = adapter.info.isFallbackAdapter || /swiftshader|llvmpipe|basic render/i.test(words);
  return { device, adapter: words || "not named by the browser", isSoftware };
}

/**
 * Return a matrix on the GPU.
 *
 * @param {GPUDevice} device
 * @param {import("./safetensors.js").Matrix} matrix
 * @returns {Weights}
 * @throws {Error} A binding of the device does not hold it.
 */
export function uploadMatrix(device, matrix) {
  const largest = device.limits.maxStorageBufferBindingSize;
  if (matrix.packed.length > largest) {
    const [needed, allowed] = [matrix.packed.length, largest].map((n) => n.toLocaleString("en"));
    throw new Error(`The matrix takes ${needed} bytes in one binding, and this adapter allows ${allowed}.`);
  }
  const [weight, scales] = [matrix.packed, matrix.scales].map((bytes) => {
    const size = Math.ceil(bytes.length / 4) * 4; // kernels read words of four bytes
    const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST;
    const buffer = device.createBuffer({ size, usage, mappedAtCreation: true });
    new Uint8Array(buffer.getMappedRange()).set(bytes);
    buffer.unmap();
    return buffer;
  });
  return { weight, scales };
}

/** The kernels of `kernels.json`, each compiled once for each set of constants. */
export class Compiler {
  /**
   * @param {GPUDevice} device
   * @param {Modules} modules
   */
  constructor(device, modules) {
    this.device = device;
    this.modules = modules;
    /** @type {Map<string, Promise<Compiled>>} */
    this.made = new Map();
  }

  /** @param {{module: string, constants: Record<string, number>}} step */
  pipeline(step) {
    const key = step.module + JSON.stringify(step.constants);
    let made = this.made.get(key);
    if (made === undefined) {
      made = this.#make(step);
      this.made.set(key, made);
    }
    return made;
  }

  /** @param {{module: string, constants: Record<string, number>}} step */
  async #make(step) {
    const { code, bindings } = this.modules[step.module];
    const entries = Object.entries(bindings).map(([binding, type]) => ({
      binding: Number(binding),
      visibility: GPUShaderStage.COMPUTE,
      buffer: { type },
    }));
    const layout = this.device.createBindGroupLayout({ entries });
    const module = this.device.createShaderModule({ label: step.module, code });
    const pipeline = await this.device.createComputePipelineAsync({
      layout: this.device.createPipelineLayout({ bindGroupLayouts: [layout] }),
      compute: { module, entryPoint: "main", constants: step.constants },
    });
    return { pipeline, layout };
  }
}

export class Runner {
  /**
   * @param {GPUDevice} device
   * @param {Compiler} compiler
   * @param {Weights} weights that the programs read
   */
  constructor(device, compiler, weights) {
    this.device = device;
    this.compiler = compiler;
    this.weights = weights;
    /** @type {Map<string, GPUBuffer>} */
    this.scratch = new Map();
    /** @type {Promise<unknown>} */
    this.last = Promise.resolve();
  }

  /** Bytes of the matrix on the GPU. */
  get residentBytes() {
    return this.weights.weight.size + this.weights.scales.size;
  }

  /** Bytes of the other buffers. */
  get scratchBytes() {
    return [...this.scratch.values()].reduce((sum, buffer) => sum + buffer.size, 0);
  }

  /** Free every buffer but the matrix's. */
  destroy() {
    for (const buffer of this.scratch.values()) buffer.destroy();
  }

  /**
   * Run a program after those that were started before it.
   *
   * @param {Program} program
   * @param {Record<string, Int32Array<ArrayBuffer> | Float32Array<ArrayBuffer>>} inputs contents of buffers
   * @returns {Promise<ArrayBuffer>} the program's result
   */
  run(program, inputs) {
    // Kernels are compiled side by side, while earlier programs run.
    const pipelines = Promise.all(program.steps.map((step) => this.compiler.pipeline(step)));
    pipelines.catch(() => undefined); // `run` says it, once earlier programs are done
    const run = this.last.then(async () => this.#checked(program, inputs, await pipelines));
    this.last = run.catch(() => undefined);
    return run;
  }

  /**
   * Run, and raise what WebGPU only reports.
   *
   * @param {Program} program
   * @param {Record<string, Int32Array<ArrayBuffer> | Float32Array<ArrayBuffer>>} inputs
   * @param {Compiled[]} pipelines
   */
  async #checked(program, inputs, pipelines) {
    this.device.pushErrorScope("out-of-memory");
    this.device.pushErrorScope("validation");
    let staging, errors;
    try {
      staging = this.#submit(program, inputs, pipelines);
    } finally {
      errors = [this.device.popErrorScope(), this.device.popErrorScope()];
    }
    const bytes = program.buffers[program.result];
    const mapped = staging.mapAsync(GPUMapMode.READ, 0, bytes);
    for (const error of await Promise.all(errors)) {
      if (error !== null) {
        await mapped.then(() => staging.unmap(), () => undefined);
        throw new Error(error.message);
      }
    }
    await mapped;
    const result = staging.getMappedRange(0, bytes).slice(0);
    staging.unmap();
    return result;
  }

  /**
   * @param {Program} program
   * @param {Record<string, Int32Array<ArrayBuffer> | Float32Array<ArrayBuffer>>} inputs
   * @param {Compiled[]} pipelines
   */
  #submit(program, inputs, pipelines) {
    const { STORAGE, UNIFORM, COPY_SRC, COPY_DST, MAP_READ } = GPUBufferUsage;
    /** @type {Record<string, GPUBuffer>} */
    const buffers = { ...this.weights };
    for (const [name, bytes] of Object.entries(program.buffers)) {
      buffers[name] = this.#buffer(name, bytes, STORAGE | COPY_SRC | COPY_DST);
    }
    for (const [name, values] of Object.entries(inputs)) this.device.queue.writeBuffer(buffers[name], 0, values);
    const encoder = this.device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    program.steps.forEach((step, number) => {
      const entries = Object.entries(step.bindings).map(([binding, bound]) => {
        let buffer;
        if (typeof bound === "string") {
          buffer = buffers[bound];
        } else {
          buffer = this.#buffer(`sizes of step ${number}`, 16, UNIFORM | COPY_DST);
          this.device.queue.writeBuffer(buffer, 0, new Int32Array(bound));
        }
        return { binding: Number(binding), resource: { buffer } };
      });
      pass.setPipeline(pipelines[number].pipeline);
      pass.setBindGroup(0, this.device.createBindGroup({ layout: pipelines[number].layout, entries }));
      pass.dispatchWorkgroups(...step.workgroups);
    });
    pass.end();
    const bytes = program.buffers[program.result];
    const staging = this.#buffer("staging", bytes, MAP_READ | COPY_DST);
    encoder.copyBufferToBuffer(buffers[program.result], 0, staging, 0, bytes);
    this.device.queue.submit([encoder.finish()]);
    return staging;
  }

  /**
   * Return the buffer kept under a name, enlarged to `bytes` if necessary.
   *
   * @param {string} name
   * @param {number} bytes
   * @param {number} usage
   */
  #buffer(name, bytes, usage) {
    let buffer = this.scratch.get(name);
    if (buffer === undefined || buffer.size < bytes) {
      buffer?.destroy();
      buffer = this.device.createBuffer({ label: name, size: Math.max(16, bytes), usage });
      this.scratch.set(name, buffer);
    }
    return buffer;
  }
}
