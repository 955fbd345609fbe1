// @ts-check
/**
 * What this browser computes, against what Python computed in float64.
 *
 * @typedef {{dtype: string, data: string}} Encoded an array: little-endian bytes in base 64
 * @typedef {{kind: string, values: Encoded, ids: Encoded, at: Encoded, bound: Encoded}} Expected
 * @typedef {{title: string, file: string, matrix: string, program: string,
 *   inputs: Record<string, Encoded>, expected: Expected}} Case
 */

/** @type {Record<string, any>} */
const TYPES = { int32: Int32Array, uint32: Uint32Array, float32: Float32Array, float64: Float64Array };

/**
 * Return an array of `cases.json`.
 *
 * @param {Encoded} encoded
 */
export function decode(encoded) {
  const bytes = Uint8Array.from(atob(encoded.data), (letter) => letter.charCodeAt(0));
  return new TYPES[encoded.dtype](bytes.buffer);
}

/**
 * Return what is wrong with the result of a case, or an empty string.
 *
 * @param {Expected} expected
 * @param {ArrayBuffer} result
 * @returns {string}
 */
export function wrong(expected, result) {
  switch (expected.kind) {
    case "bits":
      return wrongBits(new Uint32Array(decode(expected.values).buffer), new Uint32Array(result));
    case "bound":
      return outOfBound(expected, new Float32Array(result));
    case "ids":
      return wrongIds(decode(expected.ids), idsOf(result));
    case "best":
      return notBest(expected, result);
    default:
      return `the page knows no cases of kind ${expected.kind}: write the folder again`;
  }
}

/**
 * Return the ids of pairs of a logit and an id.
 *
 * @param {ArrayBuffer} pairs
 */
export function idsOf(pairs) {
  return new Uint32Array(pairs).filter((_, place) => place % 2 === 1);
}

/**
 * Return the logits of pairs of a logit and an id.
 *
 * @param {ArrayBuffer} pairs
 */
export function logitsOf(pairs) {
  return new Float32Array(pairs).filter((_, place) => place % 2 === 0);
}

/**
 * @param {Uint32Array} expected
 * @param {Uint32Array} found
 */
function wrongBits(expected, found) {
  if (found.length !== expected.length) return `${found.length} values in place of ${expected.length}`;
  const count = expected.reduce((sum, bits, place) => sum + Number(bits !== found[place]), 0);
  return count === 0 ? "" : `${count} of ${expected.length} values have other bits`;
}

/**
 * @param {Expected} expected
 * @param {Float32Array} found
 */
function outOfBound(expected, found) {
  const [at, values, bound] = [decode(expected.at), decode(expected.values), decode(expected.bound)];
  let count = 0;
  // Written so that NaN, and a place that is not there, count as wrong.
  for (let i = 0; i < at.length; i++) count += Math.abs(found[at[i]] - values[i]) <= bound[i] ? 0 : 1;
  return count === 0 ? "" : `${count} of ${at.length} values are further off than rounding allows`;
}

/**
 * @param {Uint32Array} expected
 * @param {Uint32Array} found
 */
function wrongIds(expected, found) {
  return found.join() === expected.join() ? "" : `ids ${found.join(", ")} in place of ${expected.join(", ")}`;
}

/**
 * @param {Expected} expected
 * @param {ArrayBuffer} result
 */
function notBest(expected, result) {
  const [allowed, values, bound] = [decode(expected.ids), decode(expected.values), decode(expected.bound)];
  const ids = idsOf(result);
  const logits = logitsOf(result);
  if (new Set(ids).size !== ids.length) return `an id is there twice: ${ids.join(", ")}`;
  for (let i = 0; i < ids.length; i++) {
    const place = allowed.indexOf(ids[i]);
    if (place < 0) return `id ${ids[i]} is not among the largest`;
    if (!(Math.abs(logits[i] - values[place]) <= bound[place])) return `the logit of id ${ids[i]} is ${logits[i]}`;
    if (i > 0 && logits[i] > logits[i - 1]) return "the largest logit does not come first";
  }
  return "";
}
