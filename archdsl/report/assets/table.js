/**
 * Sorts the rows of tables by a column: once from the largest, twice from the smallest, then as
 * they were. The parts of a block stay below it.
 *
 * A row has its depth in `data-level`, a cell its number in `data-value`.
 */
export function sortable(table) {
  const body = table.tBodies[0];
  const original = [...body.rows];
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    head.querySelector("button")?.addEventListener("click", () => {
      const next = { undefined: "descending", descending: "ascending" }[head.getAttribute("aria-sort") ?? undefined];
      heads.forEach(each => each.removeAttribute("aria-sort"));
      if (next) head.setAttribute("aria-sort", next);
      body.append(...(next ? sorted(original, column, next === "ascending" ? 1 : -1) : original));
    });
  });
}

/** The rows in the order of a column, each before the rows inside it. */
function sorted(rows, column, sign) {
  const groups = [];
  for (const row of rows) {
    if (!groups.length || +row.dataset.level <= +groups[0][0].dataset.level) groups.push([row]);
    else groups.at(-1).push(row);
  }
  const value = ([row]) => +row.cells[column].dataset.value;
  groups.sort((a, b) => sign * (value(a) - value(b)));
  return groups.flatMap(([row, ...inside]) => [row, ...sorted(inside, column, sign)]);
}
