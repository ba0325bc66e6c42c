// The panel "Run": the inputs of the model, and what it computes from them.

const MOST_BYTES = 20e6; // of an image
const NAMES = { generate: "Generate", classify: "Classify", run: "Run once" };
const ABOUT = {
  generate: "tokens that follow the given ones",
  classify: "the most likely classes of the image",
  run: "one forward pass; missing inputs are drawn from the seed",
};
const OPTIONS = [
  // name, label, value, smallest, largest, step, whether only a generation has it
  ["max_new_tokens", "tokens", 200, 1, 100000, 1, true],
  ["temperature", "temperature", 0.8, 0, 10, 0.05, true],
  ["top_k", "top-k", "", 1, 1000000, 1, true],
  ["seed", "seed", 0, 0, 4294967295, 1, false],
];

// Fills `place` for a server of `connect`. `spec()` is {text, model, values}: what the page
// shows. Call `update()` of the result after it changes.
export function mountRun(place, server, spec) {
  const sheet = element("link", { rel: "stylesheet", href: new URL("run.css", import.meta.url) });
  document.head.append(sheet);
  const weights = element("select", { id: "run-weights" });
  const inputs = element("div", { className: "run-inputs" });
  const options = element("div", { className: "run-options" });
  const buttons = element("div", { className: "run-buttons" });
  const stop = element("button", { type: "button", textContent: "Stop", disabled: true });
  const status = element("p", { className: "run-status" });
  status.setAttribute("role", "status");
  const output = element("div", { className: "run-output" });
  output.setAttribute("role", "log");
  output.setAttribute("aria-label", "Output");
  output.tabIndex = 0; // it scrolls by keys
  const form = element("form", { className: "run-form" });
  form.append(inputs, options, buttons);
  form.addEventListener("submit", (event) => event.preventDefault());
  place.classList.add("run");
  place.replaceChildren(element("h2", { textContent: "Run" }), form, status, output);
  place.hidden = false;

  const fields = new Map(); // by input: its kind, and its element
  const numbers = new Map(OPTIONS.map((option) => [option[0], numberField(option)]));
  let shown = ""; // the description of the inputs that the form has
  let running = null; // aborts the task that runs
  let asking = null;
  let waiting = 0;

  stop.addEventListener("click", () => running?.abort());
  place.addEventListener("keydown", (event) => {
    if (event.key === "Escape") running?.abort();
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) first()?.click();
  });
  const first = () => buttons.querySelector("button:not(:disabled)");

  async function describe() {
    asking?.abort();
    asking = new AbortController();
    try {
      for await (const answer of server.ask("inputs", spec(), asking.signal)) {
        if (answer.refused) return; // the page shows the mistakes of a spec
        if (JSON.stringify(answer) !== shown) rebuild(answer);
        shown = JSON.stringify(answer);
      }
    } catch (error) {
      if (error.name !== "AbortError") say("The server does not answer: it has ended.", true);
    }
  }

  function rebuild(answer) {
    const before = new Map([...fields].map(([name, field]) => [name, field.input.value]));
    fields.clear();
    inputs.replaceChildren();
    for (const each of answer.inputs) {
      const field = inputField(each);
      if (field.kind !== "image" && before.has(each.name)) {
        field.input.value = before.get(each.name);
      }
      fields.set(each.name, field);
      inputs.append(...field.elements);
    }
    for (const note of answer.notes) inputs.append(element("p", { textContent: note }));
    options.replaceChildren();
    if (answer.weights.length > 1) {
      const before = weights.value;
      weights.replaceChildren(
        element("option", { value: "given", textContent: "loaded" }),
        element("option", { value: "random", textContent: "random" }),
      );
      weights.value = before || "given";
      options.append(labelled("weights", weights));
    }
    for (const [name, , , , , , generates] of OPTIONS) {
      if (!generates || answer.tasks.includes("generate")) options.append(numbers.get(name).label);
    }
    buttons.replaceChildren(
      ...answer.tasks.map((task, index) => {
        const button = element("button", { type: "button", textContent: NAMES[task] });
        button.title = ABOUT[task];
        button.dataset.task = task;
        if (index === 0) button.classList.add("run-first");
        button.disabled = running !== null;
        button.addEventListener("click", () => start(task));
        return button;
      }),
      stop,
    );
  }

  async function start(task) {
    if (!form.reportValidity()) return;
    const request = { ...spec(), weights: weights.value || "random", inputs: {} };
    for (const [name, { input }] of numbers) {
      if (input.isConnected && input.value !== "") request[name] = Number(input.value);
    }
    try {
      for (const [name, field] of fields) {
        const value = await field.read();
        if (value !== null) request.inputs[name] = value;
      }
    } catch (error) {
      say(error.message, true);
      return;
    }
    running = new AbortController();
    busy(true);
    output.replaceChildren();
    say("Starting …");
    output.scrollIntoView({ block: "nearest" });
    let end = "";
    try {
      for await (const answer of server.ask(task, request, running.signal)) show(answer, request);
      if (status.dataset.kind === "error" || task === "generate") end = status.textContent;
    } catch (error) {
      const stopped = error.name === "AbortError";
      status.dataset.kind = stopped ? "" : "error";
      end = stopped ? "Stopped." : "The server does not answer: it has ended.";
    }
    running = null;
    busy(false);
    say(end, status.dataset.kind === "error");
    output.scrollIntoView({ block: "nearest" });
  }

  let text = null; // the element that the tokens of a generation are added to
  let count = 0;
  let began = 0;

  function show(answer, request) {
    if (answer.refused) {
      output.append(element("pre", { className: "run-error", textContent: answer.refused.join("\n\n") }));
      say("Refused.", true);
    } else if (answer.progress) {
      say(`${answer.progress[0].toUpperCase()}${answer.progress.slice(1)} …`);
    } else if (answer.outputs) {
      output.append(...answer.outputs.map(outputTable));
      if (answer.drawn.length) {
        output.append(element("p", { textContent: `drawn from the seed: ${answer.drawn.join(", ")}` }));
      }
    } else if (answer.classes) {
      output.append(classTable(answer.classes));
    } else if ("token" in answer) {
      if (!text?.isConnected) {
        text = element("pre", { className: "run-text" });
        const [given = ""] = Object.values(request.inputs);
        const prompt = typeof given === "string" ? given : `${given.join(" ")} `;
        text.append(element("span", { className: "run-prompt", textContent: prompt }), "");
        output.append(text);
        output.scrollIntoView({ block: "nearest" });
        [count, began] = [0, performance.now()];
      }
      const follow = output.scrollHeight - output.scrollTop - output.clientHeight < 40;
      text.lastChild.data += answer.text ?? `${answer.token} `;
      if (follow) output.scrollTop = output.scrollHeight;
      count += 1;
      const seconds = (performance.now() - began) / 1000;
      const speed = count > 1 ? `, ${Math.round((count - 1) / seconds)} per second` : "";
      const end = answer.ended ? `, ended by ${answer.ended}` : "";
      say(`${count} token${count > 1 ? "s" : ""}${speed}${end}`);
    }
  }

  function busy(now) {
    for (const each of buttons.children) each.disabled = now;
    stop.disabled = !now;
    place.setAttribute("aria-busy", String(now));
    // A screen reader reads the end, not each token.
    for (const each of [status, output]) each.setAttribute("aria-live", now ? "off" : "polite");
  }

  function say(message, error = false) {
    status.textContent = message;
    status.dataset.kind = error ? "error" : "";
  }

  const update = () => {
    clearTimeout(waiting);
    waiting = setTimeout(describe, 300);
  };
  update();
  return { update };
}

// -- fields --

// The field of an input: `read()` gives its value for a request, or null.
function inputField({ name, kind, type, optional }) {
  const title = `${name}: ${type}`;
  if (kind === "image") {
    const input = element("input", { type: "file", accept: "image/*" });
    const picture = element("img", { className: "run-image", alt: "", hidden: true });
    input.addEventListener("change", () => {
      const [file] = input.files;
      picture.hidden = !file;
      if (file) picture.src = URL.createObjectURL(file);
    });
    const read = async () => (input.files[0] ? { image: await base64(input.files[0]) } : null);
    return { kind, input, read, elements: [labelled(title, input), picture] };
  }
  if (kind === "numbers") {
    const input = element("span", { textContent: optional ? "its default" : "drawn from the seed" });
    return { kind, input, read: async () => null, elements: [labelled(title, input)] };
  }
  const input = element("textarea", { rows: kind === "text" ? 3 : 2, spellcheck: false });
  input.placeholder = kind === "text" ? "a text to begin with" : "numbers, such as 1 2 3";
  const read = async () => {
    if (kind === "text") return input.value;
    const found = input.value.split(/[\s,]+/).filter(Boolean);
    const wrong = found.find((each) => !/^\d{1,9}$/.test(each));
    if (wrong) throw new Error(`${name} takes numbers of tokens, such as 1 2 3; found ${wrong}`);
    return found.length ? found.map(Number) : null;
  };
  return { kind, input, read, elements: [labelled(title, input)] };
}

function numberField([, label, value, min, max, step]) {
  const input = element("input", { type: "number", value, min, max, step, required: value !== "" });
  if (value === "") input.placeholder = "all";
  return { input, label: labelled(label, input) };
}

async function base64(file) {
  if (file.size > MOST_BYTES) throw new Error(`${file.name} has more than ${MOST_BYTES / 1e6} MB`);
  const reader = new FileReader();
  await new Promise((resolve, reject) => {
    reader.onload = resolve;
    reader.onerror = () => reject(new Error(`${file.name} cannot be read`));
    reader.readAsDataURL(file);
  });
  return reader.result.split(",")[1] ?? "";
}

// -- results --

function outputTable({ name, type, shape, mean, std, top }) {
  const rows = top.map(({ index, value, text }) => [
    text === null ? String(index) : `${index} ${JSON.stringify(text)}`,
    digits(value, 4),
  ]);
  const caption = `${name}: ${type}`;
  const about = `shape [${shape.join(", ")}], mean ${digits(mean, 3)}, std ${digits(std, 3)}`;
  const columns = shape.length > 1 ? "largest, at the last position" : "largest";
  return table(caption, about, [columns, "value"], rows);
}

const digits = (value, count) => value?.toPrecision(count) ?? "not finite";

function classTable(classes) {
  const rows = classes.map(({ label, probability }) => [label, `${(100 * probability).toFixed(1)} %`]);
  const found = table("classes", "", ["class", "probability"], rows);
  [...found.tBodies[0].rows].forEach((row, index) => {
    const bar = element("span", { className: "run-bar" });
    bar.style.width = `${8 * classes[index].probability}rem`;
    row.cells[1].append(bar);
  });
  return found;
}

function table(title, about, columns, rows) {
  const found = element("table");
  const caption = found.createCaption();
  caption.append(element("code", { textContent: title }), ` ${about}`);
  const head = found.createTHead().insertRow();
  for (const each of columns) head.append(element("th", { scope: "col", textContent: each }));
  const body = found.createTBody();
  for (const row of rows) {
    const line = body.insertRow();
    for (const each of row) line.insertCell().textContent = each;
  }
  return found;
}

function labelled(text, control) {
  const label = element("label");
  label.append(element("span", { textContent: text }), control);
  return label;
}

function element(tag, properties = {}) {
  return Object.assign(document.createElement(tag), properties);
}
