/**
 * An SVG of archdsl that answers: what a box is, which lines it comes from, and what is inside.
 *
 * A box is a <g data-id>. The lines of a spec that it comes from are in `data-lines`:
 * "gpt.arch:12 blocks.arch:4-6"; if it is one line, in `data-file` and `data-line`. Its <title> says
 * what it is.
 *
 *   import { attach } from "./figure.js";
 *   const figure = attach(document.querySelector("svg.archdsl"), {
 *     onLine: lines => …,            // pointed at or focused: [{file, first, last}, …]; [] when left
 *     onOpen: box => …,              // clicked, or Enter; only boxes that `opens(box)` allows
 *   });
 *   figure.highlight("gpt.arch", 12);   // marks the boxes that come from a line, and returns them
 *   figure.detach();
 *
 * The looks are in figure.css.
 */

/** The lines that a box comes from: [{file, first, last}, …], the innermost one first. */
export function linesOf(box) {
  const { file, line, lines } = box.dataset;
  if (!lines) return file && line ? [{ file, first: +line, last: +line }] : [];
  return lines.split(" ").map(text => {
    const [, name, first, last] = /^(.*):(\d+)(?:-(\d+))?$/.exec(text);
    return { file: decodeURIComponent(name), first: +first, last: +(last ?? first) };
  });
}

/**
 * Makes the boxes of an SVG answer to the pointer and to the keyboard: Tab leads to a figure, and
 * the arrow keys from box to box.
 *
 * - `onLine(lines, box)`: a box is pointed at or focused; `lines` is [] and `box` null when left.
 * - `opens(box)`: whether a box opens; by default all do if there is `onOpen`.
 * - `onOpen(box, byKeys)`: a box is clicked, or Enter or Space is pressed on it.
 * - `describe(text, box)`: the text of the tip, from the one in the SVG.
 * - `within`: an element that tips stay in if they can; the whole window by default.
 */
export function attach(svg, options = {}) {
  const { onLine, onOpen, within } = options;
  const describe = options.describe ?? (text => text);
  const opens = options.opens ?? (() => Boolean(onOpen));
  const stop = new AbortController();
  const boxes = [...svg.querySelectorAll("g[data-id]")];
  const lines = new Map(boxes.map(box => [box, linesOf(box)]));
  // As an image, a figure has no parts; with parts, a reader of screens reads each of them.
  svg.setAttribute("role", "group");
  svg.setAttribute("aria-label", svg.querySelector(":scope > title")?.textContent ?? "");
  svg.querySelector(":scope > title")?.remove(); // a browser would show it as a tip everywhere

  for (const box of boxes) {
    const title = box.querySelector(":scope > title");
    if (title) {
      box.dataset.tip = title.textContent;
      title.remove();
    }
    const open = opens(box);
    box.classList.toggle("opens", open);
    const frame = box.querySelector(":scope > rect"); // a sign such as + is a circle
    if (open && frame && !box.querySelector(".corner")) box.append(corner(frame));
    box.setAttribute("tabindex", "-1");
    box.setAttribute("role", open ? "button" : "img");
    box.setAttribute("aria-label", (box.dataset.tip ?? "").replaceAll("\n", ", "));
  }

  // The lowest box is where a figure begins.
  boxes.reduce((a, b) => (a && place(a).y >= place(b).y ? a : b), null)?.setAttribute("tabindex", "0");

  let current = null;
  const tipOf = box => describe(box.dataset.tip ?? "", box);

  function enter(box) {
    if (box === current) return;
    current?.classList.remove("pointed");
    current = box;
    box.classList.add("pointed");
    show(tipOf(box), box, within);
    onLine?.(lines.get(box), box);
  }
  function leave() {
    if (!current) return;
    current.classList.remove("pointed");
    current = null;
    hide();
    onLine?.([], null);
  }
  function open(box, byKeys) {
    if (!onOpen || !opens(box)) return false;
    leave();
    onOpen(box, byKeys);
    return true;
  }
  let tapped = null;
  function tap(box, by) {
    if (by === "touch" && tapped !== box) { // a finger cannot point: the first tap does
      tapped = box;
      enter(box);
    } else {
      open(box, false);
    }
  }
  function press(box, event) {
    const next = neighbour(box, event.key, boxes);
    if (next) {
      box.setAttribute("tabindex", "-1");
      next.setAttribute("tabindex", "0");
      next.focus();
    }
    if (next || (["Enter", " "].includes(event.key) && open(box, true))) event.preventDefault();
    if (event.key === "Escape") hide();
  }

  for (const box of boxes) {
    const on = (type, run) => box.addEventListener(type, run, { signal: stop.signal });
    on("pointerenter", () => enter(box));
    on("pointerleave", event => event.pointerType !== "touch" && leave());
    on("focus", () => box.matches(":focus-visible") && enter(box)); // a click focuses too
    on("blur", leave);
    on("click", event => tap(box, event.pointerType));
    on("keydown", event => press(box, event));
  }
  document.addEventListener("pointerdown", event => {
    if (svg.contains(event.target) && event.target.closest("g[data-id]")) return;
    tapped = null;
    leave();
  }, { signal: stop.signal });

  /**
   * The boxes that come from a line.
   *
   * Of the parts of a spec around the line, the shortest count: an argument on a line of its own
   * is not all that the call around it makes.
   */
  function comesFrom(file, line) {
    let [found, least] = [[], Infinity];
    for (const box of boxes) {
      const around = lines.get(box).filter(each => each.file === file && each.first <= line && line <= each.last);
      const length = Math.min(...around.map(each => each.last - each.first));
      if (length < least) [found, least] = [[], length];
      if (around.length && length === least) found.push(box);
    }
    return found;
  }

  return {
    boxes,
    comesFrom,
    /** Marks the boxes that come from a line; without a line, none. Returns them. */
    highlight(file, line) {
      const lit = file === undefined ? [] : comesFrom(file, line);
      for (const box of boxes) box.classList.toggle("lit", lit.includes(box));
      return lit;
    },
    /** Shows the tip of a box again, if it is shown: `describe` may say something else now. */
    refresh() {
      if (current && !tip?.hidden) show(tipOf(current), current, within);
    },
    detach() {
      leave();
      stop.abort();
    },
  };
}

const WAYS = { ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowRight: [1, 0] };

/** Where a box is for the arrow keys: its middle, or the lower edge of a frame. */
function place(box) {
  const { x, y, width, height } = box.getBoundingClientRect();
  return { x: x + width / 2, y: box.querySelector(":scope > .frame") ? y + height : y + height / 2 };
}

/** The nearest box in the direction of an arrow key, if there is one. */
function neighbour(box, key, boxes) {
  if (!WAYS[key]) return null;
  const [dx, dy] = WAYS[key];
  const from = place(box);
  const distance = other => {
    const { x, y } = place(other);
    const along = (x - from.x) * dx + (y - from.y) * dy;
    return along > 1 ? along + 2 * Math.abs((x - from.x) * dy + (y - from.y) * dx) : Infinity;
  };
  const best = boxes.reduce((a, b) => (distance(b) < distance(a) ? b : a), box);
  return distance(best) < Infinity ? best : null;
}

/** The corner of a box that opens. */
function corner(rect) {
  const [x, y, width] = ["x", "y", "width"].map(name => rect[name].baseVal.value);
  const path = document.createElementNS(rect.namespaceURI, "path");
  path.setAttribute("class", "corner");
  path.setAttribute("d", `M${x + width - 7.5} ${y + 2.5} h5 v5 z`);
  return path;
}

let tip = null; // one for the page
const [LEAST, ENOUGH, WIDEST] = [190, 240, 350]; // pixels of its width

/** Shows a tip beside a box: at the right, else at the left, else below or above. */
function show(text, box, within) {
  if (!tip) {
    tip = document.createElement("div");
    tip.className = "archdsl-tip";
    tip.setAttribute("role", "tooltip");
    document.body.append(tip);
  }
  tip.replaceChildren(...text.split("\n").map((line, number) => {
    const row = document.createElement("div");
    const [, name, rest] = (number && /^([^:]*:)(.*)$/.exec(line)) || [null, "", line];
    row.append(Object.assign(document.createElement("span"), { textContent: name }), rest);
    return row;
  }));
  tip.hidden = !text;

  const gap = 8;
  const { left, right, top, bottom } = box.getBoundingClientRect();
  const around = within?.getBoundingClientRect() ?? { left: 0, right: innerWidth };
  const [low, high] = [Math.max(around.left, 0) + gap, Math.min(around.right, innerWidth) - gap];
  const [before, after] = [left - gap - low, high - right - gap]; // the room at both sides
  const isRight = after >= Math.min(ENOUGH, before);
  const room = isRight ? after : before;
  const beside = room >= LEAST;
  tip.style.maxWidth = `${Math.min(WIDEST, beside ? room : high - low)}px`;
  const { offsetWidth: wide, offsetHeight: tall } = tip;
  const x = isRight ? right + gap : left - gap - wide;
  const below = bottom + gap + tall < innerHeight ? bottom + gap : top - gap - tall;
  tip.style.left = `${beside ? x : Math.max(low, Math.min(left, high - wide))}px`;
  tip.style.top = `${Math.max(gap, Math.min(beside ? top : below, innerHeight - tall - gap))}px`;
}

function hide() {
  if (tip) tip.hidden = true;
}
