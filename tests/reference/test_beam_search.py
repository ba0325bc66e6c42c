"""Beam search beside transformers' `generate`, on random models of odd sizes that it saved.

Tokens are equal and scores within 1e-4, in float32. A random model hardly ever ends a text:
the logits of its end token are raised, or scaled, until texts end at many lengths and some are
cut off, which the tests make sure of.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import archdsl
from archdsl.cli import main
from archdsl.generation.beam_search import EarlyStopping, Hypothesis, Penalty, Search
from archdsl.generation.generation_config import SEARCH, read_generation_config
from archdsl.tasks.translate import translate
from tests.suite import first

pytestmark = pytest.mark.reference("torch", "transformers")

LONGEST = 18
PENALTIES = (0.0, 0.6, 1.0, 2.0, -0.5)
STOPS: tuple[EarlyStopping, ...] = (True, False, "never")


@dataclass(frozen=True)
class Pair:
    """A model of transformers', ours of the folder that it was saved to, and sources of it."""

    theirs: Any
    ours: Any
    folder: Path
    sources: tuple[tuple[int, ...], ...]

    @property
    def end(self) -> int:
        end: int = self.theirs.config.eos_token_id
        return end

    @property
    def start(self) -> int:
        start: int = self.theirs.config.decoder_start_token_id
        return start

    def generated(
        self, ends: Sequence[int] = (), **asked: Any
    ) -> list[tuple[tuple[int, ...], float]]:
        """What transformers finds for the sources in one batch: tokens and scores."""
        import torch

        longest = max(map(len, self.sources))
        pad = self.theirs.config.pad_token_id
        rows = [[*ids, *[pad] * (longest - len(ids))] for ids in self.sources]
        seen = [[1] * len(ids) + [0] * (longest - len(ids)) for ids in self.sources]
        with torch.no_grad():
            found = self.theirs.generate(
                torch.tensor(rows),
                attention_mask=torch.tensor(seen),
                output_scores=True,
                return_dict_in_generate=True,
                **asked,
            )
        sequences = [cut(row, ends or (self.end,)) for row in found.sequences.tolist()]
        # Greedy search has no scores of sequences.
        scores = getattr(found, "sequences_scores", None)
        numbers = [float("nan")] * len(sequences) if scores is None else scores.tolist()
        return list(zip(sequences, numbers, strict=True))

    def found(self, search: Search, together: int = 8) -> list[Hypothesis]:
        every = translate(self.ours, self.sources, search, together)
        return [hypothesis for each in every for hypothesis in each]


def cut(row: list[int], ends: Sequence[int]) -> tuple[int, ...]:
    """A row without what fills it up behind its end."""
    places = [place for place, token in enumerate(row) if token in ends and place]
    return tuple(row[: places[0] + 1] if places else row)


def marian() -> Any:
    import torch
    from transformers import MarianConfig, MarianMTModel

    torch.manual_seed(1)
    config = MarianConfig(
        vocab_size=43,
        max_position_embeddings=40,
        d_model=30,
        encoder_attention_heads=3,
        decoder_attention_heads=5,
        encoder_ffn_dim=37,
        decoder_ffn_dim=41,
        encoder_layers=3,
        decoder_layers=2,
        activation_function="swish",
        scale_embedding=True,
        init_std=0.35,
        pad_token_id=42,
        decoder_start_token_id=42,
        eos_token_id=5,
        forced_eos_token_id=None,
    )
    model = MarianMTModel(config).eval()
    model.final_logits_bias.normal_()
    model.final_logits_bias[0, 5] = 3.0
    return model


def t5() -> Any:
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(1)
    config = T5Config(
        vocab_size=47,
        n_positions=40,
        d_model=26,
        num_heads=3,
        d_kv=7,
        d_ff=33,
        num_layers=3,
        num_decoder_layers=2,
        relative_attention_num_buckets=12,
        relative_attention_max_distance=17,
        feed_forward_proj="gated-gelu",
        initializer_factor=1.0,  # with a larger one, torch itself is 1e-3 from its float64
        tie_word_embeddings=False,
        pad_token_id=0,
        decoder_start_token_id=0,
        eos_token_id=1,
    )
    model = T5ForConditionalGeneration(config).eval()
    with torch.no_grad():
        model.lm_head.weight.copy_(0.7 * torch.randn(47, 26))
        model.lm_head.weight[1] *= 2
    return model


@pytest.fixture(scope="module", params=[marian, t5], ids=lambda make: make.__name__)
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # on matrices this small, threads only wait
    theirs = request.param()
    folder = tmp_path_factory.mktemp("checkpoint")
    theirs.save_pretrained(folder)
    random = np.random.default_rng(1)
    end = theirs.config.eos_token_id
    sources = tuple((*random.integers(6, 40, n).tolist(), end) for n in (9, 4, 13))
    yield Pair(theirs, archdsl.from_pretrained(folder, device="CPU"), folder, sources)
    torch.set_num_threads(threads)


def search_of(pair: Pair, beams: int) -> Search:
    return Search(pair.start, (pair.end,), LONGEST, beams, refill=True, cut_off=True)


def agree(ours: Sequence[Hypothesis], theirs: Any, penalty: Penalty) -> None:
    assert [h.tokens for h in ours] == [tokens for tokens, _ in theirs]
    # Theirs are penalised; a penalty with alpha below 0 would enlarge what float32 rounds off.
    sums = [score * penalty.of(len(tokens) - 1) for tokens, score in theirs]
    assert [h.score for h in ours] == pytest.approx(sums, abs=1e-4)


@pytest.mark.parametrize("beams", first([2, 5]))
def test_beam_search_finds_what_generate_finds(pair: Pair, beams: int) -> None:
    found = []
    for alpha, early in product(PENALTIES, STOPS):
        theirs = pair.generated(
            max_length=LONGEST,
            num_beams=beams,
            num_return_sequences=beams,
            length_penalty=alpha,
            early_stopping=early,
        )
        penalty = Penalty(alpha)
        search = replace(search_of(pair, beams), penalty=penalty, early_stopping=early)
        agree(pair.found(search), theirs, penalty)
        found.append(tuple(tokens for tokens, _ in theirs))
    # What is asked for matters; texts end at many places, and some do not.
    texts = list(chain(*found))
    assert len(set(found)) >= 4
    assert len({len(tokens) for tokens in texts if tokens[-1] == pair.end}) >= 4
    assert any(tokens[-1] != pair.end for tokens in texts)


def test_one_beam_is_greedy(pair: Pair) -> None:
    theirs = pair.generated(max_length=LONGEST, num_beams=1)
    for early in STOPS:
        found = pair.found(replace(search_of(pair, 1), early_stopping=early))
        assert [h.tokens for h in found] == [tokens for tokens, _ in theirs]


def test_the_best_are_the_first_of_all_and_sources_do_not_meet(pair: Pair) -> None:
    theirs = pair.generated(
        max_length=LONGEST, num_beams=5, num_return_sequences=2, early_stopping=True
    )
    penalty = Penalty(1.0)
    search = replace(search_of(pair, 5), penalty=penalty, best=2)
    agree(pair.found(search), theirs, penalty)
    agree(pair.found(search, together=1), theirs, penalty)


# -- what a folder says --


def fields(pair: Pair, common: Sequence[int]) -> dict[str, dict[str, Any]]:
    """Configs of generation that each change what is found; `common` are tokens that are often
    said."""
    one, two, three, four, *_ = common
    return {
        "forbidden": {
            "bad_words_ids": [[one], [two, three], [three, two], [pair.end]],
            "forced_eos_token_id": pair.end,
            "length_penalty": 0.7,
            "early_stopping": True,
        },
        "renormalised": {
            "bad_words_ids": [[one], [two]],
            "forced_eos_token_id": pair.end,
            "renormalize_logits": True,
        },
        "first": {
            "forced_bos_token_id": one,
            "begin_suppress_tokens": [two, three, pair.end],
            "suppress_tokens": [four],
            "max_length": LONGEST - 3,
        },
        "short": {"max_new_tokens": 6, "min_new_tokens": 4, "early_stopping": "never"},
        "no repeats": {"no_repeat_ngram_size": 2},
        "long": {"min_length": 9, "eos_token_id": [pair.end, one], "length_penalty": -0.3},
    }


def published(pair: Pair, **more: Any) -> Pair:
    """The pair with such a `generation_config.json`, which transformers writes and follows."""
    from transformers import GenerationConfig

    known: dict[str, Any] = {
        "decoder_start_token_id": pair.start,
        "eos_token_id": pair.end,
        "pad_token_id": pair.theirs.config.pad_token_id,
        "max_length": LONGEST,
        "num_beams": 5,
        "num_return_sequences": 5,
    }
    pair.theirs.generation_config = GenerationConfig(**known | more)
    pair.theirs.generation_config.save_pretrained(pair.folder)
    return pair


def test_what_a_folder_says_of_generation_is_done(pair: Pair) -> None:
    plain = published(pair).generated()
    agree(
        pair.found(read_generation_config(pair.folder, SEARCH).search(40)), plain, Penalty(1.0)
    )
    said = Counter(token for tokens, _ in plain for token in tokens[1:] if token != pair.end)
    common = [token for token, _ in said.most_common()]
    for name, config in fields(pair, common).items():
        published(pair, **config)
        search = read_generation_config(pair.folder, SEARCH).search(40)
        theirs = pair.generated(ends=search.ends)
        agree(pair.found(search), theirs, search.penalty)
        assert {tokens for tokens, _ in theirs} != {tokens for tokens, _ in plain}, name


def test_the_command_prints_what_generate_finds(
    pair: Pair, capsys: pytest.CaptureFixture[str]
) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    size = pair.theirs.config.vocab_size
    names = {f"w{i:02}": i for i in range(size)}
    words = Tokenizer(models.WordLevel(names, unk_token="w02"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    end, pad = f"w{pair.end:02}", f"w{pair.theirs.config.pad_token_id:02}"
    words.add_special_tokens([end, pad])
    words.post_processor = processors.TemplateProcessing(
        single=f"$A {end}", special_tokens=[(end, pair.end)]
    )
    words.save(str(pair.folder / "tokenizer.json"))
    settings = {"tokenizer_class": "TokenizersBackend"}  # else that of T5
    (pair.folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    published(pair, forced_eos_token_id=pair.end, num_return_sequences=2)
    theirs = pair.generated()
    texts = [words.decode(list(ids)) for ids in pair.sources]
    assert [tuple(words.encode(text).ids) for text in texts] == list(pair.sources)
    args = ["translate", str(pair.folder), *texts, "--device", "CPU"]
    assert main([*args, "--json"]) == 0, capsys.readouterr().err
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [each["source"] for each in told] == texts
    found = [h for each in told for h in each["hypotheses"]]
    assert [h["text"] for h in found] == [words.decode(list(tokens)) for tokens, _ in theirs]
    scores = [h["penalised"] for h in found]
    assert scores == pytest.approx([score for _, score in theirs], abs=1e-4)

    # What is asked for on the line counts more than what the folder says.
    options = ("--best", "1", "--length-penalty", "2", "--early-stopping", "never")
    assert main([*args, *options]) == 0, capsys.readouterr().err
    lines = capsys.readouterr().out.splitlines()
    theirs = pair.generated(num_return_sequences=1, length_penalty=2.0, early_stopping="never")
    for text, source, line, (tokens, score) in zip(
        texts, lines[::2], lines[1::2], theirs, strict=True
    ):
        assert source == text
        *target, shown = line.split()
        assert " ".join(target) == words.decode(list(tokens))
        assert float(shown) == pytest.approx(score * (len(tokens) - 1) ** 2, abs=1e-3)
