// @ts-check
/** What a space at the start of a word is in vocabularies: bytes as letters, or SentencePiece's. */
const SPACES = ["Ġ", "▁"];

/** The tokens of a model's vocabulary; without a tokenizer, ids alone. */
export class Tokens {
  /** @param {any} json the content of `tokenizer.json`, or null */
  constructor(json) {
    /** @type {string[]} by id, with holes where an id has none */
    this.tokens = [];
    const vocab = json?.model.vocab ?? {};
    if (Array.isArray(vocab)) {
      for (const [token] of vocab) this.tokens.push(token); // Unigram: pairs of a token and its score
    } else {
      for (const [token, id] of Object.entries(vocab)) this.tokens[id] = token;
    }
    for (const { id, content } of json?.added_tokens ?? []) this.tokens[id] = content;
    /** @type {Map<string, number>} */
    this.ids = new Map();
    this.tokens.forEach((token, id) => this.ids.set(token, id)); // holes are left out
  }

  /**
   * Tell if a word is one token with a space before it.
   *
   * @param {string} word
   */
  has(word) {
    return SPACES.some((space) => this.ids.has(space + word));
  }

  /**
   * Return the id that a user typed, as a number or as a word.
   *
   * @param {string} text
   * @param {number} vocab ids are below this
   */
  idOf(text, vocab) {
    const typed = text.trim();
    if (/^\d+$/.test(typed)) {
      if (Number(typed) < vocab) return Number(typed);
      throw new Error(`Ids are 0 to ${vocab - 1}.`);
    }
    for (const token of [...SPACES.map((space) => space + typed), text, typed]) {
      const id = this.ids.get(token);
      if (id !== undefined && id < vocab) return id;
    }
    if (this.tokens.length === 0) throw new Error(`Type an id, 0 to ${vocab - 1}: no tokenizer is in this folder.`);
    throw new Error(`“${typed}” is not one token of this vocabulary. Try a shorter word, or an id.`);
  }

  /**
   * Return a token as people read it, or an empty string.
   *
   * @param {number} id
   */
  textOf(id) {
    const token = this.tokens[id] ?? "";
    return SPACES.reduce((text, space) => text.replaceAll(space, " "), token).replaceAll("Ċ", "⏎");
  }
}
