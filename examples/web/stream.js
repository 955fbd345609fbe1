// @ts-check
import { fetchFile } from "./safetensors.js";

/**
 * Write the tensors of a safetensors file to buffers as its bytes arrive: no more of it is held than a part that
 * has just come.
 *
 * @param {string} name of the file
 * @param {GPUDevice} device
 * @param {Map<string, GPUBuffer>} buffers by the names of the tensors, whose sizes are multiples of 4
 * @param {(done: number) => void} progress called with the bytes that have come
 */
export async function streamTensors(name, device, buffers, progress) {
  const { body } = await fetchFile(name);
  const reader = /** @type {ReadableStream<Uint8Array<ArrayBuffer>>} */ (body).getReader();
  let held = new Uint8Array(0);
  let come = 0;
  let ended = false;

  /** Add what has come next to what is held. */
  const read = async () => {
    const { value } = await reader.read();
    if (value === undefined) {
      ended = true;
      return;
    }
    const joined = new Uint8Array(held.length + value.length);
    joined.set(held);
    joined.set(value, held.length);
    held = joined;
    come += value.length;
    progress(come);
  };

  /** @param {number} count @returns {Promise<Uint8Array<ArrayBuffer>>} that many bytes */
  const take = async (count) => {
    while (held.length < count && !ended) await read();
    if (held.length < count) throw new Error(`${name} is cut short: load the page again`);
    const taken = held.slice(0, count);
    held = held.subarray(count);
    return taken;
  };

  const length = Number(new DataView((await take(8)).buffer).getBigUint64(0, true));
  /** @type {Record<string, {data_offsets: [number, number]}>} */
  const header = JSON.parse(new TextDecoder().decode(await take(length)));
  const tensors = Object.entries(header).sort((one, other) => one[1].data_offsets[0] - other[1].data_offsets[0]);
  for (const [tensor, { data_offsets: [start, end] }] of tensors) {
    const buffer = buffers.get(tensor);
    if (buffer?.size !== end - start) throw new Error(`${name} was made for another page: write the folder again`);
    for (let at = 0; at < buffer.size; ) {
      if (held.length < 4) await read();
      const ready = Math.min(held.length - (held.length % 4), buffer.size - at);
      if (ready === 0 && ended) throw new Error(`${name} is cut short: load the page again`);
      device.queue.writeBuffer(buffer, at, held, 0, ready);
      held = held.subarray(ready);
      at += ready;
    }
  }
  await device.queue.onSubmittedWorkDone();
}
