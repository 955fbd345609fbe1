// @ts-check
/**
 * The page: it loads Python and this package, and runs the visitor's program.
 *
 * `?pyodide=ADDRESS` loads Pyodide from another folder of this site, or another release of its CDN.
 *
 * @typedef {{batched: (line: string) => void}} Output
 * @typedef {object} Pyodide what the page calls
 * @property {(name: string) => Promise<unknown>} loadPackage
 * @property {(archive: ArrayBuffer, format: string) => void} unpackArchive
 * @property {(code: string) => Promise<unknown>} runPythonAsync
 * @property {(output: Output) => void} setStdout
 * @property {(output: Output) => void} setStderr
 *
 * @typedef {{pyodide: string, wheel: string}} Settings page.json: the folder of Pyodide, and this package
 */

const CDN = "https://cdn.jsdelivr.net/pyodide/";

/**
 * @param {string} id
 * @returns {any} the element of the page
 */
const element = (id) => document.getElementById(id);

/**
 * @param {string} text
 * @param {boolean} isProblem
 */
function say(text, isProblem = false) {
  element("status").textContent = text;
  element("status").className = isProblem ? "problem" : "";
}

/** @param {string} line */
const print = (line) => element("output").append(`${line}\n`);

/** @param {unknown} error */
const words = (error) => (error instanceof Error ? error.message : String(error));

/** The reason why this browser cannot run the page; empty if it can. */
function problem() {
  if (!navigator.gpu) {
    return "This browser has no WebGPU here. Chrome and Edge have it, from https:// or http://localhost.";
  }
  if (!("Suspending" in WebAssembly)) {
    return (
      "This browser cannot suspend Python while the GPU works (JSPI). Chrome and Edge can from version 137 on, " +
      "Firefox from 153, Safari from 27."
    );
  }
  return "";
}

/**
 * @param {string} address
 * @returns {Promise<Response>}
 */
async function get(address) {
  const response = await fetch(address);
  if (!response.ok) {
    throw new Error(`${address}: ${response.status} ${response.statusText}`);
  }
  return response;
}

/**
 * Return the folder of Pyodide. A link to this page must not run scripts from anywhere.
 *
 * @param {string} address
 */
function trusted(address) {
  const folder = new URL(address.endsWith("/") ? address : `${address}/`, location.href);
  if (folder.origin !== location.origin && !folder.href.startsWith(CDN)) {
    throw new Error(`pyodide must be a folder of this site, or begin with ${CDN}, unlike ${address}`);
  }
  return folder.href;
}

/** @returns {Promise<Pyodide>} */
async function start() {
  /** @type {Settings} */
  const settings = await (await get("page.json")).json();
  const folder = trusted(new URLSearchParams(location.search).get("pyodide") ?? settings.pyodide);
  say("Loading Python…");
  const { loadPyodide } = await import(`${folder}pyodide.mjs`);
  /** @type {Pyodide} */
  const pyodide = await loadPyodide({ indexURL: folder });
  pyodide.setStdout({ batched: print });
  pyodide.setStderr({ batched: print });
  say("Loading numpy…");
  await pyodide.loadPackage("numpy");
  say("Loading wgpu_q4…");
  pyodide.unpackArchive(await (await get(settings.wheel)).arrayBuffer(), "wheel");
  return pyodide;
}

/** @param {Pyodide} pyodide */
async function run(pyodide) {
  element("output").textContent = "";
  element("run").disabled = true; // one call at a time: a second one would come in the middle of it
  say("Running…");
  try {
    // runPython would do for other packages: this one waits for the GPU.
    await pyodide.runPythonAsync(element("code").value);
    say("Done.");
  } catch (error) {
    print(words(error));
    say("The program raised an error: see below.", true);
  } finally {
    element("run").disabled = false;
  }
}

async function main() {
  const reason = problem();
  if (reason) {
    return say(reason, true);
  }
  element("code").value = await (await get("example.py")).text();
  const pyodide = await start();
  element("work").addEventListener("submit", (/** @type {Event} */ event) => {
    event.preventDefault();
    void run(pyodide);
  });
  element("run").disabled = false;
  say("Ready.");
}

main().catch((error) => say(words(error), true));

export {}; // its names are its own
