// @ts-check
/** What the parts of the page do with its elements. */

/**
 * @param {string} id
 * @returns {any} the element of the page
 */
export const element = (id) => document.getElementById(id);

/**
 * Return an element with a text.
 *
 * @param {string} tag
 * @param {string} text
 * @param {string} [className]
 */
export function made(tag, text, className = "") {
  return Object.assign(document.createElement(tag), { textContent: text, className });
}

/** @param {number} bytes */
export const inBytes = (bytes) => `${bytes.toLocaleString("en")} bytes`;

/**
 * Say what the page does now.
 *
 * @param {string} text
 * @param {boolean} isProblem
 */
export function say(text, isProblem = false) {
  element("status").textContent = text;
  element("status").className = isProblem ? "problem" : "";
}

/** @param {unknown} error */
export const sayError = (error) => say(error instanceof Error ? error.message : String(error), true);

/**
 * Show how far a job is while it runs.
 *
 * @template T
 * @param {(progress: (text: string, share: number) => void) => Promise<T>} job
 * @returns {Promise<T>} what the job returns
 */
export async function showProgress(job) {
  const bar = element("progress");
  bar.hidden = false;
  try {
    return await job((text, share) => {
      bar.value = share;
      say(text);
    });
  } finally {
    bar.hidden = true;
  }
}
