// @ts-check
/** Byte pair encoding as a `tokenizer.json` of Hugging Face describes it: from text to ids, and back. */
import { escaped, LETTERS, normalize, split } from "./split.js";

/**
 * @typedef {{id: number, content: string, lstrip: boolean, rstrip: boolean, special: boolean, normalized: boolean}}
 *   Added a token that is cut out of a text before the rest is encoded; if `normalized`, out of the normalized text
 */

/** Added tokens that are looked for in a text. */
class Cutter {
  /** @param {[string, Added][]} tokens with the text that each stands as */
  constructor(tokens) {
    this.tokens = new Map(tokens);
    const longest = [...this.tokens.keys()].sort((one, other) => other.length - one.length);
    this.pattern = new RegExp(`(${longest.map(escaped).join("|") || "(?!)"})`, "u");
  }

  /**
   * Return what a function makes of the texts between the tokens, and the tokens' ids.
   *
   * @param {string} text
   * @param {(between: string, isFirst: boolean) => number[]} encode
   */
  cut(text, encode) {
    const parts = text.split(this.pattern);
    return parts.flatMap((part, place) => {
      if (place % 2) return [/** @type {Added} */ (this.tokens.get(part)).id];
      let between = part;
      if (this.tokens.get(parts[place - 1])?.rstrip) between = between.trimStart();
      if (this.tokens.get(parts[place + 1])?.lstrip) between = between.trimEnd();
      return between ? encode(between, place === 0) : [];
    });
  }
}

export class Bpe {
  /** @param {any} json the content of `tokenizer.json` */
  constructor(json) {
    const { model } = json;
    this.json = json;
    this.model = model;
    /** @type {Map<string, number>} */
    this.ids = new Map(Object.entries(model.vocab));
    /** @type {Map<string, number>} */
    this.ranks = new Map(
      model.merges.map((/** @type {string | string[]} */ pair, /** @type {number} */ rank) => [
        typeof pair === "string" ? pair : pair.join(" "),
        rank,
      ]),
    );
    /** @type {Added[]} */
    const added = json.added_tokens;
    this.added = new Map(added.map((one) => [one.id, one]));
    this.plain = new Cutter(added.filter((one) => !one.normalized).map((one) => [one.content, one]));
    this.normalized = new Cutter(
      added.filter((one) => one.normalized).map((one) => [normalize(json.normalizer, one.content), one]),
    );
    /** @type {Map<number, string>} */
    this.tokens = new Map([...this.ids].map(([token, id]) => [id, token]));
    this.isByteLevel = JSON.stringify(json.decoder).includes('"ByteLevel"');
    /** @type {Map<string, number[]>} */
    this.known = new Map();
    this.encode(""); // a pattern that this browser does not know fails here
  }

  /**
   * Return the ids of a text, in which added tokens stand as they are written.
   *
   * @param {string} text
   * @returns {number[]}
   */
  encode(text) {
    return this.plain.cut(text, (plain, isFirst) =>
      this.normalized.cut(normalize(this.json.normalizer, plain), (between, isFirstOfThese) => {
        const words = split(this.json.pre_tokenizer, [between], isFirst && isFirstOfThese);
        return words.flatMap((word) => this.#encodeWord(word));
      }),
    );
  }

  /** @param {string} word */
  #encodeWord(word) {
    let ids = this.known.get(word);
    if (ids === undefined) {
      ids = this.#merged(word);
      if (this.known.size > 10_000) this.known.clear();
      this.known.set(word, ids);
    }
    return ids;
  }

  /**
   * @param {string} word
   * @returns {number[]}
   */
  #merged(word) {
    const whole = this.ids.get(word);
    if (whole !== undefined && this.model.ignore_merges) return [whole];
    const parts = [...word].flatMap((letter) => this.#known(letter));
    for (;;) {
      let [best, at] = [Infinity, -1];
      for (let place = 0; place + 1 < parts.length; place++) {
        const rank = this.ranks.get(`${parts[place]} ${parts[place + 1]}`) ?? Infinity;
        if (rank < best) [best, at] = [rank, place];
      }
      if (at < 0) break;
      parts.splice(at, 2, parts[at] + parts[at + 1]);
    }
    return parts.map((part) => /** @type {number} */ (this.ids.get(part)));
  }

  /**
   * Return a letter if the vocabulary has it; else its bytes, or the unknown token.
   *
   * @param {string} letter
   * @returns {string[]}
   */
  #known(letter) {
    if (this.ids.has(letter)) return [letter];
    const bytes = [...new TextEncoder().encode(letter)].map(
      (byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`,
    );
    if (this.model.byte_fallback && bytes.every((byte) => this.ids.has(byte))) return bytes;
    return this.model.unk_token ? [this.model.unk_token] : [];
  }

  /**
   * Return a function from one id after the other to the text that it adds; tokens that steer are left out.  Without
   * an id it returns the end of a text that stops in the middle of a letter.
   *
   * @returns {(id?: number) => string}
   */
  decoder() {
    const decoder = new TextDecoder();
    let isFirst = /"Strip"|"Metaspace"/.test(JSON.stringify(this.json.decoder));
    return (id) => {
      if (id === undefined) return decoder.decode();
      const added = this.added.get(id);
      if (added?.special) return "";
      const bytes = added ? this.#bytesOfAdded(added) : this.#bytes(this.tokens.get(id) ?? "");
      const text = decoder.decode(bytes, { stream: true });
      const shown = isFirst ? text.replace(/^ /, "") : text;
      isFirst = false;
      return shown;
    };
  }

  /** @param {string} token */
  #bytes(token) {
    if (this.isByteLevel) return Uint8Array.from([...token].map((letter) => LETTERS.indexOf(letter)));
    const byte = /^<0x([0-9A-F]{2})>$/.exec(token);
    return byte ? Uint8Array.of(parseInt(byte[1], 16)) : new TextEncoder().encode(token.replaceAll("▁", " "));
  }

  /** @param {Added} added */
  #bytesOfAdded({ content, normalized }) {
    const text = normalized ? normalize(this.json.normalizer, content) : content;
    return new TextEncoder().encode(this.isByteLevel ? text : text.replaceAll("▁", " "));
  }
}
