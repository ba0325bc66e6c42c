"""The language server: documents that an editor has open, and its requests about them.

The only file that knows pygls and the Language Server Protocol. It runs on one thread; a check
gives way to newer text after each model.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any

from lsprotocol import types as lsp
from pygls.exceptions import JsonRpcException
from pygls.lsp.server import LanguageServer
from pygls.protocol import LanguageServerProtocol, lsp_method
from pygls.uris import to_fs_path

import archdsl
from archdsl.diagnostics import ArchError, page
from archdsl.editor import places
from archdsl.editor.completion import Completion, completions
from archdsl.editor.document import Document
from archdsl.editor.fixes import fixes
from archdsl.editor.hints import hints
from archdsl.editor.hover import hover
from archdsl.editor.navigation import find_definition, find_references, find_renamed, rename
from archdsl.editor.problems import Problem, problems
from archdsl.editor.symbols import Symbol, symbols

_SYMBOLS = {
    "model": lsp.SymbolKind.Class,
    "block": lsp.SymbolKind.Function,
    "variant": lsp.SymbolKind.Object,
    "weights": lsp.SymbolKind.Namespace,
    "use": lsp.SymbolKind.File,
    "parameter": lsp.SymbolKind.Property,
    "input": lsp.SymbolKind.Interface,
    "output": lsp.SymbolKind.Interface,
}
_COMPLETIONS = {
    "keyword": lsp.CompletionItemKind.Keyword,
    "operator": lsp.CompletionItemKind.Function,
    "function": lsp.CompletionItemKind.Function,
    "block": lsp.CompletionItemKind.Method,
    "model": lsp.CompletionItemKind.Class,
    "parameter": lsp.CompletionItemKind.Property,
    "switch": lsp.CompletionItemKind.Property,
    "choice": lsp.CompletionItemKind.EnumMember,
    "file": lsp.CompletionItemKind.File,
}


class _Protocol(LanguageServerProtocol):
    """Columns in UTF-16, which every editor knows, whatever else an editor prefers."""

    @lsp_method(lsp.INITIALIZE)
    def lsp_initialize(self, params: lsp.InitializeParams) -> Generator[Any, Any, Any]:
        if params.capabilities.general:
            params.capabilities.general.position_encodings = None
        return (yield from super().lsp_initialize(params))


class Server(LanguageServer):
    """The open documents, and the checks of them that are running."""

    def __init__(self) -> None:
        super().__init__("archdsl", archdsl.__version__, protocol_cls=_Protocol)
        self.documents: dict[str, Document] = {}
        self.problems: dict[str, list[Problem]] = {}
        self.checks: dict[str, asyncio.Task[None]] = {}

    def document(self, uri: str) -> Document:
        """The document of an open file, with its newest text."""
        text = self.workspace.get_text_document(uri).source
        document = self.documents.get(uri)
        if document is None:
            path = to_fs_path(uri) or uri.rpartition(":")[2]
            document = self.documents[uri] = Document(Path(path), text)
        elif document.given is not text and document.given != text:
            document.update(text)
        return document

    def start_check(self, uri: str) -> None:
        """Checks the newest text of a file instead of an older one."""
        self.stop_check(uri)
        self.checks[uri] = asyncio.get_running_loop().create_task(self._check(uri))

    def stop_check(self, uri: str) -> None:
        if task := self.checks.pop(uri, None):
            task.cancel()

    async def _check(self, uri: str) -> None:
        await asyncio.sleep(0)  # read what the editor has already sent
        document = self.document(uri)
        self.problems.pop(uri, None)
        for diagnostics in document.check():
            found = problems(document.version, diagnostics)
            if self.problems.get(uri) != found:
                self.problems[uri] = found
                self.publish(uri, found)
            await asyncio.sleep(0)
        workspace = self.client_capabilities.workspace
        if workspace and workspace.inlay_hint and workspace.inlay_hint.refresh_support:
            self.workspace_inlay_hint_refresh(None)

    def publish(self, uri: str, found: list[Problem]) -> None:
        version = self.workspace.get_text_document(uri).version
        shown = [_diagnostic(each) for each in found]
        params = lsp.PublishDiagnosticsParams(uri=uri, diagnostics=shown, version=version)
        self.text_document_publish_diagnostics(params)


def create_server() -> Server:
    """A language server; `start_io` runs it on stdin and stdout."""
    server = Server()
    _register_documents(server)
    _register_requests(server)
    return server


def _register_documents(server: Server) -> None:
    @server.feature(lsp.TEXT_DOCUMENT_DID_OPEN)
    async def opened(params: lsp.DidOpenTextDocumentParams) -> None:
        server.start_check(params.text_document.uri)

    @server.feature(lsp.TEXT_DOCUMENT_DID_CHANGE)
    async def changed(params: lsp.DidChangeTextDocumentParams) -> None:
        server.start_check(params.text_document.uri)

    @server.feature(lsp.TEXT_DOCUMENT_DID_SAVE)
    async def saved(params: lsp.DidSaveTextDocumentParams) -> None:
        for uri, document in server.documents.items():  # others may use this file
            document.update(document.given)
            server.start_check(uri)

    @server.feature(lsp.TEXT_DOCUMENT_DID_CLOSE)
    async def closed(params: lsp.DidCloseTextDocumentParams) -> None:
        uri = params.text_document.uri
        server.stop_check(uri)
        server.documents.pop(uri, None)
        server.problems.pop(uri, None)
        empty = lsp.PublishDiagnosticsParams(uri=uri, diagnostics=[])
        server.text_document_publish_diagnostics(empty)


def _register_requests(server: Server) -> None:
    @server.feature(lsp.TEXT_DOCUMENT_HOVER)
    def hovered(params: lsp.HoverParams) -> lsp.Hover | None:
        found = hover(server.document(params.text_document.uri), _given(params.position))
        if found is None:
            return None
        text = lsp.MarkupContent(lsp.MarkupKind.Markdown, found.markdown)
        return lsp.Hover(text, _range(found.range))

    options = lsp.CompletionOptions(trigger_characters=["(", ",", ">", " ", '"', "="])

    @server.feature(lsp.TEXT_DOCUMENT_COMPLETION, options)
    def complete(params: lsp.CompletionParams) -> list[lsp.CompletionItem]:
        document = server.document(params.text_document.uri)
        found = completions(document, _given(params.position))
        return [_completion(each, number) for number, each in enumerate(found)]

    @server.feature(lsp.TEXT_DOCUMENT_DEFINITION)
    def define(params: lsp.DefinitionParams) -> lsp.Location | None:
        version = server.document(params.text_document.uri).version
        found = find_definition(version, _given(params.position))
        return _location(found) if found else None

    @server.feature(lsp.TEXT_DOCUMENT_REFERENCES)
    def refer(params: lsp.ReferenceParams) -> list[lsp.Location]:
        version = server.document(params.text_document.uri).version
        declared = params.context.include_declaration
        found = find_references(version, _given(params.position), declared)
        return [_location(each) for each in found]

    @server.feature(lsp.TEXT_DOCUMENT_PREPARE_RENAME)
    def prepare(params: lsp.PrepareRenameParams) -> lsp.Range | None:
        version = server.document(params.text_document.uri).version
        found = find_renamed(version, _given(params.position))
        return _range(found) if found else None

    @server.feature(lsp.TEXT_DOCUMENT_RENAME, lsp.RenameOptions(prepare_provider=True))
    def renamed(params: lsp.RenameParams) -> lsp.WorkspaceEdit:
        uri = params.text_document.uri
        try:
            edits = rename(server.document(uri), _given(params.position), params.new_name)
        except ArchError as error:
            message = "; ".join(
                ". ".join(filter(None, (each.message, each.help))) for each in error.diagnostics
            )
            raise JsonRpcException(message, code=lsp.LSPErrorCodes.RequestFailed) from error
        own = server.document(uri).path
        return lsp.WorkspaceEdit(
            {uri if path == own else _uri(path): _edits(found) for path, found in edits.items()}
        )

    @server.feature(lsp.TEXT_DOCUMENT_DOCUMENT_SYMBOL)
    def outline(params: lsp.DocumentSymbolParams) -> list[lsp.DocumentSymbol]:
        version = server.document(params.text_document.uri).version
        return [_symbol(each) for each in symbols(version)]

    @server.feature(lsp.TEXT_DOCUMENT_FORMATTING)
    def formatted(params: lsp.DocumentFormattingParams) -> list[lsp.TextEdit]:
        document = server.document(params.text_document.uri)
        text = document.formatted()
        if text is None or text == document.version.text:
            return []
        whole = document.version.lines.range(0, len(document.version.text))
        return [lsp.TextEdit(_range(whole), text)]

    @server.feature(lsp.TEXT_DOCUMENT_INLAY_HINT)
    def hinted(params: lsp.InlayHintParams) -> list[lsp.InlayHint]:
        document = server.document(params.text_document.uri)
        found = hints(document, params.range.start.line, params.range.end.line)
        kind = lsp.InlayHintKind.Type
        return [lsp.InlayHint(_position(h.position), h.text, kind) for h in found]

    kinds = lsp.CodeActionOptions(code_action_kinds=[lsp.CodeActionKind.QuickFix])

    @server.feature(lsp.TEXT_DOCUMENT_CODE_ACTION, kinds)
    def fixed(params: lsp.CodeActionParams) -> list[lsp.CodeAction]:
        uri = params.text_document.uri
        first, last = params.range.start.line, params.range.end.line
        near = (
            each
            for each in server.problems.get(uri, [])
            if each.range.start.line <= last and first <= each.range.end.line
        )
        version = server.document(uri).version
        return [
            lsp.CodeAction(
                fix.title,
                kind=lsp.CodeActionKind.QuickFix,
                diagnostics=[_diagnostic(fix.problem)],
                is_preferred=True,
                edit=lsp.WorkspaceEdit({uri: _edits(fix.edits)}),
            )
            for each in near
            for fix in fixes(version, each)
        ]


# -- plain data in the words of the protocol --


def _given(position: lsp.Position) -> places.Position:
    return places.Position(position.line, position.character)


def _position(position: places.Position) -> lsp.Position:
    return lsp.Position(position.line, position.column)


def _range(range: places.Range) -> lsp.Range:
    return lsp.Range(_position(range.start), _position(range.end))


def _location(location: places.Location) -> lsp.Location:
    return lsp.Location(_uri(location.path), _range(location.range))


def _uri(path: Path) -> str:
    return path.absolute().as_uri()


def _edits(edits: Iterable[places.Edit]) -> list[lsp.TextEdit]:
    return [lsp.TextEdit(_range(each.range), each.text) for each in edits]


def _diagnostic(problem: Problem) -> lsp.Diagnostic:
    return lsp.Diagnostic(
        _range(problem.range),
        problem.message,
        severity=lsp.DiagnosticSeverity.Error,
        code=problem.code,
        code_description=lsp.CodeDescription(page(problem.code).as_uri()),
        source="archdsl",
        tags=[lsp.DiagnosticTag.Unnecessary] if problem.unused else None,
        related_information=[
            lsp.DiagnosticRelatedInformation(_location(where), text)
            for where, text in problem.others
        ],
    )


def _symbol(symbol: Symbol) -> lsp.DocumentSymbol:
    return lsp.DocumentSymbol(
        symbol.name,
        _SYMBOLS.get(symbol.kind, lsp.SymbolKind.Variable),
        _range(symbol.range),
        _range(symbol.name_range),
        detail=symbol.detail,
        children=[_symbol(each) for each in symbol.children],
    )


def _completion(completion: Completion, number: int) -> lsp.CompletionItem:
    return lsp.CompletionItem(
        completion.text,
        kind=_COMPLETIONS.get(completion.kind, lsp.CompletionItemKind.Variable),
        detail=completion.detail or completion.kind,
        documentation=completion.documentation or None,
        sort_text=f"{number:04}",
    )
