"""The tokenizer class of a folder, as transformers 5 chooses it.

Most classes ignore the model, the normalizer and the pre-tokenizer of a `tokenizer.json` and
build their own from its vocabulary; `rebuilt_tokenizers` does the same. Only the others, called
generic here, use the file as it is. A folder names its class, or its model type decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

GENERIC = ("PreTrainedTokenizer", "TokenizersBackend", "PythonBackend")

_BYTES_TOO = "LlamaTokenizer"  # generic if the file is byte-level


def _table(text: str) -> dict[str, str]:
    """Reads lines `Class: model types` to the class of each model type."""
    lines = (line.split(":") for line in text.strip().splitlines())
    return {kind: name.strip() for name, kinds in lines for kind in kinds.split()}


# The class of a model type whose files do not name one. Model types that are not here, such as
# llama, are generic then.
_REGISTERED = _table("""
Albert: albert yoso
Bert: align bark bert blip bros chinese_clip convbert distilbert electra ernie flava git
Bert: grounding-dino layoutlm megatron-bert mm-grounding-dino nezha nomic_bert qdqbert realm
Bert: retribert squeezebert tvp vilt visual_bert mobilebert
CLIP: aimv2 clip clipseg groupvit omdet-turbo oneformer owlv2 owlvit sam3 sam3_video xclip
Camembert: camembert
Cohere: aya_vision cohere cohere2
GPT2: blip-2 codegen dbrx emu3 gpt2 gpt_neo gptj hyperclovax_vision_v2 instructblip
GPT2: instructblipvideo jais2 opt phi starcoder2
GPTNeoX: falcon_mamba gpt_neox mamba mamba2 mpt olmo olmoe rwkv xlstm
Gemma: diffusion_gemma gemma gemma2 gemma3 gemma3_text gemma3n gemma3n_text recurrent_gemma
Gemma: shieldgemma2 t5gemma zaya
Llama: idefics idefics2
MPNet: mpnet
OpenAIGPT: openai-gpt
Qwen2: audioflamingo3 colqwen2 cosmos3_omni dots3_note fun_asr_nano hunyuan_vl internvl
Qwen2: lighton_ocr moss_transcribe_diarize ovis2 qianfan_ocr qwen2 qwen2_5_omni qwen2_5_vl
Qwen2: qwen2_audio qwen2_moe qwen2_vl qwen3 qwen3_asr qwen3_moe qwen3_next qwen3_omni_moe
Qwen2: qwen3_vl qwen3_vl_moe vibevoice
Qwen3_5: qwen3_5 qwen3_5_moe qwen3_5_moe_text qwen3_5_text qwen4_exp
Roberta: bart bridgetower clap data2vec-text florence2 ibert lilt longformer mega mra roberta
Roberta: roberta-prelayernorm
T5: mt5 musicgen musicgen_melody switch_transformers t5
Whisper: whisper
XLMRoberta: gte jina_embeddings_v3 metaclip_2 trocr xlm-roberta xmod
Barthez: barthez
Bartpho: bartpho
BertJapanese: bert-japanese
Bertweet: bertweet
BigBird: big_bird
BioGpt: biogpt
BlenderbotSmall: blenderbot-small
Blenderbot: blenderbot
ByT5: byt5
CTRL: ctrl
Canine: canine
Clvp: clvp
CodeLlama: code_llama
CpmAnt: cpmant
Cpm: cpm
DPRQuestionEncoder: dpr
Deberta: deberta
DebertaV2: deberta-v2
Dia: dia
Esm: esm
Esmc: esmc esmfold2
FNet: fnet
FSMT: fsmt
Flaubert: flaubert
Funnel: funnel
GPTNeoXJapanese: gpt_neox_japanese
Herbert: herbert
LED: led
Lasr: lasr_ctc lasr_encoder
LayoutLMv2: layoutlmv2
LayoutLMv3: layoutlmv3
LayoutXLM: layoutxlm
Luke: luke
Lxmert: lxmert
MBart50: mbart50
MBart: mbart
MarkupLM: markuplm
Mvp: mvp
Nllb: nllb nllb-moe
Nougat: nougat pp_formulanet
PLBart: plbart
Pegasus: pegasus
Phobert: phobert
ProphetNet: prophetnet
Rag: rag
Reformer: reformer
RemBert: rembert
RoCBert: roc_bert
RoFormer: roformer
SeamlessM4T: seamless_m4t seamless_m4t_v2
Siglip2: siglip2
Splinter: splinter
Tapas: tapas
Udop: udop
VideoPrism: videoprism
Vits: vits
Wav2Vec2CTC: data2vec-audio hubert unispeech unispeech-sat wav2vec2 wav2vec2-bert
Wav2Vec2CTC: wav2vec2-conformer
Wav2Vec2PhonemeCTC: wav2vec2_phoneme
Mgpstr: mgp-str
MyT5: myt5
Perceiver: perceiver
XGLM: xglm
XLM: xlm
XLNet: xlnet
""")

# Model types that are generic even if their files name a class.
_GENERIC_TYPES = """
arctic aria beam bigbird_pegasus camembertv2-base canary chatlm cohere_asr ernie4_5
ernie4_5_moe flex_olmo fuyu glm glm4 glm4_moe glm4_moe_lite glm4v glm4v_moe glm_image glmasr
got_ocr2 gpt_bigcode gradium_phonon_tts granite granitemoe granitemoehybrid granitemoeshared
h2ovl_chat hyperclovax hyperclovax_vlm internlm2 internlm3 iquestcoder jamba kimi_k25
kimi_linear kosmos-2 llava llava_next mimo_v2_flash minicpm3 minicpm_ocr minicpmv minicpmv4_6
minicpmv4_7 minimax_m2 ministral ministral3 mistral mistral3 mistral_large4 mixtral modernbert
modernbert-decoder molmo molmo2 nemo_speechlm nemotron nvfp4 nystromformer olmo2 olmo3
olmo_hybrid opencua openvla paddleocr_vl pegasus_x persimmon phi3 phi3_v phimoe pix2struct
pixtral pocket_tts smolvlm stablelm step3_vl umt5 vipllava voxtral voxtral_realtime
xlm-roberta-xl
"""
_ALWAYS_GENERIC = frozenset(_GENERIC_TYPES.split())

# Model types whose own class is used even if their files name another one.
_OWN_TYPES = """
hyperclovax_vision_v2 qwen2 qwen3_5 qwen3_5_moe qwen3_5_moe_text qwen4_exp siglip2
"""
_ALWAYS_OWN = frozenset(_OWN_TYPES.split())

# Classes with another name, or with the constructor of another one.
_ALIASES = {
    "BartTokenizer": "RobertaTokenizer",
    "MobileBertTokenizer": "BertTokenizer",
    "SqueezeBertTokenizer": "BertTokenizer",
    "DistilBertTokenizer": "BertTokenizer",
    "ElectraTokenizer": "BertTokenizer",
    "LxmertTokenizer": "BertTokenizer",
    "LEDTokenizer": "RobertaTokenizer",
    "LongformerTokenizer": "RobertaTokenizer",
    "MvpTokenizer": "RobertaTokenizer",
}

# Classes that build their tokenizer from the vocabulary in a way that archdsl does not know, or
# that read other files. Names that are not here, such as `MT5Tokenizer`, are generic.
_OTHERS = """
Barthez Bartpho BertGeneration BertJapanese Bertweet BigBird BioGpt Blenderbot BlenderbotSmall
ByT5 CTRL Camembert Canine Clvp CodeGen CodeLlama ConvBert Cpm CpmAnt DPRContextEncoder
DPRQuestionEncoder DPRReader Deberta DebertaV2 Dia Esm Esmc FNet FSMT FastSpeech2Conformer
Flaubert Funnel GPTNeoXJapanese GPTSw3 Herbert Lasr LayoutLMv2 LayoutLMv3 LayoutXLM Luke
M2M100 MBart MBart50 MLuke Marian MarkupLM Mgpstr MyT5 Nllb Nougat PLBart Pegasus Perceiver
Phobert ProphetNet Rag Reformer RemBert RoCBert RoFormer SeamlessM4T Siglip Siglip2 Speech2Text
SpeechT5 Splinter Tapas Tipsv2 Udop VideoPrism Vits Wav2Vec2CTC Wav2Vec2PhonemeCTC XGLM XLM
XLMProphetNet XLNet
"""
UNKNOWN = frozenset(f"{name}Tokenizer" for name in _OTHERS.split())


def tokenizer_class(
    settings: Mapping[str, Any], config: Mapping[str, Any], byte_level: bool
) -> str | None:
    """Returns the name of the class, without `Fast`; None if the file is used as it is.

    `settings` are those of `tokenizer_config.json`; `byte_level` is whether the file has a
    byte-level part.
    """
    named = _text(settings.get("tokenizer_class")) or _text(config.get("tokenizer_class"))
    kind = _text(config.get("model_type"))
    own = _REGISTERED.get(kind)
    own = own and f"{own}Tokenizer"
    if not named:
        chosen = own
    elif (
        named == _BYTES_TOO and byte_level and kind not in _ALWAYS_OWN
    ) or kind in _ALWAYS_GENERIC:
        chosen = None
    elif own and own != named and kind in _ALWAYS_OWN:
        chosen = own
    else:
        chosen = named
    return None if chosen in GENERIC else _ALIASES.get(chosen or "", chosen)


def _text(name: object) -> str:
    return name.removesuffix("Fast") if isinstance(name, str) else ""
