/**
 * Bakes the Python of the page, in Node: node bake.mjs PYODIDE SOURCES.zip OUT
 *
 * First bake.py compiles the modules that are needed. Then they alone check and draw every spec of
 * the library: this proves that they suffice, and fills the caches that the page starts with.
 */
import fs from "node:fs";
import { pathToFileURL } from "node:url";

const [pyodide, sources, out] = process.argv.slice(2);
const { loadPyodide } = await import(pathToFileURL(`${pyodide}/pyodide.mjs`));
const env = { HOME: "/", PYTHONPATH: "/", XDG_CACHE_HOME: "/cache" }; // as in worker.js
const read = path => new Uint8Array(fs.readFileSync(path));

// Node shows the source of a module that throws, and Pyodide's is one long line.
process.on("uncaughtException", error => {
  console.error(error.stack ?? String(error));
  process.exit(1);
});

const whole = await loadPyodide({ indexURL: `${pyodide}/`, env });
whole.unpackArchive(read(sources), "zip", { extractDir: "/" });
whole.pyimport("archdsl.play.bake").bake("/code.zip", "/library.zip");
fs.writeFileSync(`${out}/archdsl.zip`, whole.FS.readFile("/code.zip"));
fs.writeFileSync(`${out}/pyodide/python_stdlib.zip`, whole.FS.readFile("/library.zip"));

const baked = await loadPyodide({ indexURL: `${out}/pyodide/`, env });
baked.unpackArchive(read(`${out}/archdsl.zip`), "zip", { extractDir: "/" });
const browser = baked.pyimport("archdsl.play.browser");
for (const name of baked.FS.readdir("/specs").filter(each => each.endsWith(".arch"))) {
  const text = baked.FS.readFile(`/specs/${name}`, { encoding: "utf8" });
  for (const answer of browser.answers(JSON.stringify({ text }))) {
    const { problems } = JSON.parse(answer);
    if (problems.length) throw new Error(`${name}: ${problems[0].message}`);
  }
}
// What it has stored is sent with the code.
baked.runPython(`
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile
with ZipFile("/archdsl.zip", "w", ZIP_DEFLATED, compresslevel=9) as out:
    for path in sorted(path for root in ("archdsl", "lark", "specs", "cache") for path in Path("/", root).rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            out.write(path, str(path.relative_to("/")))
`);
fs.writeFileSync(`${out}/archdsl.zip`, baked.FS.readFile("/archdsl.zip"));
