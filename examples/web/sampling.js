// @ts-check
/** @typedef {{temperature: number, topP: number, seed: number}} Sampling how ids are drawn */

/**
 * Return the words of `wgsl/decoder/sample/settings.wgsl`.
 *
 * @param {number[]} words those that Python wrote for other numbers
 * @param {Sampling} sampling
 * @throws {Error} A number is out of range.
 */
export function settingsOf(words, { temperature, topP, seed }) {
  if (!(temperature > 0)) throw new Error("The temperature must be above 0.");
  if (!(topP > 0 && topP <= 1)) throw new Error("Top-p must be above 0 and at most 1.");
  if (!(Number.isSafeInteger(seed) && seed >= 0)) throw new Error("The seed must be a whole number, 0 or more.");
  const settings = [...words];
  settings[2] = seed % 2 ** 32;
  settings[3] = Math.floor(seed / 2 ** 32);
  settings[4] = new Uint32Array(Float32Array.of(Math.LOG2E / temperature).buffer)[0];
  settings[8] = Math.round(topP * 2 ** 31);
  return settings;
}
