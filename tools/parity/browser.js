// Two functions for `browser.py`: openDevice, and runJob for one dispatch on this browser's WebGPU.
//
// A job says: code, constants, workgroups, resources by binding, and the bytes of binding 0 to read
// back.  The contents of resources are files, called by the number of the binding.

let device;

// Opens the device; returns the adapter's name and the device's limits.
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
    device = await adapter.requestDevice({ requiredLimits });
    const { vendor, architecture, description } = adapter.info;
    return { vendor, architecture, description, limits: requiredLimits };
}

function asBase64(buffer) {
    return new Promise((resolve, reject) => {
        const reader = new FileReader();
        reader.onload = () => resolve(reader.result.split(",")[1]);
        reader.onerror = () => reject(reader.error);
        reader.readAsDataURL(new Blob([buffer]));
    });
}

function contents(binding) {
    const files = [...document.getElementById("data").files];
    return files.find((file) => file.name === String(binding)).arrayBuffer();
}

async function makeResource(resource) {
    const data = resource.hasData ? await contents(resource.binding) : null;
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

// Runs one dispatch; returns the result in base64, the rows of a texture at multiples of 256 bytes.
async function runJob(job) {
    const made = new Map();
    try {
        device.pushErrorScope("validation");
        for (const resource of job.resources) {
            made.set(resource.binding, await makeResource(resource));
        }
        const layout = device.createBindGroupLayout({
            entries: job.layout.map((entry) => ({ ...entry, visibility: GPUShaderStage.COMPUTE })),
        });
        const module = device.createShaderModule({ code: job.code });
        const { messages } = await module.getCompilationInfo();
        for (const { type, lineNum, message } of messages) {
            if (type === "error") {
                throw new Error(`line ${lineNum}: ${message}`);
            }
        }
        const pipeline = await device.createComputePipelineAsync({
            layout: device.createPipelineLayout({ bindGroupLayouts: [layout] }),
            compute: {
                module,
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
        return await asBase64(staging.getMappedRange());
    } finally {
        for (const { handle } of made.values()) {
            handle.destroy();
        }
    }
}
