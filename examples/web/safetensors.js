// @ts-check
/**
 * Files: fetched with a progress, and the matrices of a safetensors file.
 *
 * @typedef {object} Matrix
 * @property {number} vocab V, the rows
 * @property {number} embedDim K, the columns
 * @property {string} scalesDtype "float16" or "float32"
 * @property {Uint8Array<ArrayBuffer>} packed two 4-bit numbers a byte, V × K / 2
 * @property {Uint8Array<ArrayBuffer>} scales V × K / G
 */

/**
 * Return a file of this folder.
 *
 * @param {string} name
 * @returns {Promise<Response>}
 */
export async function fetchFile(name) {
  const response = await fetch(encodeURIComponent(name));
  if (!response.ok) throw new Error(`${name} could not be loaded: the server answered ${response.status}`);
  return response;
}

/**
 * Return the bytes of a file.
 *
 * @param {string} name
 * @param {(done: number, total: number) => void} progress called as bytes arrive; a total of 0 is unknown
 * @returns {Promise<ArrayBuffer>}
 */
export async function download(name, progress) {
  const response = await fetchFile(name);
  const total = Number(response.headers.get("content-length") ?? 0);
  if (response.body === null) return response.arrayBuffer();
  const reader = response.body.getReader();
  const parts = [];
  let done = 0;
  for (;;) {
    const { value } = await reader.read();
    if (value === undefined) break;
    parts.push(value);
    done += value.length;
    progress(done, total);
  }
  const whole = new Uint8Array(done);
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole.buffer;
}

/**
 * Return a matrix of a file that `wgpu_q4.save_file` wrote; its bytes are views of the file's.
 *
 * @param {ArrayBuffer} file
 * @param {string} name any of the matrix's names
 * @returns {Matrix}
 */
export function readMatrix(file, name) {
  const start = 8 + Number(new DataView(file).getBigUint64(0, true));
  if (start > file.byteLength) throw new Error("the safetensors file is cut short: load the page again");
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(file, 8, start - 8)));
  const stored = JSON.parse(header.__metadata__.wgpu_q4).weights[name]?.alias_of ?? name;
  /** @param {string} tensor */
  const bytes = (tensor) => {
    const [from, to] = header[tensor].data_offsets;
    if (start + to > file.byteLength) throw new Error("the safetensors file is cut short: load the page again");
    return new Uint8Array(file, start + from, to - from);
  };
  const [vocab, half] = header[`${stored}.packed`].shape;
  return {
    vocab,
    embedDim: 2 * half,
    scalesDtype: header[`${stored}.scales`].dtype === "F16" ? "float16" : "float32",
    packed: bytes(`${stored}.packed`),
    scales: bytes(`${stored}.scales`),
  };
}
