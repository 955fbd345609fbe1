// @ts-check
/**
 * What a `tokenizer.json` does to a text before its words are encoded: the normalizer, and the pre-tokenizer.
 *
 * @typedef {Record<string, any>} Part one of them, or a part of one
 */

/**
 * Return a regular expression of Hugging Face's tokenizers as JavaScript has it.
 *
 * Their `\s` is Unicode's white space, which JavaScript's is not quite, and some browsers know no `(?i:…)`.
 *
 * @param {string} pattern
 */
export function regexOf(pattern) {
  const spelled = pattern.replace(/\(\?i:([^()]*)\)/g, (_, inside) => {
    const either = inside.replace(/[a-z]/gi, (/** @type {string} */ letter) => {
      return `[${letter.toLowerCase()}${letter.toUpperCase()}]`;
    });
    return `(?:${either})`;
  });
  return new RegExp(spelled.replaceAll("\\s", "\\p{White_Space}").replaceAll("\\S", "\\P{White_Space}"), "gu");
}

/** @param {string} text @returns {string} the regular expression that finds it */
export const escaped = (text) => text.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&");

/** @param {{String?: string, Regex?: string}} pattern */
const patternOf = ({ String: text, Regex: regex = "" }) =>
  text === undefined ? regexOf(regex) : new RegExp(escaped(text), "gu");

/**
 * Return a text, normalized.
 *
 * @param {Part | null} part of `tokenizer.json`
 * @param {string} text
 * @returns {string}
 */
export function normalize(part, text) {
  switch (part?.type) {
    case undefined:
      return text;
    case "Sequence":
      return part?.normalizers.reduce((/** @type {string} */ so, /** @type {Part} */ one) => normalize(one, so), text);
    case "Prepend":
      return text && part?.prepend + text;
    case "Replace":
      return text.replace(patternOf(part?.pattern), () => part?.content);
    default:
      return text.normalize(part?.type);
  }
}

/** What a byte is written as: itself if it is printed, else a letter from 256 on. */
export const LETTERS = (() => {
  /** @param {number} byte */
  const isPrinted = (byte) => (byte > 32 && byte < 127) || (byte > 160 && byte !== 173);
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => String.fromCodePoint(isPrinted(byte) ? byte : next++));
})();

const BYTE_LEVEL = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/**
 * Return the words of a text that are encoded one by one.
 *
 * @param {Part | null} part of `tokenizer.json`
 * @param {string[]} words
 * @param {boolean} isFirst true if the first of them begins the text
 * @returns {string[]}
 */
export function split(part, words, isFirst) {
  switch (part?.type) {
    case "Sequence":
      return part?.pretokenizers.reduce(
        (/** @type {string[]} */ so, /** @type {Part} */ one) => split(one, so, isFirst),
        words,
      );
    case "Digits":
      return words.flatMap((word) => cut(word, part?.individual_digits ? /\p{N}/gu : /\p{N}+/gu, "Isolated"));
    case "Split":
      return words.flatMap((word) => cut(word, patternOf(part?.pattern), part?.behavior));
    case "Metaspace":
      return words.flatMap((word, place) => metaspace(/** @type {Part} */ (part), word, isFirst && place === 0));
    case "ByteLevel":
      return words.flatMap((word) => {
        const spaced = part?.add_prefix_space && !word.startsWith(" ") ? ` ${word}` : word;
        const parts = part?.use_regex === false ? [spaced] : cut(spaced, regexOf(BYTE_LEVEL), "Isolated");
        return parts.map((one) => [...new TextEncoder().encode(one)].map((byte) => LETTERS[byte]).join(""));
      });
    default:
      return words;
  }
}

/**
 * Cut a word at each match.
 *
 * @param {string} word
 * @param {RegExp} pattern
 * @param {string} behavior what becomes of a match
 */
function cut(word, pattern, behavior) {
  /** @type {string[]} */
  const parts = [];
  let done = 0;
  for (const { 0: match, index } of word.matchAll(pattern)) {
    const before = word.slice(done, index);
    done = index + match.length;
    if (behavior === "MergedWithPrevious") parts.push(before + match);
    else if (behavior === "Removed") parts.push(before);
    else parts.push(before, match);
  }
  return [...parts, word.slice(done)].filter(Boolean);
}

/**
 * Write spaces as a letter, and one before the word where the tokenizer has it so.
 *
 * @param {Part} part
 * @param {string} word
 * @param {boolean} isFirst
 */
function metaspace(part, word, isFirst) {
  const space = part.replacement;
  let text = word.replaceAll(" ", space);
  const scheme = part.prepend_scheme ?? "always";
  const prepended = scheme === "always" || (scheme === "first" && isFirst);
  if (prepended && !text.startsWith(space)) text = space + text;
  return part.split === false ? [text] : text.split(new RegExp(`(?=${space})`, "u"));
}
