/** What the pages of the site do: figures answer, and the gallery shows one kind of models. */
import { attach } from "./figure.js";

/** A click on a box leads to its line, on the page of the spec that has it. */
const lead = box => {
  const { file, line } = box.dataset;
  location.href = `${file.replace(/\.arch$/, ".html")}#line-0-${line}`;
};
for (const svg of document.querySelectorAll(".drawn svg.archdsl")) {
  attach(svg, { onOpen: lead, opens: box => Boolean(box.dataset.line) });
}

const buttons = [...document.querySelectorAll(".kinds button")];
const cards = [...document.querySelectorAll(".card")];

/** Shows the cards that have all pressed kinds. */
function filter() {
  const kinds = buttons.filter(pressed).map(button => button.dataset.kind);
  for (const card of cards) {
    const has = card.dataset.kinds.split(" ");
    card.hidden = !kinds.every(kind => has.includes(kind));
  }
}

const pressed = button => button.getAttribute("aria-pressed") === "true";

for (const button of buttons) {
  button.addEventListener("click", () => {
    button.setAttribute("aria-pressed", String(!pressed(button)));
    filter();
  });
}
