// Runs what the worker asks for on this browser's WebGPU: one dispatch a job.
//
// A job says: code, constants, workgroups, resources by binding, and which binding to read back.
// The bytes of a resource are fetched on their own.  Results go back as bytes, rows of a texture at
// multiples of 256.

const post = (path, body) => fetch(path, { method: "POST", body });

async function openDevice() {
    if (!navigator.gpu) {
        throw new Error("this browser has no WebGPU here");
    }
    const adapter = await navigator.gpu.requestAdapter();
    if (!adapter) {
        throw new Error("this browser finds no WebGPU adapter");
    }
    const requiredLimits = {};
    for (const name of [
        "maxBufferSize", "maxStorageBufferBindingSize",
        "maxTextureDimension2D", "maxTextureDimension3D",
    ]) {
        requiredLimits[name] = adapter.limits[name];
    }
    const device = await adapter.requestDevice({ requiredLimits });
    const { vendor, architecture, description } = adapter.info;
    const limits = requiredLimits;
    return [device, { vendor, architecture, description, limits, browser: navigator.userAgent }];
}

async function makeResource(device, resource) {
    const data = resource.hasData
        ? await (await fetch(`/data/${resource.binding}`)).arrayBuffer()
        : null;
    if (resource.kind === "buffer") {
        const usage = resource.uniform ? GPUBufferUsage.UNIFORM : GPUBufferUsage.STORAGE;
        const buffer = device.createBuffer({
            size: resource.nbytes,
            usage: usage | GPUBufferUsage.COPY_DST | GPUBufferUsage.COPY_SRC,
        });
        if (data) {
            device.queue.writeBuffer(buffer, 0, data);
        }
        return { handle: buffer, bound: { buffer } };
    }
    const usage = data
        ? GPUTextureUsage.TEXTURE_BINDING | GPUTextureUsage.COPY_DST
        : GPUTextureUsage.STORAGE_BINDING | GPUTextureUsage.COPY_SRC;
    const { size, format, dimension } = resource;
    const texture = device.createTexture({ size, format, dimension, usage });
    if (data) {
        const rows = { bytesPerRow: resource.rowBytes, rowsPerImage: size[1] };
        device.queue.writeTexture({ texture }, data, rows, size);
    }
    return { handle: texture, bound: texture.createView() };
}

async function runJob(device, job) {
    const made = new Map();
    try {
        device.pushErrorScope("validation");
        for (const resource of job.resources) {
            made.set(resource.binding, await makeResource(device, resource));
        }
        const layout = device.createBindGroupLayout({
            entries: job.layout.map((entry) => ({ ...entry, visibility: GPUShaderStage.COMPUTE })),
        });
        const pipeline = await device.createComputePipelineAsync({
            layout: device.createPipelineLayout({ bindGroupLayouts: [layout] }),
            compute: {
                module: device.createShaderModule({ code: job.code }),
                entryPoint: "main",
                constants: job.constants,
            },
        });
        const group = device.createBindGroup({
            layout,
            entries: job.layout.map(({ binding }) => ({
                binding,
                resource: made.get(binding).bound,
            })),
        });
        const encoder = device.createCommandEncoder();
        const pass = encoder.beginComputePass();
        pass.setPipeline(pipeline);
        pass.setBindGroup(0, group);
        pass.dispatchWorkgroups(...job.workgroups);
        pass.end();
        const staging = device.createBuffer({
            size: job.result.nbytes,
            usage: GPUBufferUsage.COPY_DST | GPUBufferUsage.MAP_READ,
        });
        made.set("staging", { handle: staging });
        const { handle } = made.get(0);
        if (job.result.pitch) {
            const size = job.resources.find((resource) => resource.binding === 0).size;
            encoder.copyTextureToBuffer(
                { texture: handle },
                { buffer: staging, bytesPerRow: job.result.pitch, rowsPerImage: size[1] },
                size,
            );
        } else {
            encoder.copyBufferToBuffer(handle, 0, staging, 0, job.result.nbytes);
        }
        device.queue.submit([encoder.finish()]);
        const problem = await device.popErrorScope();
        if (problem) {
            throw new Error(problem.message);
        }
        await staging.mapAsync(GPUMapMode.READ);
        return staging.getMappedRange().slice(0);
    } finally {
        for (const { handle } of made.values()) {
            handle.destroy();
        }
    }
}

async function main() {
    try {
        const [device, hello] = await openDevice();
        await post("/hello", JSON.stringify(hello));
        for (;;) {
            const job = await (await fetch("/job")).json();
            if (job.stop) {
                return;
            }
            try {
                await post("/result", await runJob(device, job));
            } catch (error) {
                await post("/error", String(error));
            }
        }
    } catch (error) {
        await post("/error", String(error));
    }
}

main();
