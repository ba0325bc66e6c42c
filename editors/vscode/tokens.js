// Prints the scopes that the grammar gives to files: for each a list of [start, end, scope],
// the offsets in characters and the innermost scope. The tests compare them with the compiler.
const fs = require("fs");
const path = require("path");
const oniguruma = require("vscode-oniguruma");
const { INITIAL, Registry, parseRawGrammar } = require("vscode-textmate");

async function main(files) {
  const wasm = require.resolve("vscode-oniguruma/release/onig.wasm");
  await oniguruma.loadWASM(fs.readFileSync(wasm).buffer);
  const source = path.join(__dirname, "syntaxes", "arch.tmLanguage.json");
  const registry = new Registry({
    onigLib: Promise.resolve({
      createOnigScanner: (patterns) => new oniguruma.OnigScanner(patterns),
      createOnigString: (text) => new oniguruma.OnigString(text),
    }),
    loadGrammar: async () => parseRawGrammar(fs.readFileSync(source, "utf8"), source),
  });
  const grammar = await registry.loadGrammar("source.arch");
  const found = {};
  for (const file of files) {
    let [stack, offset] = [INITIAL, 0];
    found[file] = [];
    for (const line of fs.readFileSync(file, "utf8").split("\n")) {
      const result = grammar.tokenizeLine(line, stack);
      for (const token of result.tokens) {
        const scope = token.scopes[token.scopes.length - 1];
        found[file].push([offset + token.startIndex, offset + token.endIndex, scope]);
      }
      stack = result.ruleStack;
      offset += line.length + 1;
    }
  }
  process.stdout.write(JSON.stringify(found));
}

main(process.argv.slice(2));
