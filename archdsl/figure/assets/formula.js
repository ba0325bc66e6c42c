/**
 * The value of a formula in the sizes of axes, such as "2 T^2 + 3 ((T + 1) // 2) - 50_000", as a
 * BigInt: a cost may have more digits than a number of JavaScript.
 *
 *   evaluate("36864 T^2 + 2 T", { T: 1024 })
 */
export function evaluate(text, sizes) {
  const words = text.match(/\/\/|[-+^()]|\w+/g).reverse();
  const next = () => words.at(-1);
  const accept = word => next() === word && words.pop();

  function sum() {
    let total = 0n;
    let sign = accept("-") ? -1n : 1n;
    for (;;) {
      total += sign * product();
      if (next() !== "+" && next() !== "-") return total;
      sign = words.pop() === "-" ? -1n : 1n;
    }
  }
  function product() {
    let total = 1n;
    while (words.length && !["+", "-", ")"].includes(next())) {
      const base = factor();
      total *= accept("^") ? base ** BigInt(words.pop()) : base;
    }
    return total;
  }
  function factor() {
    const word = words.pop();
    let found;
    if (word === "(") {
      found = sum();
      words.pop();
    } else {
      found = /^\d/.test(word) ? BigInt(word.replaceAll("_", "")) : BigInt(sizes[word]);
    }
    return accept("//") ? quotient(found, BigInt(words.pop())) : found;
  }
  return sum();
}

/** Rounded down, as Python does. */
function quotient(number, by) {
  const found = number / by;
  return number % by < 0n ? found - 1n : found;
}

/** A number for people, with four digits: 124.4 M. */
export function short(number, unit = "") {
  const bytes = unit === "bytes";
  const prefixes = ["", "k", "M", "G", "T", "P", "E", "Z", "Y"];
  let value = Number(number);
  let step = 0;
  const rounded = () => Number(value.toPrecision(4));
  while (rounded() >= 1000 && step < prefixes.length - 1) {
    value /= 1000;
    step += 1;
  }
  const digits = String(rounded());
  return bytes ? `${digits} ${step ? `${prefixes[step]}B` : "bytes"}` : `${digits} ${prefixes[step]}`.trim();
}
