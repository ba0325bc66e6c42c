/** The pages of error codes, as nodes: headings, paragraphs, lists, `code` and blocks of it. */
export function render(text) {
  const nodes = [];
  for (const part of text.split(/^(```[^\n]*\n[\s\S]*?\n```)$/m)) {
    if (part.startsWith("```")) {
      nodes.push(element("pre", element("code", part.replace(/^```.*\n|\n```$/g, ""))));
      continue;
    }
    for (const block of part.split(/\n{2,}/)) {
      const lines = block.trim();
      if (!lines) continue;
      const heading = /^(#+) (.*)$/.exec(lines);
      if (heading) nodes.push(element(`h${heading[1].length}`, ...inline(heading[2])));
      else if (/^- /.test(lines)) {
        const items = lines.split(/\n?^- /m).filter(Boolean);
        nodes.push(element("ul", ...items.map(item => element("li", ...inline(item)))));
      } else nodes.push(element("p", ...inline(lines)));
    }
  }
  return nodes;
}

function element(tag, ...children) {
  const made = document.createElement(tag);
  made.append(...children);
  return made;
}

/** `code`, and links as their words: they lead to files that the page does not have. */
function inline(text) {
  const plain = text.replace(/\[([^\]]+)\]\([^)]+\)/g, "$1").replaceAll("**", "");
  return plain.split(/`([^`]+)`/).map((part, index) => (index % 2 ? element("code", part) : part));
}
