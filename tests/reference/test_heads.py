"""Bare models and heads as transformers saves them: the same outputs, and no others.

Each checkpoint is read twice: as it was saved, and with a config that names no architecture,
where only the tensors tell which outputs the model has.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import archdsl
from archdsl.diagnostics import ArchError
from tests.reference.agreement import TOLERANCE, apart
from tests.suite import some

pytestmark = pytest.mark.reference("torch", "transformers")

DECODER = {
    "vocab_size": 40,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "max_position_embeddings": 16,
    "tie_word_embeddings": False,
    "sliding_window": None,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
GPT = {"vocab_size": 40, "n_embd": 24, "n_head": 4, "n_layer": 2, "n_positions": 16}
GPT |= {"bos_token_id": 0, "eos_token_id": 1}

TOKENS = np.random.default_rng(0).integers(0, 40, (2, 9)).astype(np.int32)

# The class, its config, and our names of its outputs.
DECODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "OpenAIGPTModel": ("OpenAIGPTConfig", GPT),
    "GPT2Model": ("GPT2Config", GPT),
    "LlamaModel": ("LlamaConfig", DECODER),
    "Qwen2Model": ("Qwen2Config", DECODER),
    "Qwen3Model": ("Qwen3Config", DECODER),
    "MistralModel": ("MistralConfig", DECODER),
    "MixtralModel": ("MixtralConfig", {**DECODER, "num_local_experts": 2}),
}


def saved(folder: Path, model: str, config: str, sizes: dict[str, Any]) -> Any:
    """A model of transformers with random weights, saved in a folder."""
    import torch
    import transformers

    torch.manual_seed(0)
    theirs = getattr(transformers, model)(getattr(transformers, config)(**sizes)).eval()
    for weight in theirs.parameters():
        if weight.requires_grad:  # not sinusoids
            torch.nn.init.normal_(weight, std=0.3)
    theirs.save_pretrained(folder)
    return theirs


def change_config(folder: Path, **fields: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields), encoding="utf-8")


def agree(folder: Path, inputs: dict[str, Any], theirs: dict[str, Any]) -> None:
    ours = archdsl.from_pretrained(folder, device="CPU")(**inputs)
    assert ours.keys() == theirs.keys()
    for name, right in theirs.items():
        assert apart(ours[name], right.detach()) <= TOLERANCE, name


@pytest.mark.few(3)
@pytest.mark.parametrize("model", DECODERS)
def test_decoders_without_a_head(tmp_path: Path, model: str) -> None:
    import torch

    theirs = saved(tmp_path, model, *DECODERS[model])
    hidden = theirs(torch.tensor(TOKENS).long()).last_hidden_state
    agree(tmp_path, {"tokens": TOKENS}, {"hidden": hidden})
    change_config(tmp_path, architectures=None)
    if model in ("OpenAIGPTModel", "GPT2Model"):  # their logits need no other tensor
        logits = hidden @ theirs.get_input_embeddings().weight.T
        agree(tmp_path, {"tokens": TOKENS}, {"hidden": hidden, "logits": logits})
    else:
        agree(tmp_path, {"tokens": TOKENS}, {"hidden": hidden})


# The heads of each decoder, with the output of ours that has their logits.
HEADS = {
    "ForSequenceClassification": "class_logits",
    "ForTokenClassification": "token_logits",
    "ForQuestionAnswering": "span_logits",
}
DECODERS_WITH_HEADS = [
    f"{model.removesuffix('Model')}{head}"
    for model in DECODERS
    for head in HEADS
    if model != "OpenAIGPTModel" or head == "ForSequenceClassification"
]


@pytest.mark.few(2)
@pytest.mark.parametrize("named", [True, False], ids=["named", "unnamed"])
@pytest.mark.parametrize("model", DECODERS_WITH_HEADS)
def test_heads_of_decoders(tmp_path: Path, model: str, named: bool) -> None:
    import torch

    family, head = model.split("For")
    config, sizes = DECODERS[f"{family}Model"]
    labels = 2 if head == "QuestionAnswering" else 3
    sizes = sizes | {"num_labels": labels, "pad_token_id": 3}
    theirs = saved(tmp_path, model, config, sizes)
    if not named:
        change_config(tmp_path, architectures=None)
    # Padding at the end, inside, at the beginning, and nothing else.
    tokens = TOKENS[[0, 1, 0, 1]].copy()
    tokens[0, 6:] = tokens[1, 2:4] = tokens[2, :3] = tokens[3] = 3
    out = theirs(torch.tensor(tokens).long(), output_hidden_states=True)
    hidden = getattr(theirs, theirs.base_model_prefix)(torch.tensor(tokens).long())[0]
    spans = head == "QuestionAnswering"
    right = torch.stack([out.start_logits, out.end_logits], -1) if spans else out.logits
    agree(tmp_path, {"tokens": tokens}, {"hidden": hidden, HEADS[f"For{head}"]: right})


@pytest.mark.parametrize("pad", some([None, -1, 40], -1))
def test_the_last_token_counts_if_none_is_padding(tmp_path: Path, pad: int | None) -> None:
    import torch

    sizes = DECODER | {"num_labels": 3}
    theirs = saved(tmp_path, "LlamaForSequenceClassification", "LlamaConfig", sizes)
    change_config(tmp_path, pad_token_id=pad)
    right = [theirs(torch.tensor(row[None]).long()).logits[0] for row in TOKENS]
    ours = archdsl.from_pretrained(tmp_path, device="CPU")(tokens=TOKENS)["class_logits"]
    assert apart(ours, torch.stack(right).detach()) <= TOLERANCE


def without(config: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name not in names}


OLD_ROTARY = {"rope_theta": 10000.0, "rope_scaling": None, "torch_dtype": "float32"}
SPELLINGS: dict[str, tuple[str, tuple[str, ...], dict[str, Any]]] = {
    "rotary of transformers 4": ("Llama", ("rope_parameters", "dtype"), OLD_ROTARY),
    "rotary in both spellings": ("Llama", (), OLD_ROTARY),
    "no architectures": ("Llama", ("architectures",), {}),
    "an empty list of architectures": ("Llama", (), {"architectures": []}),
    "types of layers": ("Llama", (), {"layer_types": ["full_attention"] * 2}),
    "types of layers with windows": ("Mistral", (), {"layer_types": ["sliding_attention"] * 2}),
    "windows without types of layers": ("Mistral", ("layer_types",), {}),
    "no types of layers": ("Qwen3", ("layer_types",), {}),
    "both names of the context": ("GPT2", (), {"n_ctx": 16}),
}


@pytest.mark.parametrize("case", some(SPELLINGS, "an empty list of architectures"))
def test_old_and_new_spellings_of_a_config(tmp_path: Path, case: str) -> None:
    import torch

    kind, dropped, added = SPELLINGS[case]
    config, sizes = DECODERS[f"{kind}Model"]
    sizes = sizes | ({"sliding_window": 4} if kind == "Mistral" else {})
    head = "LMHeadModel" if kind == "GPT2" else "ForCausalLM"
    theirs = saved(tmp_path, f"{kind}{head}", config, sizes)
    path = tmp_path / "config.json"
    fields = without(json.loads(path.read_text()), *dropped) | added
    path.write_text(json.dumps(fields), encoding="utf-8")
    right = theirs(torch.tensor(TOKENS).long()).logits
    ours = archdsl.from_pretrained(tmp_path, device="CPU")(tokens=TOKENS)["logits"]
    assert apart(ours, right.detach()) <= TOLERANCE


def test_layers_of_another_type_are_refused(tmp_path: Path) -> None:
    saved(tmp_path, "LlamaModel", *DECODERS["LlamaModel"])
    change_config(tmp_path, layer_types=["full_attention", "sliding_attention"])
    with pytest.raises(ArchError, match="layer_types is"):
        archdsl.from_pretrained(tmp_path, device="CPU")


def test_a_head_that_the_config_names_must_be_there(tmp_path: Path) -> None:
    saved(tmp_path, "LlamaModel", *DECODERS["LlamaModel"])
    change_config(tmp_path, architectures=["LlamaForCausalLM"])
    with pytest.raises(ArchError, match=r"missing: lm_head\.weight"):
        archdsl.from_pretrained(tmp_path, device="CPU")


def test_an_unknown_architecture_can_be_left_to_the_tensors(tmp_path: Path) -> None:
    saved(tmp_path, "LlamaModel", *DECODERS["LlamaModel"])
    change_config(tmp_path, architectures=["OurLlama"])
    with pytest.raises(ArchError, match="--ignore architectures"):
        archdsl.from_pretrained(tmp_path, device="CPU")
    model = archdsl.from_pretrained(tmp_path, device="CPU", ignore=["architectures"])
    assert list(model(tokens=TOKENS)) == ["hidden"]


BERT = {"vocab_size": 40, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2}
BERT |= {"num_attention_heads": 4, "max_position_embeddings": 16}
BERT_HEADS = {
    "BertModel": {"hidden": "last_hidden_state", "pooled": "pooler_output"},
    "BertForMaskedLM": {"hidden": "", "logits": "logits"},
    "BertForPreTraining": {
        "hidden": "",
        "pooled": "",
        "logits": "prediction_logits",
        "next_logits": "seq_relationship_logits",
    },
    "BertForNextSentencePrediction": {"hidden": "", "pooled": "", "next_logits": "logits"},
    "BertForSequenceClassification": {"hidden": "", "pooled": "", "class_logits": "logits"},
    "BertForTokenClassification": {"hidden": "", "token_logits": "logits"},
    "BertForQuestionAnswering": {"hidden": "", "span_logits": ""},
}


@pytest.mark.few(3)
@pytest.mark.parametrize("named", [True, False], ids=["named", "unnamed"])
@pytest.mark.parametrize("model", BERT_HEADS)
def test_heads_of_bert(tmp_path: Path, model: str, named: bool) -> None:
    import torch

    labels = 2 if model == "BertForQuestionAnswering" else 3
    theirs = saved(tmp_path, model, "BertConfig", BERT | {"num_labels": labels})
    if not named:
        change_config(tmp_path, architectures=None)
    tokens = np.maximum(TOKENS, 1)
    segments = np.array([[0] * 4 + [1] * 5] * 2, dtype=np.int32)
    given = {"token_type_ids": torch.tensor(segments).long()}
    out = theirs(torch.tensor(tokens).long(), output_hidden_states=True, **given)
    bert = getattr(theirs, "bert", theirs)
    right = {}
    for name, field in BERT_HEADS[model].items():
        if name == "hidden":
            right[name] = out.hidden_states[-1]
        elif name == "pooled":
            right[name] = bert.pooler(out.hidden_states[-1])
        elif name == "span_logits":
            right[name] = torch.stack([out.start_logits, out.end_logits], -1)
        else:
            right[name] = out[field]
    agree(tmp_path, {"tokens": tokens, "segments": segments}, right)


def test_segments_are_zeros_if_they_are_not_given(tmp_path: Path) -> None:
    import torch

    theirs = saved(tmp_path, "BertModel", "BertConfig", BERT)
    tokens = np.maximum(TOKENS, 1)
    out = theirs(torch.tensor(tokens).long())
    right = {"hidden": out.last_hidden_state, "pooled": out.pooler_output}
    agree(tmp_path, {"tokens": tokens}, right)


def test_an_encoder_without_a_pooler(tmp_path: Path) -> None:
    import torch
    import transformers

    theirs = transformers.BertModel(transformers.BertConfig(**BERT), add_pooling_layer=False)
    theirs.eval().save_pretrained(tmp_path)
    tokens = np.maximum(TOKENS, 1)
    hidden = theirs(torch.tensor(tokens).long()).last_hidden_state
    agree(tmp_path, {"tokens": tokens}, {"hidden": hidden})


T5 = {"vocab_size": 40, "d_model": 24, "d_kv": 6, "d_ff": 32, "num_layers": 2, "num_heads": 4}
T5 |= {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}


@pytest.mark.parametrize("named", [True, False], ids=["named", "unnamed"])
@pytest.mark.parametrize("kind", ["T5", "MT5"])
def test_the_encoder_of_t5(tmp_path: Path, kind: str, named: bool) -> None:
    import torch

    theirs = saved(tmp_path, f"{kind}EncoderModel", f"{kind}Config", T5)
    if not named:
        change_config(tmp_path, architectures=None)
    tokens = np.maximum(TOKENS, 1)
    memory = theirs(torch.tensor(tokens).long()).last_hidden_state
    agree(tmp_path, {"source": tokens}, {"memory": memory})


@pytest.mark.parametrize("kind", ["T5", "MT5"])
def test_t5_that_transformers_5_saved_again(tmp_path: Path, kind: str) -> None:
    """It writes `tie_word_embeddings = true`, and keeps a head that is not the table."""
    import torch
    import transformers

    sizes = {**T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
    saved(tmp_path / "old", f"{kind}ForConditionalGeneration", f"{kind}Config", sizes)
    whole = getattr(transformers, f"{kind}ForConditionalGeneration")
    theirs = whole.from_pretrained(tmp_path / "old").eval()
    theirs.lm_head.weight = torch.nn.Parameter(torch.randn(40, 24))
    theirs.save_pretrained(tmp_path / "again")
    theirs = whole.from_pretrained(tmp_path / "again").eval()
    source = np.maximum(TOKENS, 1)
    target = source[:, ::-1].copy()
    given = (torch.tensor(each).long() for each in (source, target))
    out = theirs(**dict(zip(("input_ids", "decoder_input_ids"), given, strict=True)))
    ours = archdsl.from_pretrained(tmp_path / "again", device="CPU")
    assert apart(ours(source=source, target=target)["logits"], out.logits.detach()) <= TOLERANCE


IMAGE = {"hidden_size": 24, "num_hidden_layers": 2}
IMAGE |= {"num_attention_heads": 4, "image_size": 16, "patch_size": 8, "num_labels": 3}
IMAGE_MODELS = {
    "ViTModel": ("ViTConfig", {"hidden": "last_hidden_state", "pooled": "pooler_output"}),
    "ViTForImageClassification": ("ViTConfig", {"logits": "logits"}),
    "DeiTModel": ("DeiTConfig", {"hidden": "last_hidden_state", "pooled": "pooler_output"}),
    "DeiTForImageClassification": ("DeiTConfig", {"logits": "logits"}),
    "DeiTForImageClassificationWithTeacher": ("DeiTConfig", {"logits": "logits"}),
    "Dinov2Model": ("Dinov2Config", {"hidden": "last_hidden_state"}),
    "Dinov2ForImageClassification": ("Dinov2Config", {"logits": "logits"}),
}


@pytest.mark.few(3)
@pytest.mark.parametrize("named", [True, False], ids=["named", "unnamed"])
@pytest.mark.parametrize("model", IMAGE_MODELS)
def test_heads_of_image_encoders(tmp_path: Path, model: str, named: bool) -> None:
    import torch

    config, outputs = IMAGE_MODELS[model]
    theirs = saved(tmp_path, model, config, IMAGE)
    if not named:
        change_config(tmp_path, architectures=None)
    pixels = torch.randn(2, 3, 16, 16)
    out = theirs(pixels)
    ours = archdsl.from_pretrained(tmp_path, device="CPU")(pixels=pixels.numpy())
    assert ("logits" in ours) == ("logits" in outputs)
    for name, field in outputs.items():
        assert apart(ours[name], out[field].detach()) <= TOLERANCE, name


CLIP = {"hidden_size": 24, "intermediate_size": 40, "num_attention_heads": 4}
CLIP |= {"num_hidden_layers": 2}


@pytest.mark.parametrize("end", [2, 30], ids=["old", "new"])
def test_the_end_of_a_text_of_clip(tmp_path: Path, end: int) -> None:
    """The vocabulary grew by one token, 39; before July 2023 all configs had end token 2."""
    import torch

    text = {**CLIP, "vocab_size": 40, "max_position_embeddings": 16, "eos_token_id": end}
    text |= {"bos_token_id": 0, "pad_token_id": 1}
    vision = {**CLIP, "image_size": 16, "patch_size": 8}
    sizes = {"text_config": text, "vision_config": vision, "projection_dim": 16}
    theirs = saved(tmp_path, "CLIPModel", "CLIPConfig", sizes)
    tokens = np.array([[3, 4, 5, 30, 1], [3, 39, 30, 1, 1], [3, 30, 39, 1, 1]], dtype=np.int32)
    pixels = torch.randn(3, 3, 16, 16)
    right = theirs(input_ids=torch.tensor(tokens).long(), pixel_values=pixels).text_embeds
    ours = archdsl.from_pretrained(tmp_path, device="CPU")
    found = ours(tokens=tokens, pixels=pixels.numpy(), outputs="text_features")["text_features"]
    assert apart(found, right.detach()) <= TOLERANCE


TEXT = {**CLIP, "vocab_size": 40, "max_position_embeddings": 16, "eos_token_id": 30}
TEXT |= {"bos_token_id": 0, "pad_token_id": 1, "projection_dim": 16}
VISION = {**CLIP, "image_size": 16, "patch_size": 8, "projection_dim": 16}
TOWERS = {
    "CLIPTextModel": {"text_hidden": "last_hidden_state", "text_pooled": "pooler_output"},
    "CLIPTextModelWithProjection": {
        "text_hidden": "last_hidden_state",
        "text_vector": "text_embeds",
    },
    "CLIPVisionModel": {"image_hidden": "last_hidden_state", "image_pooled": "pooler_output"},
    "CLIPVisionModelWithProjection": {
        "image_hidden": "last_hidden_state",
        "image_vector": "image_embeds",
    },
}


@pytest.mark.few(2)
@pytest.mark.parametrize("named", [True, False], ids=["named", "unnamed"])
@pytest.mark.parametrize("model", TOWERS)
def test_one_encoder_of_clip(tmp_path: Path, model: str, named: bool) -> None:
    import torch

    text = "Text" in model
    config = "CLIPTextConfig" if text else "CLIPVisionConfig"
    theirs = saved(tmp_path, model, config, TEXT if text else VISION)
    if not named:
        change_config(tmp_path, architectures=None)
    tokens = np.array([[3, 4, 5, 30, 1], [3, 39, 30, 1, 1]], dtype=np.int32)
    pixels = torch.randn(2, 3, 16, 16)
    out = theirs(torch.tensor(tokens).long()) if text else theirs(pixels)
    given = {"tokens": tokens} if text else {"pixels": pixels.numpy()}
    ours = archdsl.from_pretrained(tmp_path, device="CPU")(**given)
    assert ("text_vector" in ours or "image_vector" in ours) == ("Projection" in model)
    assert all(name.startswith("text" if text else "image") for name in ours)
    for name, field in TOWERS[model].items():
        assert apart(ours[name], out[field].detach()) <= TOLERANCE, name


@pytest.mark.parametrize("old", some([None, {}, {"eos_token_id": 39}], {"eos_token_id": 39}))
def test_the_old_parts_of_a_config_of_clip(tmp_path: Path, old: dict[str, Any] | None) -> None:
    """`text_config_dict` takes the place of `text_config`; what it lacks has its default."""
    import torch
    import transformers

    sizes = {"text_config": TEXT, "vision_config": VISION, "projection_dim": 16}
    saved(tmp_path, "CLIPModel", "CLIPConfig", sizes)
    if old is not None:
        old = {**TEXT, "eos_token_id": 49407, **old} if old else {}
    change_config(tmp_path, text_config_dict=old, vision_config_dict=VISION)
    if old == {}:  # the sizes of the published model
        with pytest.raises(ArchError, match="is \\[40, 24\\], not \\[49408, 512\\]"):
            archdsl.from_pretrained(tmp_path, device="CPU")
        return
    theirs = transformers.CLIPModel.from_pretrained(tmp_path).eval()
    tokens = np.array([[3, 4, 5, 30, 39]], dtype=np.int32)
    pixels = torch.randn(1, 3, 16, 16)
    right = theirs(input_ids=torch.tensor(tokens).long(), pixel_values=pixels)
    ours = archdsl.from_pretrained(tmp_path, device="CPU")(tokens=tokens, pixels=pixels.numpy())
    assert apart(ours["text_features"], right.text_embeds.detach()) <= TOLERANCE
    assert apart(ours["image_features"], right.image_embeds.detach()) <= TOLERANCE


T5_HEADS = {
    "Model": {"memory": "encoder_last_hidden_state", "hidden": "last_hidden_state"},
    "ForQuestionAnswering": {"span_logits": ""},
    "ForTokenClassification": {"token_logits": "logits"},
}


@pytest.mark.few(1)
@pytest.mark.parametrize("named", [True, False], ids=["named", "unnamed"])
@pytest.mark.parametrize("kind", ["T5", "MT5"])
@pytest.mark.parametrize("head", T5_HEADS)
def test_heads_of_t5(tmp_path: Path, head: str, kind: str, named: bool) -> None:
    import torch

    theirs = saved(tmp_path, f"{kind}{head}", f"{kind}Config", T5 | {"num_labels": 2})
    if not named:
        change_config(tmp_path, architectures=None)
    source = np.maximum(TOKENS, 1)
    target = source[:, ::-1].copy()
    encoder = head == "ForTokenClassification"
    more = {} if encoder else {"decoder_input_ids": torch.tensor(target).long()}
    out = theirs(torch.tensor(source).long(), **more)
    ours = archdsl.from_pretrained(tmp_path, device="CPU")
    found = ours(source=source, **({} if encoder else {"target": target}))
    assert ("hidden" in found) != encoder
    assert ("span_logits" in found) == (head == "ForQuestionAnswering")
    for name, field in T5_HEADS[head].items():
        right = out[field] if field else torch.stack([out.start_logits, out.end_logits], -1)
        assert apart(found[name], right.detach()) <= TOLERANCE, name


SEQ2SEQ: dict[str, Any] = {
    "vocab_size": 40,
    "d_model": 24,
    "encoder_layers": 1,
    "decoder_layers": 1,
}
SEQ2SEQ |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 16}
SEQ2SEQ |= {"decoder_ffn_dim": 16, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 1}
SEQ2SEQ |= {"decoder_start_token_id": 0}
MORE: dict[str, dict[str, Any]] = {
    "Marian": {"activation_function": "swish", "max_position_embeddings": 16},
    "Whisper": {"max_source_positions": 8, "max_target_positions": 16, "num_mel_bins": 4},
}


@pytest.mark.few(1)
@pytest.mark.parametrize("named", [True, False], ids=["named", "unnamed"])
@pytest.mark.parametrize("kind", MORE)
def test_marian_and_whisper_without_a_head(tmp_path: Path, kind: str, named: bool) -> None:
    """Their tensors have no `model.` before their names."""
    import torch

    theirs = saved(tmp_path, f"{kind}Model", f"{kind}Config", SEQ2SEQ | MORE[kind])
    if not named:
        change_config(tmp_path, architectures=None)
    target = np.maximum(TOKENS, 1)
    source = torch.randn(2, 4, 16) if kind == "Whisper" else torch.tensor(target).long()
    out = theirs(source, decoder_input_ids=torch.tensor(target).long())
    given = {"mel" if kind == "Whisper" else "source": source.numpy(), "target": target}
    found = archdsl.from_pretrained(tmp_path, device="CPU")(**given)
    assert "logits" not in found or not named
    assert apart(found["memory"], out.encoder_last_hidden_state.detach()) <= TOLERANCE
    assert apart(found["hidden"], out.last_hidden_state.detach()) <= TOLERANCE
