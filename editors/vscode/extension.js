// Starts `archdsl lsp` for files in the language of archdsl.
const vscode = require("vscode");
const { LanguageClient } = require("vscode-languageclient/node");

let client;

async function start() {
  const [command, ...args] = vscode.workspace.getConfiguration("archdsl").get("command");
  const documentSelector = [{ language: "arch" }];
  client = new LanguageClient("archdsl", "archdsl", { command, args }, { documentSelector });
  try {
    await client.start();
  } catch (error) {
    // The client rejects with an Error or with a text.
    const cause = error?.message ?? error;
    const help =
      "Install it by `pip install 'archdsl[editor]'`, or set `archdsl.command` to its full path, " +
      "such as `/home/me/.venv/bin/archdsl`, if it is in an environment.";
    vscode.window.showErrorMessage(`\`${command}\` cannot be started: ${cause} ${help}`);
  }
}

async function restart() {
  await deactivate();
  await start();
}

async function activate(context) {
  context.subscriptions.push(
    vscode.commands.registerCommand("archdsl.restart", restart),
    vscode.workspace.onDidChangeConfiguration((change) => {
      if (change.affectsConfiguration("archdsl.command")) restart();
    }),
  );
  await start();
}

async function deactivate() {
  if (client?.isRunning()) await client.stop();
}

module.exports = { activate, deactivate };
