// @ts-check
/** How long calls take, shown in a table while they run. */
export class Times {
  /** @param {HTMLElement} body of the table */
  constructor(body) {
    this.body = body;
    /** @type {Map<string, number[]>} */
    this.milliseconds = new Map();
  }

  /** Forget all calls. */
  clear() {
    this.milliseconds.clear();
    this.body.replaceChildren();
  }

  /**
   * Return what a call returns, and show how long it took.
   *
   * @template T
   * @param {string} name of the call
   * @param {() => Promise<T>} call
   * @returns {Promise<T>}
   */
  async measure(name, call) {
    const start = performance.now();
    const result = await call();
    const taken = this.milliseconds.get(name) ?? [];
    this.milliseconds.set(name, [...taken, performance.now() - start]);
    this.body.replaceChildren(...[...this.milliseconds].map(([call, times]) => row(call, times)));
    return result;
  }
}

/**
 * @param {string} name
 * @param {number[]} times in milliseconds
 */
function row(name, times) {
  const last = times[times.length - 1];
  const later = times.length > 1 ? times.slice(1) : times; // the first call compiles
  const median = [...later].sort((a, b) => a - b)[later.length >> 1];
  const line = document.createElement("tr");
  const cells = [name, ...[times[0], last, median].map((time) => `${time.toFixed(2)} ms`), String(times.length)];
  line.append(...cells.map((text) => Object.assign(document.createElement("td"), { textContent: text })));
  return line;
}
