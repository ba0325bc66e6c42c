/**
 * A small editor: a transparent <textarea> over its coloured text. Undo, selection, input methods
 * and screen readers are those of the browser.
 *
 *   const editor = new Editor(element, grammar);
 *   editor.text = "…";                       // replaces the text; undo goes back
 *   editor.addEventListener("change", …);     // the text is another
 *   editor.addEventListener("caret", …);      // event.detail: the line of the caret, from 1
 *   editor.problems = answer.problems;        // underlined
 *   editor.mark([{ first: 3, last: 5 }]);     // lines, from 1
 *
 * Places are [line, column] from 0, as in the answers.
 */
import { classesOf } from "./highlight.js";

export class Editor extends EventTarget {
  #grammar;
  #area;
  #lines;
  #shown = []; // of each line: its element, what it was drawn from, and the state behind it
  #problems = [];
  #marked = [];
  #leaving = false; // the next Tab moves the focus

  constructor(element, grammar) {
    super();
    this.#grammar = grammar;
    this.element = element;
    this.#area = element.querySelector("textarea");
    this.#lines = element.querySelector("pre");
    this.#area.addEventListener("input", () => this.#changed());
    this.#area.addEventListener("keydown", event => this.#key(event));
    this.#area.addEventListener("pointermove", event => this.#point(event));
    this.#area.addEventListener("pointerleave", () => this.#tip(null));
    document.addEventListener("selectionchange", () => {
      if (document.activeElement === this.#area) this.#caret();
    });
  }

  get text() {
    return this.#area.value;
  }

  set text(text) {
    this.#area.value = text;
    this.#area.setSelectionRange(0, 0);
    this.element.scrollTo(0, 0);
    this.#problems = [];
    this.#changed();
  }

  set problems(problems) {
    this.#problems = problems;
    this.#draw();
  }

  /** Marks lines; with `show`, the first one is scrolled into view. */
  mark(lines, show = false) {
    this.#marked = lines;
    this.#shown.forEach(({ element }, index) => {
      const is = lines.some(({ first, last }) => first <= index + 1 && index + 1 <= last);
      element.classList.toggle("marked", is);
    });
    if (show && lines.length) this.#reveal(lines[0].first - 1);
  }

  /** Moves the caret to a place, selects up to `end`, and scrolls there. */
  go(start, end = start) {
    this.#area.focus({ preventScroll: true });
    this.#area.setSelectionRange(this.offset(start), this.offset(end));
    this.#reveal(start[0]);
    this.#caret();
  }

  /** Replaces parts of the text, so that undo takes all of them back. */
  apply(edits) {
    const ordered = [...edits].sort((a, b) => this.offset(b.start) - this.offset(a.start));
    for (const { start, end, text } of ordered) {
      this.#area.focus({ preventScroll: true });
      this.#area.setSelectionRange(this.offset(start), this.offset(end));
      this.#insert(text);
    }
  }

  /** The offset of a place in the text. */
  offset([line, column]) {
    const lines = this.text.split("\n");
    if (line >= lines.length) return this.text.length;
    const before = lines.slice(0, line).reduce((sum, each) => sum + each.length + 1, 0);
    return before + Math.min(column, lines[line].length);
  }

  #insert(text) {
    // Deprecated, and the only way to change a text so that the browser's undo knows it.
    if (!document.execCommand(text ? "insertText" : "delete", false, text)) {
      this.#area.setRangeText(text, this.#area.selectionStart, this.#area.selectionEnd, "end");
      this.#changed();
    }
  }

  #changed() {
    this.#draw();
    this.dispatchEvent(new Event("change"));
  }

  #caret() {
    const line = this.text.slice(0, this.#area.selectionStart).split("\n").length;
    this.#shown.forEach(({ element }, index) => element.classList.toggle("caret", index + 1 === line));
    this.dispatchEvent(new CustomEvent("caret", { detail: line }));
  }

  #key(event) {
    if (event.key === "Escape") this.#leaving = true;
    else if (event.key === "Tab" && !this.#leaving && !event.ctrlKey && !event.altKey) {
      event.preventDefault();
      if (event.shiftKey) this.#outdent();
      else this.#insert("  ");
    } else if (event.key === "Enter" && !event.isComposing && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      const before = this.text.slice(0, this.#area.selectionStart).split("\n").at(-1);
      const indent = /^ */.exec(before)[0] + (/[{([]\s*$/.test(before) ? "  " : "");
      this.#insert(`\n${indent}`);
      this.#reveal(this.text.slice(0, this.#area.selectionStart).split("\n").length - 1);
    } else if (event.key !== "Shift") this.#leaving = false;
  }

  #outdent() {
    const caret = this.#area.selectionStart;
    const start = this.text.lastIndexOf("\n", caret - 1) + 1;
    const spaces = /^ {0,2}/.exec(this.text.slice(start))[0].length;
    if (!spaces) return;
    this.#area.setSelectionRange(start, start + spaces);
    this.#insert("");
    const back = Math.max(start, caret - spaces);
    this.#area.setSelectionRange(back, back);
  }

  /** Scrolls a line into the middle if it is not in view. */
  #reveal(index) {
    const line = this.#shown[index]?.element;
    if (!line) return;
    const box = this.element.getBoundingClientRect();
    const { top, bottom } = line.getBoundingClientRect();
    if (top < box.top || bottom > box.bottom) {
      this.element.scrollBy({ top: (top + bottom) / 2 - (box.top + box.bottom) / 2 });
    }
  }

  /** Draws the lines that changed. */
  #draw() {
    const rows = [];
    let state = this.#grammar.start;
    this.text.split("\n").forEach((text, index) => {
      const own = this.#problems.filter(({ start, end }) => start[0] <= index && index <= end[0]);
      const places = own.map(each => [
        each.start[0] === index ? each.start[1] : text.search(/\S|$/),
        each.end[0] === index ? each.end[1] : text.length,
        each.unused,
      ]);
      const key = `${state.id} ${JSON.stringify(places)} ${text}`;
      rows.push({ key, text, places, problems: own, begin: state });
      state = this.#next(state, text);
    });
    const old = this.#shown;
    let head = 0;
    while (head < Math.min(old.length, rows.length) && old[head].key === rows[head].key) head += 1;
    let tail = 0;
    const most = Math.min(old.length, rows.length) - head;
    while (tail < most && old.at(-1 - tail).key === rows.at(-1 - tail).key) tail += 1;
    for (const each of old.slice(head, old.length - tail)) each.element.remove();
    const below = old[old.length - tail]?.element ?? null;
    this.#shown = rows.map((row, index) => {
      const same = index < head ? old[index] : index >= rows.length - tail ? old.at(index - rows.length) : null;
      if (same) return { ...same, problems: row.problems };
      const element = this.#line(row);
      this.#lines.insertBefore(element, below);
      return { key: row.key, element, problems: row.problems };
    });
    this.mark(this.#marked);
  }

  #next(state, text) {
    state.lines ??= new Map();
    if (!state.lines.has(text)) {
      if (state.lines.size > 5000) state.lines.clear();
      state.lines.set(text, this.#grammar.line(text, state));
    }
    return state.lines.get(text).state;
  }

  /** The element of a line: a <span> for each stretch with the same colour and underline. */
  #line({ text, places, begin }) {
    this.#next(begin, text);
    const { tokens } = begin.lines.get(text);
    const line = document.createElement("div");
    line.className = places.some(([, , unused]) => !unused) ? "line wrong" : "line";
    // A place behind the last character, or of no characters, needs one to underline.
    const shown = places.some(([start, end]) => start >= text.length || start === end) ? `${text} ` : text;
    const wide = places.map(([start, end, unused]) => [start, Math.max(end, start + 1), unused]);
    const cuts = new Set([0, shown.length]);
    for (const { start, end } of tokens) cuts.add(start).add(end);
    for (const [start, end] of wide) cuts.add(start).add(end);
    const ordered = [...cuts].filter(cut => cut <= shown.length).sort((a, b) => a - b);
    ordered.slice(1).forEach((end, index) => {
      const start = ordered[index];
      const token = tokens.find(each => each.start <= start && end <= each.end);
      const problem = wide.find(([from, to]) => from <= start && end <= to);
      const span = document.createElement("span");
      span.textContent = shown.slice(start, end);
      span.className = `${token ? classesOf(token.scope) : ""}${problem ? (problem[2] ? " unused" : " problem") : ""}`;
      line.append(span);
    });
    line.append("\n");
    return line;
  }

  /** Shows the message of the underlined place under the pointer. */
  #point({ clientX, clientY }) {
    const under = document.elementsFromPoint(clientX, clientY);
    const span = under.find(each => each.matches?.(".problem, .unused"));
    const row = span && this.#shown.find(({ element }) => element === span.parentElement);
    this.#tip(row ? row.problems.map(each => each.message).join("\n\n") : null, span);
  }

  #tip(text, beside) {
    this.tip ??= document.body.appendChild(
      Object.assign(document.createElement("div"), { className: "archdsl-tip", hidden: true }),
    );
    this.tip.hidden = !text;
    if (!text) return;
    this.tip.textContent = text;
    const { left, bottom } = beside.getBoundingClientRect();
    this.tip.style.left = `${Math.max(8, Math.min(left, innerWidth - this.tip.offsetWidth - 8))}px`;
    this.tip.style.top = `${Math.min(bottom + 6, innerHeight - this.tip.offsetHeight - 8)}px`;
  }
}
