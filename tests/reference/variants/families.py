"""The families whose variants are made: a config class, model classes, and small sizes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

# Small sizes by the name of the field. A class has those of the fields that it has.
SIZES: dict[str, Any] = {
    "vocab_size": 40,
    "n_positions": 24,
    "n_embd": 24,
    "n_layer": 2,
    "n_head": 4,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 24,
    "d_model": 24,
    "d_kv": 6,
    "d_ff": 40,
    "num_layers": 2,
    "num_decoder_layers": 2,
    "num_heads": 4,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 16,
    "image_size": 16,
    "patch_size": 8,
    "encoder_stride": 8,
    "pooler_output_size": 24,
    "projection_dim": 16,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 40,
    "decoder_ffn_dim": 32,
    "max_source_positions": 12,
    "max_target_positions": 24,
    "num_mel_bins": 8,
    "classifier_proj_size": 12,
    "num_local_experts": 3,
    "bos_token_id": 4,
    "eos_token_id": 3,
    "forced_eos_token_id": 3,
    "begin_suppress_tokens": [7, 8],
}


@dataclass(frozen=True)
class Family:
    """A config class of transformers and its model classes, the main one first."""

    title: str
    config: str
    models: tuple[str, ...]
    sizes: dict[str, Any] = field(default_factory=dict)


def _decoder(name: str, **sizes: Any) -> Family:
    heads = ("CausalLM", "SequenceClassification", "TokenClassification", "QuestionAnswering")
    models = (*(f"{name}For{head}" for head in heads), f"{name}Model")
    return Family(name, f"{name}Config", models, sizes)


def _t5(name: str) -> Family:
    models = ("ForConditionalGeneration", "EncoderModel", "Model", "ForSequenceClassification")
    return Family(name, f"{name}Config", tuple(name + model for model in models))


FAMILIES = (
    Family(
        "GPT",
        "OpenAIGPTConfig",
        ("OpenAIGPTLMHeadModel", "OpenAIGPTModel", "OpenAIGPTForSequenceClassification"),
    ),
    Family(
        "GPT-2",
        "GPT2Config",
        (
            "GPT2LMHeadModel",
            "GPT2Model",
            "GPT2ForSequenceClassification",
            "GPT2ForTokenClassification",
            "GPT2ForQuestionAnswering",
        ),
    ),
    Family(
        "BERT",
        "BertConfig",
        (
            "BertForMaskedLM",
            "BertModel",
            "BertForPreTraining",
            "BertForNextSentencePrediction",
            "BertForSequenceClassification",
            "BertForTokenClassification",
            "BertForQuestionAnswering",
        ),
    ),
    _t5("T5"),
    _t5("MT5"),
    _decoder("Llama"),
    _decoder("Mistral", head_dim=6, sliding_window=4),
    _decoder("Mixtral", head_dim=6),
    _decoder("Qwen2"),
    _decoder("Qwen3", head_dim=6),
    Family(
        "CLIP",
        "CLIPConfig",
        ("CLIPModel",),
        {
            "text_config": {
                name: SIZES[name]
                for name in (
                    "vocab_size",
                    "hidden_size",
                    "intermediate_size",
                    "num_hidden_layers",
                    "num_attention_heads",
                    "max_position_embeddings",
                    "bos_token_id",
                    "eos_token_id",
                )
            },
            "vision_config": {
                name: SIZES[name]
                for name in (
                    "hidden_size",
                    "intermediate_size",
                    "num_hidden_layers",
                    "num_attention_heads",
                    "image_size",
                    "patch_size",
                )
            },
        },
    ),
    Family(
        "CLIP, text",
        "CLIPTextConfig",
        ("CLIPTextModel", "CLIPTextModelWithProjection"),
    ),
    Family(
        "CLIP, images",
        "CLIPVisionConfig",
        ("CLIPVisionModel", "CLIPVisionModelWithProjection"),
    ),
    Family("ViT", "ViTConfig", ("ViTForImageClassification", "ViTModel")),
    Family(
        "DeiT",
        "DeiTConfig",
        (
            "DeiTForImageClassificationWithTeacher",
            "DeiTForImageClassification",
            "DeiTModel",
        ),
    ),
    Family("DINOv2", "Dinov2Config", ("Dinov2Model", "Dinov2ForImageClassification")),
    Family(
        "Marian",
        "MarianConfig",
        ("MarianMTModel", "MarianModel"),
        {"pad_token_id": 5, "decoder_start_token_id": 5},
    ),
    Family(
        "Whisper",
        "WhisperConfig",
        ("WhisperForConditionalGeneration", "WhisperModel"),
        {"pad_token_id": 5, "decoder_start_token_id": 5},
    ),
)
