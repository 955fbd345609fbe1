// @ts-check
/** Which rows of a matrix point in the direction of one of them. */

/** Σ (n − 8)² of the two 4-bit numbers of a byte. */
const SQUARES = Uint8Array.from({ length: 256 }, (_, byte) => ((byte & 15) - 8) ** 2 + ((byte >> 4) - 8) ** 2);

/**
 * Return the value of a half-precision number.
 *
 * @param {number} bits
 */
function halfToFloat(bits) {
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  const magnitude = exponent === 0 ? fraction * 2 ** -24 : (1024 + fraction) * 2 ** (exponent - 25);
  return bits & 0x8000 ? -magnitude : magnitude;
}

/**
 * Return the length of each row of a matrix.
 *
 * @param {import("./safetensors.js").Matrix} matrix its scales are finite
 */
export function rowLengths({ vocab, scalesDtype, packed, scales }) {
  const view = new DataView(scales.buffer, scales.byteOffset, scales.byteLength);
  const width = scalesDtype === "float16" ? 2 : 4;
  const groups = scales.length / width;
  const groupBytes = packed.length / groups;
  const lengths = new Float64Array(vocab);
  for (let group = 0; group < groups; group++) {
    let sum = 0;
    for (let at = group * groupBytes; at < (group + 1) * groupBytes; at++) sum += SQUARES[packed[at]];
    const at = group * width;
    const scale = width === 2 ? halfToFloat(view.getUint16(at, true)) : view.getFloat32(at, true);
    lengths[Math.floor((group * vocab) / groups)] += sum * scale * scale;
  }
  return lengths.map(Math.sqrt);
}

/**
 * Return the rows with the largest cosines, from the largest to the smallest; rows of zeros have 0.
 *
 * @param {Float32Array} logits the products of one row with each of them
 * @param {Float64Array} lengths of the rows
 * @param {number} own the length of that row
 * @param {number} count how many to return
 */
export function nearestRows(logits, lengths, own, count) {
  const cosines = Float64Array.from(logits, (logit, id) => logit / (lengths[id] * own || 1));
  const ids = [...cosines.keys()].sort((a, b) => cosines[b] - cosines[a] || a - b);
  return ids.slice(0, count).map((id) => ({ id, cosine: cosines[id] }));
}
