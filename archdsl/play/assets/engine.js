/**
 * What answers the questions of the page: Python in this browser, or the server of `archdsl play`.
 *
 *   const engine = createEngine(server, { onAnswer, onState });   // server: of server.js, or null
 *   engine.inspect(request);      // see archdsl/play/inspect.py for requests and answers
 *
 * `onAnswer(answer, request)` is called once or more for the newest request; answers to older
 * ones are dropped. `onState(state, text)`: "loading", "ready", "busy" or "failed".
 */
export const createEngine = (server, listeners) =>
  server ? new ServerEngine(server, listeners) : new BrowserEngine(listeners);

const PATIENCE = 8000; // milliseconds; the largest spec of the library needs about two seconds

/** Python in a worker, by Pyodide. A check that takes too long ends with its worker. */
class BrowserEngine {
  constructor({ onAnswer, onState }) {
    this.onAnswer = onAnswer;
    this.onState = onState;
    this.number = 0;
    this.request = null;
    this.stopped = ""; // what is said of a check that was too slow, until the next one
    this.start();
  }

  start() {
    this.ready = false;
    this.onState("loading", "Starting Python …");
    this.worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
    this.worker.onmessage = ({ data }) => this.receive(data);
    this.worker.onerror = event => this.onState("failed", `Python does not start: ${event.message}`);
  }

  inspect(request) {
    this.number += 1;
    this.request = request;
    this.stopped = "";
    if (this.ready) this.send();
  }

  send() {
    this.onState("busy", "");
    this.worker.postMessage({ number: this.number, request: this.request });
    this.watch();
  }

  /** Waits for the next sign of life. */
  watch() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      this.worker.terminate();
      this.request = null;
      this.stopped = `The check took longer than ${PATIENCE / 1000} seconds and was stopped.`;
      this.start();
      this.onState("loading", `${this.stopped} Starting Python again …`);
    }, PATIENCE);
  }

  receive({ kind, number, answer, text }) {
    if (kind === "loading") this.onState("loading", [this.stopped, text].join(" ").trim());
    if (kind === "failed") {
      clearTimeout(this.timer);
      this.onState("failed", text);
    }
    if (kind === "ready") {
      this.ready = true;
      this.onState("ready", this.stopped);
      if (this.request) this.send();
    }
    if (kind === "answer" && this.ready) {
      if (number < this.number) return this.watch();
      if (!answer.problems) {
        clearTimeout(this.timer);
        return this.onState("failed", answer.refused.join("\n"));
      }
      if (answer.complete) clearTimeout(this.timer);
      else this.watch();
      this.onState(answer.complete ? "ready" : "busy", "");
      this.onAnswer(answer, this.request);
    }
  }
}

/** The server of `archdsl play`: see server.js. */
class ServerEngine {
  constructor(server, { onAnswer, onState }) {
    this.server = server;
    this.onAnswer = onAnswer;
    this.onState = onState;
    this.older = new AbortController();
  }

  async inspect(request) {
    this.older.abort();
    const { signal } = (this.older = new AbortController());
    this.onState("busy", "");
    try {
      for await (const answer of this.server.ask("inspect", request, signal)) {
        if (signal.aborted) return;
        if (answer.problems) this.onAnswer(answer, request);
        else if (answer.refused) return this.onState("failed", answer.refused.join("\n"));
      }
      this.onState("ready", "");
    } catch (error) {
      if (signal.aborted) return;
      this.onState("failed", "The server does not answer: it has ended.");
      throw error; // for the console: it may be a mistake of the page
    }
  }
}
