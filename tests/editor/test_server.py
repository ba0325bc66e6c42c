"""The language server, started and asked as an editor does."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
from lsprotocol import types as lsp
from pygls.exceptions import JsonRpcException
from pygls.lsp.client import LanguageClient

from archdsl.cli import main

TEXT = """\
model M(D = 4) {
  # 𝄞
  input x: float[D]
  output y: float[D] = x -> nrom
}
"""


class Editor:
    """A client with one open file. `problems` waits for the next list of mistakes."""

    def __init__(self, path: Path):
        self.uri = path.as_uri()
        self.file = lsp.TextDocumentIdentifier(self.uri)
        self.client = LanguageClient("tests", "1")
        self.published: asyncio.Queue[lsp.PublishDiagnosticsParams] = asyncio.Queue()

        @self.client.feature(lsp.TEXT_DOCUMENT_PUBLISH_DIAGNOSTICS)
        def published(params: lsp.PublishDiagnosticsParams) -> None:
            self.published.put_nowait(params)

    async def start(self) -> lsp.InitializeResult:
        await self.client.start_io(sys.executable, "-m", "archdsl", "lsp", "--stdio")
        encodings = lsp.GeneralClientCapabilities(position_encodings=["utf-8", "utf-16"])
        capabilities = lsp.ClientCapabilities(general=encodings)
        given = lsp.InitializeParams(capabilities=capabilities)
        result = await self.client.initialize_async(given)
        self.client.initialized(lsp.InitializedParams())
        return result

    def open(self, text: str) -> None:
        item = lsp.TextDocumentItem(self.uri, "arch", 1, text)
        self.client.text_document_did_open(lsp.DidOpenTextDocumentParams(item))

    def change(self, version: int, line: int, start: int, end: int, text: str) -> None:
        range = lsp.Range(lsp.Position(line, start), lsp.Position(line, end))
        change = lsp.TextDocumentContentChangePartial(range, text)
        file = lsp.VersionedTextDocumentIdentifier(version, self.uri)
        self.client.text_document_did_change(lsp.DidChangeTextDocumentParams(file, [change]))

    async def problems(self) -> list[lsp.Diagnostic]:
        return list((await asyncio.wait_for(self.published.get(), 60)).diagnostics)

    async def stop(self) -> None:
        await self.client.shutdown_async(None)
        self.client.exit(None)
        await self.client.stop()


async def session(path: Path) -> None:
    editor = Editor(path)
    started = await editor.start()
    assert started.capabilities.position_encoding == "utf-16"
    editor.open(TEXT)
    (mistake,) = await editor.problems()
    assert mistake.code == "unknown-name"
    assert mistake.message == "there is no block `nrom`\nhelp: did you mean `norm`?"
    assert mistake.range == lsp.Range(lsp.Position(3, 28), lsp.Position(3, 32))
    assert mistake.code_description is not None
    assert mistake.code_description.href.endswith("/docs/errors/unknown-name.md")

    context = lsp.CodeActionContext([mistake])
    actions = await editor.client.text_document_code_action_async(
        lsp.CodeActionParams(editor.file, mistake.range, context)
    )
    assert actions
    (action,) = actions
    assert isinstance(action, lsp.CodeAction)
    assert action.edit
    assert action.edit.changes == {editor.uri: (lsp.TextEdit(mistake.range, "norm"),)}

    editor.change(2, 3, 28, 32, "norm")
    assert await editor.problems() == []
    norm = lsp.Position(3, 29)
    shown = await editor.client.text_document_hover_async(lsp.HoverParams(editor.file, norm))
    assert shown is not None
    assert isinstance(shown.contents, lsp.MarkupContent)
    assert "Normalises the last axis" in shown.contents.value

    d = lsp.Position(2, 17)
    target = await editor.client.text_document_definition_async(
        lsp.DefinitionParams(editor.file, d)
    )
    assert isinstance(target, lsp.Location)
    assert target.range == lsp.Range(lsp.Position(0, 8), lsp.Position(0, 9))
    uses = await editor.client.text_document_references_async(
        lsp.ReferenceParams(lsp.ReferenceContext(False), editor.file, d)
    )
    assert uses is not None
    assert [each.range.start.line for each in uses] == [2, 3]
    edit = await editor.client.text_document_rename_async(lsp.RenameParams(editor.file, d, "N"))
    assert edit is not None
    assert edit.changes is not None
    assert len(edit.changes[editor.uri]) == 3
    with pytest.raises(JsonRpcException, match="another meaning"):
        await editor.client.text_document_rename_async(lsp.RenameParams(editor.file, d, "x"))

    outline = await editor.client.text_document_document_symbol_async(
        lsp.DocumentSymbolParams(editor.file)
    )
    assert outline is not None
    assert [each.name for each in outline] == ["M"]
    offered = await editor.client.text_document_completion_async(
        lsp.CompletionParams(editor.file, norm)
    )
    assert isinstance(offered, list)
    assert {"norm", "linear"} <= {each.label for each in offered}

    whole = lsp.Range(lsp.Position(0, 0), lsp.Position(5, 0))
    inlays = await editor.client.text_document_inlay_hint_async(
        lsp.InlayHintParams(editor.file, whole)
    )
    assert inlays == ()  # no edge but the output, which has its type

    editor.change(3, 0, 5, 9, " M( D=4 )")
    await asyncio.sleep(0)
    edits = await editor.client.text_document_formatting_async(
        lsp.DocumentFormattingParams(editor.file, lsp.FormattingOptions(2, True))
    )
    assert edits is not None
    editor.client.text_document_did_close(lsp.DidCloseTextDocumentParams(editor.file))
    await editor.stop()


@pytest.mark.long
def test_a_session(tmp_path: Path) -> None:
    asyncio.run(session(tmp_path / "a.arch"))


def test_without_pygls_the_command_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "archdsl.editor.server", raising=False)
    for name in [each for each in sys.modules if each.split(".")[0] in ("pygls", "lsprotocol")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "lsprotocol", None)
    assert main(["lsp"]) == 1
    assert "pip install 'archdsl[editor]'" in capsys.readouterr().err
