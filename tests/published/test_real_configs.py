"""Configs of published checkpoints are read, or refused with a message that names a cause."""

from __future__ import annotations

import pytest

from tests.published.real_configs import Real, parameters, real_configs

# Counts that the publishers or transformers give.
COUNTS = {
    "distilgpt2": 81_912_576,
    "Llama-3.1-8B-Instruct": 8_030_261_248,
    "Llama-3.1-70B-Instruct": 70_553_706_496,
    "Llama-3.2-3B-Instruct": 3_212_749_824,
    "Mistral-7B-Instruct-v0.3": 7_248_023_552,
    "Qwen2.5-7B-Instruct": 7_615_616_512,
    "Qwen2.5-32B-Instruct": 32_763_876_352,
    "Qwen3-8B": 8_190_735_360,
    "Qwen3-32B": 32_762_123_264,
    "flan-t5-small": 76_961_152,
    "codet5-base": 222_882_048,
    "bge-small-en-v1.5": 33_360_000,
}


@pytest.mark.long
@pytest.mark.parametrize("real", real_configs(), ids=lambda real: real.name)
def test_a_published_config_is_read_or_refused_with_a_cause(real: Real) -> None:
    found = parameters(real.config)
    if real.name in COUNTS:
        assert found == COUNTS[real.name]
    if isinstance(found, str):
        assert (
            "does not know the field" in found or "model type" in found or "no field" in found
        )


def test_no_config_is_there_twice() -> None:
    names = [real.name for real in real_configs()]
    assert len(names) == len(set(names)) >= 40
