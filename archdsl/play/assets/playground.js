/** The page: a spec at the left; its mistakes, its figure and its cost as one types. */
import { createEngine } from "./engine.js";
import { Editor } from "./editor.js";
import { attach, linesOf } from "./figure.js";
import { short } from "./formula.js";
import { Grammar } from "./highlight.js";
import { decode, encode } from "./link.js";
import { render } from "./markdown.js";

const FILE = "spec.arch"; // the name of the text in figures and answers
const PAUSE = 80; // milliseconds without a key, before a text is checked
const DRAFT = "archdsl.draft"; // what a reload finds again

const $ = selector => document.querySelector(selector);
const json = async name => (await fetch(name)).json();

/** An element with attributes and children; a text is no HTML. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

const editor = new Editor($("#editor"), new Grammar(await json("grammar.json")));
// What is asked about the text; the text itself is the editor's.
let asked = { model: null, values: {}, sizes: {}, batch: 1, level: "block", types: false };
let figure = null;
let run = null; // the panel that runs a model, with a server
let waiting = 0;

const server = await connect();
if (server?.given.title) document.title = `${server.given.title} · archdsl playground`;
const engine = createEngine(server, {
  onAnswer: show,
  onState(state, text) {
    document.body.dataset.state = state;
    $("#state").textContent = text;
  },
});

/** What is asked now, as the link holds it. */
const request = () => ({ text: editor.text, ...asked });

function ask() {
  clearTimeout(waiting);
  sessionStorage.setItem(DRAFT, JSON.stringify(request()));
  engine.inspect(request());
}

function change(what) {
  Object.assign(asked, what);
  ask();
}

/** Opens a text, and what is asked about it. */
function open({ text, ...others }) {
  asked = { model: null, values: {}, sizes: {}, batch: 1, level: "block", types: false };
  for (const [name, value] of Object.entries(others)) if (name in asked) asked[name] = value;
  for (const each of document.querySelectorAll("#level input")) each.checked = each.value === asked.level;
  $("#types").checked = asked.types;
  forget();
  editor.text = text;
}

/** The fields are made again, from what is asked now. */
function forget() {
  for (const form of [$("#sizes"), $("#values form")]) delete form.dataset.key;
}

// ---- answers -----------------------------------------------------------------------------

function show(answer) {
  showProblems(answer);
  showModels(answer);
  const gone = Object.keys(asked.sizes).filter(name => !answer.axes?.some(axis => axis.name === name));
  if (answer.axes && gone.length) return change({ sizes: {} }); // of another model
  $("#values [role=alert]").textContent = answer.refused.join("\n\n");
  if (answer.refused.length) $("#values").open = true;
  $("#see").classList.toggle("old", !answer.figure);
  if (answer.figure) showFigure(answer);
  if (answer.cost) showCost(answer);
  $("#cost").hidden = !$("#cost > dl").children.length;
  if (answer.complete) run?.update();
}

function showProblems({ problems, complete }) {
  editor.problems = problems;
  const count = problems.length;
  const verdict = count === 1 ? "1 mistake" : count ? `${count} mistakes` : complete ? "No mistakes" : "";
  if (verdict && $("#verdict").textContent !== verdict) $("#verdict").textContent = verdict;
  $("#problems").classList.toggle("wrong", count > 0);
  $("#problems ol").replaceChildren(...problems.map(showProblem));
}

function showProblem({ start, end, code, message, notes, fixes }) {
  const [first, ...others] = message.split("\n");
  const details = others.filter(line => !fixes.length || !line.startsWith("help: did you mean"));
  const place = ([line]) => `line ${line + 1}`;
  return make("li", {},
    make("button", { type: "button", class: "place", onclick: () => editor.go(start, end) },
      make("span", { class: "where" }, place(start)), " ", ...words(first)),
    ...details.map(line => make("p", {}, ...words(line))),
    ...notes.map(note => make("p", { class: "note" },
      ...(note.file === FILE
        ? [make("button", { type: "button", class: "link", onclick: () => editor.go(note.start, note.end) }, place(note.start))]
        : [`${note.file}, ${place(note.start)}`]),
      ": ", ...words(note.message))),
    make("p", { class: "actions" },
      ...fixes.map(fix => make("button", { type: "button", class: "fix", onclick: () => editor.apply(fix.edits) }, ...words(fix.title))),
      make("button", { type: "button", class: "link code", onclick: () => explain(code) }, code)));
}

/** A text with `code` in backquotes, as nodes. */
function words(text) {
  return text.split(/`([^`]+)`/).map((part, index) => (index % 2 ? make("code", {}, part) : part));
}

async function explain(code) {
  const response = await fetch(`errors/${code}.md`);
  const text = response.ok ? await response.text() : `# ${code}\n\nThe page of this code cannot be read.`;
  $("#page article").replaceChildren(...render(text));
  $("#page h1").id = "page-title";
  $("#page").showModal();
  $("#page article").scrollTo(0, 0);
}

function showModels({ models, model }) {
  const select = $("#model");
  const key = JSON.stringify(models.map(each => [each.name, each.kind]));
  if (select.dataset.key !== key) {
    select.dataset.key = key;
    const groups = { model: "Models", variant: "Variants", block: "Blocks, drawn alone" };
    select.replaceChildren(...Object.entries(groups).flatMap(([kind, label]) => {
      const names = models.filter(each => each.kind === kind).map(each => each.name);
      if (!names.length) return [];
      return [make("optgroup", { label }, ...names.map(name => make("option", {}, name)))];
    }));
  }
  select.disabled = !models.length;
  if (model) select.value = model;
  showValues(models.find(each => each.name === model));
}

function showFigure({ figure: svg }) {
  figure?.detach();
  $("#figure").innerHTML = svg; // from our engine; it escapes every text of the spec
  const drawn = $("#figure svg");
  drawn.style.setProperty("--natural", drawn.getAttribute("height")); // see playground.css
  figure = attach(drawn, {
    onLine: lines => editor.mark(lines.filter(({ file }) => file === FILE), true),
    opens: box => linesOf(box).some(({ file }) => file === FILE),
    onOpen: box => {
      const { first } = linesOf(box).find(({ file }) => file === FILE);
      editor.go([first - 1, 0]);
    },
  });
}

// ---- cost --------------------------------------------------------------------------------

function showCost({ axes, cost, blocks, inputs, outputs }) {
  showSizes(axes);
  const rows = cost.flatMap(({ name, value, note }) => [
    make("div", {}, make("dt", {}, name), make("dd", {}, make("strong", {}, value), make("small", { title: note }, ...formula(note)))),
  ]);
  $("#cost > dl").replaceChildren(...rows);
  showBlocks(blocks);
  const ends = [...Object.entries(inputs).map(each => ["input", ...each]), ...Object.entries(outputs).map(each => ["output", ...each])];
  $("#ends dl").replaceChildren(...ends.map(([what, name, type]) =>
    make("div", {}, make("dt", {}, what, " ", make("code", {}, name)), make("dd", {}, make("code", {}, type)))));
}

/** A polynomial as papers write it: powers as exponents, and `_` between thousands as a space. */
function formula(text) {
  const tight = text.replaceAll("_", "\u202f").replace(/ (?=[A-Za-z])/g, "\u00a0");
  const parts = tight.split(/\^(\d+)/);
  return parts.map((part, index) => (index % 2 ? make("sup", {}, part) : part));
}

/** A slider and a number for each axis that varies, and the number of examples. */
function showSizes(axes) {
  const form = $("#sizes");
  const key = JSON.stringify(axes);
  if (form.dataset.key !== key) {
    form.dataset.key = key;
    const rows = axes.map(({ name, least, most }) => size(name, least, most, asked.sizes[name] ?? most,
      value => change({ sizes: { ...asked.sizes, [name]: value } })));
    rows.push(size("batch", 1, 64, asked.batch, batch => change({ batch })));
    form.replaceChildren(...rows);
  }
}

function size(name, least, most, value, use) {
  const all = { min: least, max: most, value };
  const slider = make("input", { type: "range", ...all, "aria-label": name });
  const number = make("input", { type: "number", ...all, "aria-label": `${name}, as a number` });
  const set = (from, to) => {
    if (!from.checkValidity() || from.value === "") return; // the browser says why
    to.value = from.value;
    use(Number(from.value));
  };
  slider.addEventListener("input", () => set(slider, number));
  number.addEventListener("input", () => set(number, slider));
  return make("label", {}, make("span", {}, name), slider, number);
}

function showBlocks(blocks) {
  const share = part => make("td", { class: "share" },
    make("span", { class: "amount", style: `width: ${(100 * part).toFixed(1)}%` }), `${(100 * part).toFixed(1)} %`);
  const row = ({ name, level, params, params_share, flops, flops_share }) =>
    make("tr", {},
      make("th", { scope: "row", style: `padding-left: ${level + 0.25}em` }, name.replace(/\.\{\}$/, "")),
      make("td", {}, params.toLocaleString("en")), share(params_share),
      make("td", {}, short(flops)), share(flops_share));
  $("#blocks table").replaceChildren(
    make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "block"),
      make("th", { scope: "col", colspan: 2 }, "parameters"), make("th", { scope: "col", colspan: 2 }, "flops"))),
    make("tbody", {}, ...blocks.map(row)));
}

/** A field for each parameter of the model; an empty one has the value of the text. */
function showValues(model) {
  const form = $("#values form");
  const parameters = model && model.kind !== "block" ? model.parameters : [];
  const key = JSON.stringify([model?.name, parameters]);
  $("#values").hidden = !parameters.length;
  if (form.dataset.key === key) return;
  form.dataset.key = key;
  form.replaceChildren(...parameters.map(({ name, type, default: given }) =>
    make("label", {}, make("code", {}, name),
      make("input", {
        type: "text", placeholder: given || "no value", title: type, autocomplete: "off", spellcheck: "false",
        value: asked.values[name] ?? "",
        oninput: ({ target }) => {
          const { [name]: _, ...others } = asked.values;
          change({ values: target.value.trim() ? { ...others, [name]: setting(target.value.trim()) } : others });
        },
      }))));
}

/** A value as the command line reads `--set`: a number, true or false, or a name. */
function setting(text) {
  if (/^[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$/i.test(text)) return Number(text);
  return { true: true, false: false }[text] ?? text;
}

// ---- the page ----------------------------------------------------------------------------

function say(text, failed = false) {
  $("#state").textContent = text;
  $("#state").classList.toggle("failed", failed);
  if (!failed) setTimeout(() => $("#state").textContent === text && ($("#state").textContent = ""), 4000);
}

async function share() {
  try {
    const hash = await encode(request());
    history.replaceState(null, "", hash);
    await navigator.clipboard.writeText(location.href);
    say("The link is copied.");
  } catch (error) {
    say(error.name === "NotAllowedError" ? "The link is in the address bar." : error.message, error.name !== "NotAllowedError");
  }
}

async function openExample(file) {
  const response = await fetch(`specs/${file}`);
  if (!response.ok) return say(`The example ${file} cannot be read.`, true);
  history.replaceState(null, "", location.pathname + location.search);
  open({ text: await response.text() });
}

async function openLink() {
  try {
    const state = await decode(location.hash);
    if (state) open(state);
    return Boolean(state);
  } catch (error) {
    say(error.message, true);
    return false;
  }
}

/** The server of `archdsl play`, if the page is from one. */
async function connect() {
  if (document.documentElement.dataset.engine !== "server") return null;
  const { connect } = await import("./server.js");
  try {
    const server = await connect();
    if (!server) throw new Error("The address has no token. Open the one that `archdsl play` printed.");
    return server;
  } catch (error) {
    $("#state").textContent = error.message;
    document.body.dataset.state = "failed";
    throw error;
  }
}

const examples = await json("examples.json");
for (const [label, files] of Object.entries(examples)) {
  $("#example").append(make("optgroup", { label }, ...files.map(({ file, title }) => make("option", { value: file }, title))));
}

editor.addEventListener("change", () => {
  clearTimeout(waiting);
  waiting = setTimeout(ask, PAUSE);
});
editor.addEventListener("caret", ({ detail: line }) => figure?.highlight(FILE, line));
$("#example").addEventListener("change", ({ target }) => {
  if (target.value) openExample(target.value);
  target.value = "";
});
$("#model").addEventListener("change", ({ target }) => {
  forget();
  change({ model: target.value, values: {}, sizes: {} });
});
$("#level").addEventListener("change", ({ target }) => change({ level: target.value }));
$("#types").addEventListener("change", ({ target }) => change({ types: target.checked }));
$("#share").addEventListener("click", share);
for (const form of document.querySelectorAll("main form")) form.addEventListener("submit", event => event.preventDefault());
addEventListener("hashchange", openLink);

const draft = sessionStorage.getItem(DRAFT);
if (!(await openLink())) {
  if (draft && !server?.fresh) open(JSON.parse(draft));
  else if (server?.given.text) open(server.given);
  else await openExample(Object.values(examples)[0][0].file);
}
if (server) {
  const { mountRun } = await import("./run.js");
  run = mountRun($("#run"), server, () => {
    const { text, model, values } = request();
    return { text, model, values };
  });
}
