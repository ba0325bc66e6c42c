/**
 * Colours of a spec, from the TextMate grammar that VS Code uses too: `grammar.json`.
 *
 *   const grammar = new Grammar(json);
 *   const { tokens, state } = grammar.line("x -> norm", grammar.start);
 *
 * A token is { start, end, scope }, such as "support.function.operator.arch". The state is what
 * the next line begins in; equal states are the same object, so a line can be cached by both.
 */
export class Grammar {
  constructor(json) {
    this.repository = json.repository;
    this.compiled = new Map();
    this.states = new Map();
    this.start = this.state([{ patterns: json.patterns, end: null }]);
  }

  line(text, state) {
    const tokens = [];
    let stack = state.stack;
    let at = 0;
    let still = 0; // empty matches at one place
    while (at <= text.length && still < 9) {
      const found = this.first(text, at, stack.at(-1));
      if (!found) break;
      const { rule, match } = found;
      const end = match.index + match[0].length;
      if (rule === null) stack = stack.slice(0, -1);
      else if (rule.begin) {
        this.capture(tokens, match, rule.beginCaptures ?? {});
        stack = [...stack, { patterns: rule.patterns, end: rule.end }];
      } else if (rule.captures) this.capture(tokens, match, rule.captures);
      if (rule?.match && rule.name) tokens.push({ start: match.index, end, scope: rule.name });
      still = end > at ? 0 : still + 1;
      at = end;
    }
    return { tokens, state: this.state(stack) };
  }

  /** The leftmost match of a region's end or of its patterns; of several, the first. */
  first(text, at, region) {
    let best = null;
    const offer = (rule, pattern) => {
      const regex = this.regex(pattern);
      regex.lastIndex = at;
      const match = regex.exec(text);
      const empty = match && !match[0] && !rule?.begin && rule !== null;
      if (match && !empty && (!best || match.index < best.match.index)) best = { rule, match };
    };
    if (region.end) offer(null, region.end);
    for (const rule of this.rules(region.patterns)) offer(rule, rule.match ?? rule.begin);
    return best;
  }

  /** Rules in their order, with what they include. */
  *rules(patterns) {
    for (const rule of patterns) {
      if (rule.include) yield* this.rules([this.repository[rule.include.slice(1)]]);
      else if (rule.match || rule.begin) yield rule;
      else yield* this.rules(rule.patterns);
    }
  }

  capture(tokens, match, captures) {
    for (const [number, rule] of Object.entries(captures)) {
      if (match[number] === undefined) continue;
      const [start, end] = match.indices[number];
      if (rule.name) tokens.push({ start, end, scope: rule.name });
      else {
        const inner = this.line(match[number], this.state([{ patterns: rule.patterns, end: null }]));
        tokens.push(...inner.tokens.map(t => ({ ...t, start: t.start + start, end: t.end + start })));
      }
    }
  }

  regex(pattern) {
    let regex = this.compiled.get(pattern);
    if (!regex) this.compiled.set(pattern, (regex = new RegExp(pattern, "dg")));
    return regex;
  }

  /** The one object of a stack of regions. */
  state(stack) {
    const key = JSON.stringify(stack);
    if (!this.states.has(key)) this.states.set(key, { stack, id: this.states.size });
    return this.states.get(key);
  }
}

/** The classes of a token: "t-support t-function t-operator". */
export const classesOf = scope =>
  scope.split(".").filter(part => part !== "arch").map(part => `t-${part}`).join(" ");
