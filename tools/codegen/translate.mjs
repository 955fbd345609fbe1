// WGSL modules to GLSL by naga: a JSON array of sources in, a JSON array of translations out.
//
// Usage: node translate.mjs NAGA < sources.json      (NAGA: the folder of the package naga-wasm)

import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const { translate } = await import(pathToFileURL(`${process.argv[2]}/dist/node.js`).href);

const options = { version: "450", stage: "compute", entryPoint: "main" };
const translations = JSON.parse(readFileSync(0, "utf8")).map((source) => {
    try {
        return translate({ from: "wgsl", to: "glsl", source, options });
    } catch (error) {
        // naga's own report, which shows the place in the source.
        process.stderr.write(`${error.formatted ?? error}\n`);
        process.exit(1);
    }
});
process.stdout.write(JSON.stringify(translations));
