/**
 * The page of a model: figures that open, the spec beside them, and sliders for its cost.
 *
 * The address has the name of the figure that is shown, #attention, so that the browser's buttons
 * lead back and forth. The figures are in templates, and what they cost is in #data.
 */
import { attach } from "./figure.js";
import { evaluate, short } from "./formula.js";

const data = JSON.parse(document.querySelector("#data").textContent);
const byId = id => document.getElementById(id);
const views = new Map(data.views.map(view => [view.name, view]));
const place = byId("figure");
const sizes = Object.fromEntries(data.axes.map(axis => [axis.name, axis.bound]));
let batch = 1;
let shown = null; // the view
let figure = null; // what `attach` returned for it

// -- figures --

const root = place.querySelector("svg").cloneNode(true);

function svgOf(name) {
  return (name ? byId(`view:${name}`).content.querySelector("svg") : root).cloneNode(true);
}

function show(name) {
  const view = views.get(name) ?? views.get("");
  const before = shown;
  if (view === before) return;
  figure?.detach();
  const svg = svgOf(view.name);
  place.replaceChildren(svg);
  place.scrollTo(0, 0);
  shown = view;
  figure = attach(svg, {
    opens: box => "opens" in box.dataset,
    onOpen: (box, byKeys) => go(box.dataset.opens, byKeys),
    onLine: mark,
    describe,
    within: place,
  });
  crumbs(view);
  for (const line of document.querySelectorAll("#spec li")) {
    line.classList.toggle("drawn", figure.comesFrom(line.parentNode.dataset.file, +line.dataset.line).length > 0);
  }
  if (before) {
    // Back from a figure, the box that opened it; else the first box.
    const opener = figure.boxes.find(box => box.dataset.opens === before.name);
    (opener ?? svg.querySelector("[tabindex='0']"))?.focus({ focusVisible: byKeys });
  }
}

let byKeys = false; // whether the keyboard led to the figure: then its focus is seen
function go(name, keys) {
  byKeys = keys;
  location.hash = name;
}
const named = () => location.hash.slice(1); // names need no escapes
addEventListener("hashchange", () => {
  show(named());
  byKeys = false;
});
addEventListener("keydown", event => {
  if (event.key === "Escape" && shown.parent !== null) go(shown.parent, true);
});

function crumbs(view) {
  const trail = [];
  for (let each = view; each.parent !== null; each = views.get(each.parent)) trail.unshift(each);
  const item = (tag, text, more = {}) => {
    const found = document.createElement("li");
    found.append(Object.assign(document.createElement(tag), { textContent: text, ...more }));
    return found;
  };
  byId("crumbs").replaceChildren(...trail.flatMap(each => [
    ...(each.within ? [item("span", each.within)] : []),
    each === view ? item("b", each.title, { ariaCurrent: "page" }) : item("a", each.title, { href: `#${each.name}` }),
  ]));
}

// -- the spec --

const lists = [...document.querySelectorAll("#spec ol")];
const tabs = [...document.querySelectorAll("#spec [role='tab']")];

function choose(file) {
  for (const list of lists) list.hidden = list.dataset.file !== file;
  for (const tab of tabs) {
    const is = tab.dataset.file === file;
    tab.setAttribute("aria-selected", is);
    tab.tabIndex = is ? 0 : -1;
  }
}

/** Marks the lines of a box: those of its own part of a spec, and softly those around and inside. */
function mark(lines) {
  for (const line of document.querySelectorAll("#spec .own, #spec .near")) line.classList.remove("own", "near");
  for (const tab of tabs) tab.classList.toggle("marked", lines.some(({ file }) => file === tab.dataset.file));
  const [own, ...others] = lines;
  if (!own) return;
  const each = ({ file, first, last }) => [...(lists.find(list => list.dataset.file === file)?.children ?? [])]
    .slice(first - 1, last);
  const around = other => other.file === own.file && other.first <= own.first && own.last <= other.last;
  for (const other of others) if (!around(other)) each(other).forEach(line => line.classList.add("near"));
  const marked = each(own);
  marked.forEach(line => line.classList.add("own"));
  if (!marked.length) return;
  choose(own.file);
  reveal(marked[0], marked.at(-1));
}

/** Scrolls the spec, and nothing around it, so that lines are seen. */
function reveal(first, last) {
  const list = first.parentNode;
  const [top, bottom] = [first.offsetTop, last.offsetTop + last.offsetHeight];
  const fits = bottom - top < list.clientHeight;
  if (top < list.scrollTop || (fits && bottom > list.scrollTop + list.clientHeight)) {
    list.scrollTo({ top: top - (fits ? (list.clientHeight - (bottom - top)) / 2 : 8) });
  }
}

function light(line) {
  const lit = line ? figure.highlight(line.parentNode.dataset.file, +line.dataset.line) : figure.highlight();
  if (!lit.length) return;
  const box = lit[0].getBoundingClientRect();
  const around = place.getBoundingClientRect();
  if (box.top < around.top || box.bottom > around.bottom) {
    place.scrollBy({ top: box.top + box.height / 2 - around.top - around.height / 2 });
  }
}

for (const list of lists) {
  const lineOf = event => event.target.closest("li");
  list.addEventListener("pointerover", event => light(lineOf(event)));
  list.addEventListener("pointerleave", () => light(document.activeElement.closest("#spec li")));
  list.addEventListener("focusin", event => light(lineOf(event)));
  list.addEventListener("focusout", () => light(null));
  list.addEventListener("keydown", event => {
    const step = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (!step) return;
    const all = [...list.querySelectorAll(".drawn")];
    const at = all.indexOf(lineOf(event));
    const next = at < 0 ? all[0] : all[at + step];
    if (!next) return;
    next.focus({ preventScroll: true });
    reveal(next, next);
    event.preventDefault();
  });
}
tabs.forEach((tab, at) => {
  tab.addEventListener("click", () => choose(tab.dataset.file));
  tab.addEventListener("keydown", event => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    const next = tabs[(at + step + tabs.length) % tabs.length];
    choose(next.dataset.file);
    next.focus();
  });
});

// -- the cost --

function update() {
  for (const [name, formulas] of Object.entries(data.cost)) {
    const largest = formulas.map(text => evaluate(text, sizes)).reduce((a, b) => (a > b ? a : b));
    const value = largest * (data.once.includes(name) ? 1n : BigInt(batch));
    const unit = name.endsWith("bytes") ? "bytes" : "";
    const place = byId(`cost:${name}`);
    place.dataset.value = value;
    const [text, exact] = [short(value, unit), `${value.toLocaleString("en")}${unit && " bytes"}`];
    place.querySelector("b").textContent = text;
    place.querySelector("small").textContent = exact === text ? "" : exact;
  }
  figure?.refresh();
}

/** The text of a tip, with the numbers of its formulas at the sizes of the sliders. */
function describe(text) {
  return text.replace(/^(FLOPs|value): (.*?)( bytes)?$/gm, (line, name, formula, unit) => {
    const axes = new Set(formula.match(/\b[A-Za-z_]\w*/g));
    if (![...axes].every(axis => axis in sizes)) return line; // the page has no cost
    const number = short(evaluate(formula, sizes), unit && "bytes");
    if (!axes.size) return `${name}: ${number}`;
    const at = [...axes].map(axis => `${axis} = ${sizes[axis].toLocaleString("en")}`).join(", ");
    return `${line}\n    = ${number} at ${at}${batch > 1 ? ", of one example" : ""}`;
  });
}

document.querySelector("#cost form")?.addEventListener("submit", event => event.preventDefault());
for (const row of document.querySelectorAll("#cost .axis")) {
  const [range, number] = row.querySelectorAll("input");
  const steps = JSON.parse(row.dataset.steps);
  let current = Number(number.value);
  const set = size => {
    current = size;
    if (row.dataset.axis) sizes[row.dataset.axis] = size;
    else batch = size;
    update();
  };
  range.addEventListener("input", () => {
    number.value = steps[range.value];
    set(steps[range.value]);
  });
  number.addEventListener("input", () => {
    const size = Number(number.value);
    const valid = Number.isInteger(size) && number.checkValidity() && number.value !== "";
    number.setAttribute("aria-invalid", !valid);
    if (!valid) return;
    range.value = steps.findLastIndex(step => step <= size);
    set(size);
  });
  number.addEventListener("change", () => { // not a size: back to the one that is shown
    number.value = current;
    number.removeAttribute("aria-invalid");
  });
}

choose(lists[0]?.dataset.file);
show(named());
update();
