"""How each class of transformers 5 builds its tokenizer from a vocabulary.

A recipe has the settings of the model, the normalizer, the pre-tokenizer and the decoder of a
class, and the default of each of its special tokens.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from archdsl.frozen import Frozen
from archdsl.text.subword_models import QWEN_SPLIT, import_tokenizers

Settings: TypeAlias = Mapping[str, Any]
Token: TypeAlias = str | Mapping[str, Any]


class Recipe(Frozen):
    """How a class builds its tokenizer.

    - `model`: the type of the model in the file, `set_up`: sets the parts before the special
      tokens are added, `finish`: those that need the special tokens.
    - `tokens`: the default of each special token.
    - `options`: the arguments of the model, and `unknown`: whether it has the unknown token.
    - `flags`: of the special tokens that are given as texts, where they are not the usual ones.
    - `numbered`: extra special tokens that exist unless the settings list others.
    """

    model: str
    set_up: Callable[[Any, Settings], None]
    tokens: Mapping[str, Token]
    finish: Callable[[Any, Settings], None] | None = None
    options: tuple[tuple[str, Any], ...] = ()
    unknown: bool = False
    flags: tuple[tuple[str, Mapping[str, bool]], ...] = ()
    numbered: str | None = None


def content_of(token: Token | None) -> str | None:
    return token["content"] if isinstance(token, Mapping) else token


def _id(library: Any, token: Token | None) -> tuple[str, int]:
    """The text and the id of a special token."""
    text = content_of(token)
    number = None if text is None else library.token_to_id(text)
    if text is None or number is None:
        raise ValueError(f"no token {text!r}")
    return text, number


# -- Byte-level classes --

_QWEN_3_5_SPLIT = QWEN_SPLIT.replace(r"\p{L}+", r"[\p{L}\p{M}]+").replace(
    r"[^\s\p{L}\p{N}]", r"[^\s\p{L}\p{M}\p{N}]"
)
_CLIP_SPLIT = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d"
    r"|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)


def _bytes(library: Any, settings: Settings) -> None:
    tk = import_tokenizers()
    space = bool(settings.get("add_prefix_space"))
    library.pre_tokenizer = tk.pre_tokenizers.ByteLevel(add_prefix_space=space)
    library.decoder = tk.decoders.ByteLevel()


def _normal_bytes(library: Any, settings: Settings) -> None:
    _bytes(library, settings)
    library.normalizer = import_tokenizers().normalizers.NFC()


def _digits_apart(library: Any, settings: Settings) -> None:
    _normal_bytes(library, settings)
    pre = import_tokenizers().pre_tokenizers
    digits = pre.Digits(individual_digits=True)
    library.pre_tokenizer = pre.Sequence([digits, library.pre_tokenizer])


def _split_by(expression: str) -> Callable[[Any, Settings], None]:
    def set_up(library: Any, settings: Settings) -> None:
        _normal_bytes(library, settings)
        tk = import_tokenizers()
        pre, space = tk.pre_tokenizers, bool(settings.get("add_prefix_space"))
        split = pre.Split(tk.Regex(expression), "isolated")
        rest = pre.ByteLevel(add_prefix_space=space, use_regex=False)
        library.pre_tokenizer = pre.Sequence([split, rest])

    return set_up


def _clip(library: Any, settings: Settings) -> None:
    tk = import_tokenizers()
    pre, before = tk.pre_tokenizers, tk.normalizers
    spaces = before.Replace(tk.Regex(r"\s+"), " ")
    library.normalizer = before.Sequence([before.NFC(), spaces, before.Lowercase()])
    split = pre.Split(tk.Regex(_CLIP_SPLIT), "removed", invert=True)
    library.pre_tokenizer = pre.Sequence([split, pre.ByteLevel(add_prefix_space=False)])
    library.decoder = tk.decoders.ByteLevel()


# -- Classes of SentencePiece --


def _llama(library: Any, settings: Settings) -> None:
    space = settings.get("add_prefix_space") is not False
    always = settings.get("legacy", False) is True
    scheme = ("always" if always else "first") if space else "never"
    tk = import_tokenizers()
    after = tk.decoders
    library.pre_tokenizer = tk.pre_tokenizers.Metaspace("▁", scheme, split=False)
    steps = [after.Replace("▁", " "), after.ByteFallback(), after.Fuse()]
    library.decoder = after.Sequence(steps + [after.Strip(" ", 1, 0)] * space)


def _gemma(library: Any, settings: Settings) -> None:
    tk = import_tokenizers()
    after = tk.decoders
    library.normalizer = tk.normalizers.Replace(" ", "▁")
    library.pre_tokenizer = tk.pre_tokenizers.Split(" ", "merged_with_previous")
    library.decoder = after.Sequence(
        [after.Replace("▁", " "), after.ByteFallback(), after.Fuse()]
    )


def _pieces(library: Any, settings: Settings) -> None:
    tk = import_tokenizers()
    pre = tk.pre_tokenizers
    scheme = "always" if settings.get("add_prefix_space", True) else "never"
    library.normalizer = _precompiled(settings)
    library.pre_tokenizer = pre.Sequence([pre.WhitespaceSplit(), pre.Metaspace("▁", scheme)])
    library.decoder = tk.decoders.Metaspace("▁", scheme)


def _t5(library: Any, settings: Settings) -> None:
    _pieces(library, {"normalizer": settings["normalizer"]})


def _albert(library: Any, settings: Settings) -> None:
    _pieces(library, settings)
    before, table = import_tokenizers().normalizers, library.normalizer
    steps = [before.Replace("``", '"'), before.Replace("''", '"')]
    if not settings.get("keep_accents", False):
        steps += [before.NFKD(), before.StripAccents()]
    steps += [before.Lowercase()] * bool(settings.get("do_lower_case", True))
    library.normalizer = before.Sequence(steps + [table] * (table is not None))
    _between("[CLS]", "[SEP]")(library, settings)


def _precompiled(settings: Settings) -> Any:
    """The table of replacements in the normalizer of the file, if it has one."""
    found = settings["normalizer"] or {}
    steps = found.get("normalizers", [found]) if found.get("type") == "Sequence" else [found]
    for step in steps:
        if step.get("type") == "Precompiled":
            table = base64.b64decode(step["precompiled_charsmap"])
            return import_tokenizers().normalizers.Precompiled(table)
    return None


# -- Classes of WordPiece --


def _bert(library: Any, settings: Settings) -> None:
    tk = import_tokenizers()
    library.normalizer = tk.normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
        strip_accents=settings.get("strip_accents"),
        lowercase=settings.get("do_lower_case", True),
    )
    library.pre_tokenizer = tk.pre_tokenizers.BertPreTokenizer()
    library.decoder = tk.decoders.WordPiece(prefix="##")


def _gpt1(library: Any, settings: Settings) -> None:
    tk = import_tokenizers()
    library.normalizer = tk.normalizers.BertNormalizer(lowercase=True)
    library.pre_tokenizer = tk.pre_tokenizers.BertPreTokenizer()
    library.decoder = tk.decoders.BPEDecoder(suffix="</w>")


# -- Tokens around a text --


def _between(start: Token, end: Token) -> Callable[[Any, Settings], None]:
    """Adds a start and an end token: those of the settings, or of their literal names."""

    def set_up(library: Any, settings: Settings) -> None:
        first, last = (_id(library, settings.get(str(each), each)) for each in (start, end))
        library.post_processor = import_tokenizers().processors.TemplateProcessing(
            single=f"{first[0]} $A {last[0]}", special_tokens=[first, last]
        )

    return set_up


def _end(library: Any, settings: Settings) -> None:
    number = _id(library, settings["eos_token"])[1]
    library.post_processor = import_tokenizers().processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", number)]
    )


def _nothing(library: Any, settings: Settings) -> None:
    library.post_processor = import_tokenizers().processors.TemplateProcessing(
        single="$A", special_tokens=[]
    )


def _special_again(library: Any, settings: Settings) -> None:
    """Adds the special tokens again, without spaces around them."""
    token = import_tokenizers().AddedToken
    named = [content_of(settings.get(f"{role}_token")) for role in ROLES]
    extra = [content_of(each) for each in settings.get("extra_special_tokens") or ()]
    texts = dict.fromkeys(text for text in (*named, *extra) if text is not None)
    library.add_tokens([token(text, special=True) for text in texts])


def _others_again(library: Any, settings: Settings) -> None:
    """Adds the tokens without a usual role again, without spaces around them."""
    token = import_tokenizers().AddedToken
    usual = {f"{role}_token" for role in ROLES}
    named = [v for key, v in settings.items() if key.endswith("_token") and key not in usual]
    named += (settings.get("model_specific_special_tokens") or {}).values()
    named += settings.get("extra_special_tokens") or ()
    library.add_tokens([token(text, special=True) for text in named if isinstance(text, str)])


def _speech(library: Any, settings: Settings) -> None:
    for name in ("language", "task"):
        if settings.get(name) is not None:
            raise ValueError(f"`{name}` of tokenizer_config.json is not supported")
    silent = () if settings.get("predict_timestamps") else ("<|notimestamps|>",)
    before = [_id(library, each) for each in ("<|startoftranscript|>", *silent)]
    end = _id(library, settings["eos_token"])
    names = " ".join(text for text, _ in before)
    library.post_processor = import_tokenizers().processors.TemplateProcessing(
        single=f"{names} $A {end[0]}", special_tokens=[*before, end]
    )


ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")


def _tokens(**named: Token) -> dict[str, Token]:
    return {f"{role}_token": token for role, token in named.items()}


_FUSED = (("fuse_unk", True), ("byte_fallback", True))
_PARTS = (("continuing_subword_prefix", ""), ("end_of_word_suffix", ""))
_WORDS = (("continuing_subword_prefix", ""), ("end_of_word_suffix", "</w>"))
_END_OF_TEXT = "<|endoftext|>"
_AS_TEXT = {"normalized": True}
_BERT_TOKENS = _tokens(unk="[UNK]", sep="[SEP]", pad="[PAD]", cls="[CLS]", mask="[MASK]")
_ROBERTA_TOKENS = _tokens(bos="<s>", eos="</s>", sep="</s>", cls="<s>", unk="<unk>")
_ROBERTA_TOKENS |= _tokens(pad="<pad>", mask="<mask>")
_ROUND = _between("cls_token", "sep_token")
_GPT = _tokens(unk=_END_OF_TEXT, bos=_END_OF_TEXT, eos=_END_OF_TEXT)
_QWEN = _tokens(unk=_END_OF_TEXT, eos=_END_OF_TEXT, pad=_END_OF_TEXT)

RECIPES: dict[str, Recipe] = {
    "AlbertTokenizer": Recipe(
        "Unigram",
        _albert,
        _tokens(bos="[CLS]", eos="[SEP]", unk="<unk>", sep="[SEP]", pad="<pad>", cls="[CLS]")
        | _tokens(mask="[MASK]"),
        options=(("unk_id", 1),),
    ),
    "BertTokenizer": Recipe("WordPiece", _bert, _BERT_TOKENS, _ROUND, unknown=True),
    "CLIPTokenizer": Recipe(
        "BPE",
        _clip,
        _tokens(bos="<|startoftext|>") | _QWEN,
        _between("bos_token", "eos_token"),
        _WORDS,
        unknown=True,
    ),
    "CohereTokenizer": Recipe(
        "BPE",
        _digits_apart,
        _tokens(unk="<UNK>", bos="<BOS_TOKEN>", eos="<|END_OF_TURN_TOKEN|>", pad="<PAD>")
        | _tokens(cls="<CLS>", sep="<SEP>", mask="<MASK_TOKEN>"),
        _others_again,
        _PARTS,
    ),
    "GPT2Tokenizer": Recipe("BPE", _bytes, _GPT, options=_PARTS),
    "GPTNeoXTokenizer": Recipe(
        "BPE", _normal_bytes, _GPT | _tokens(pad="<|padding|>"), _nothing, _PARTS
    ),
    "GemmaTokenizer": Recipe(
        "BPE",
        _gemma,
        _tokens(unk="<unk>", bos="<bos>", eos="<eos>", pad="<pad>", mask="<mask>"),
        options=_FUSED,
        unknown=True,
    ),
    "LlamaTokenizer": Recipe(
        "BPE", _llama, _tokens(unk="<unk>", bos="<s>", eos="</s>"), options=_FUSED
    ),
    "MPNetTokenizer": Recipe(
        "WordPiece",
        _bert,
        _ROBERTA_TOKENS | _tokens(unk="[UNK]"),
        _ROUND,
        unknown=True,
        flags=(
            *((name, _AS_TEXT) for name in _ROBERTA_TOKENS if name != "mask_token"),
            ("mask_token", {"lstrip": True, **_AS_TEXT}),
        ),
    ),
    "OpenAIGPTTokenizer": Recipe(
        "BPE", _gpt1, _tokens(unk="<unk>"), options=_WORDS, unknown=True
    ),
    "Qwen2Tokenizer": Recipe("BPE", _split_by(QWEN_SPLIT), _QWEN, _special_again, _PARTS),
    "Qwen3_5Tokenizer": Recipe("BPE", _split_by(_QWEN_3_5_SPLIT), _QWEN, options=_PARTS),
    "RobertaTokenizer": Recipe("BPE", _bytes, _ROBERTA_TOKENS, _ROUND, _PARTS),
    "T5Tokenizer": Recipe(
        "Unigram",
        _t5,
        _tokens(eos="</s>", unk="<unk>", pad="<pad>"),
        _end,
        (("unk_id", 2),),
        numbered="<extra_id_{}>",
    ),
    "WhisperTokenizer": Recipe("BPE", _bytes, _GPT, _speech, _PARTS),
    "XLMRobertaTokenizer": Recipe(
        "Unigram",
        _pieces,
        _ROBERTA_TOKENS,
        _between("bos_token", "eos_token"),
        (("unk_id", 3),),
    ),
}
"""The classes that archdsl builds too, by name."""
