/**
 * Python in a web worker. It answers the newest question; between the answers of one question it
 * looks for a newer one.
 */
import { loadPyodide } from "./pyodide/pyodide.mjs";

let newest = null;
let answering = false;
let browser = null;

self.onmessage = ({ data }) => {
  newest = data;
  if (browser && !answering) answer();
};

const pause = () => new Promise(resolve => setTimeout(resolve));

async function answer() {
  answering = true;
  while (newest) {
    const { number, request } = newest;
    newest = null;
    try {
      for (const text of browser.answers(JSON.stringify(request))) {
        self.postMessage({ kind: "answer", number, answer: JSON.parse(text) });
        await pause();
        if (newest) break;
      }
    } catch (error) {
      self.postMessage({ kind: "failed", text: `The check failed, which is our mistake: ${error.message}` });
    }
  }
  answering = false;
}

async function start() {
  const code = fetch(new URL("./archdsl.zip", import.meta.url)).then(response => {
    if (!response.ok) throw new Error(`archdsl.zip: ${response.status} ${response.statusText}`);
    return response.arrayBuffer();
  });
  const python = await loadPyodide({
    indexURL: new URL("./pyodide/", import.meta.url).href,
    env: { HOME: "/", PYTHONPATH: "/", XDG_CACHE_HOME: "/cache" },
  });
  self.postMessage({ kind: "loading", text: "Loading archdsl …" });
  python.unpackArchive(await code, "zip", { extractDir: "/" });
  browser = python.pyimport("archdsl.play.browser");
  self.postMessage({ kind: "ready" });
  if (newest) answer();
}

start().catch(error => {
  self.postMessage({ kind: "failed", text: `Python does not start: ${error.message}` });
});
