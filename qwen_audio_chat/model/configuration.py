"""Configuration of Qwen-Audio: a Whisper-style encoder, a projection, and any language model of transformers.

Sizes default to those of the released 8.4 B model (arXiv 2311.07919); the pocket model differs only in its values.
"""

from typing import Any

from transformers import AutoConfig, PreTrainedConfig, Qwen2Config
from transformers.configuration_utils import SubConfigSpec

from ..errors import UserError
from .official import MODEL_TYPE as OFFICIAL_TYPE
from .official import translate_config


class QwenAudioEncoderConfig(PreTrainedConfig):
    """Sizes of the audio encoder, named as in transformers' Whisper.

    `max_source_positions` counts frames after the convolutions: 1,500 for 30 s.
    """

    model_type = "qwen_audio_encoder"
    attribute_map = {
        "num_hidden_layers": "encoder_layers",
        "hidden_size": "d_model",
        "num_attention_heads": "encoder_attention_heads",
        "intermediate_size": "encoder_ffn_dim",
    }

    num_mel_bins: int = 80
    d_model: int = 1280
    encoder_layers: int = 32
    encoder_attention_heads: int = 20
    encoder_ffn_dim: int = 5120
    activation_function: str = "gelu"
    max_source_positions: int = 1500
    dropout: float = 0.0
    attention_dropout: float = 0.0
    activation_dropout: float = 0.0
    initializer_range: float = 0.02


class QwenAudioTextConfig(Qwen2Config):
    """Qwen-7B (v1) in the terms of transformers' Qwen2, plus what v1 adds beyond its training length.

    `max_position_embeddings` is the training length. Longer contexts use log-n attention scaling (`use_logn_attn`) and
    a rotary base that grows in steps (`use_dynamic_ntk`).
    """

    model_type = "qwen_audio_text"

    vocab_size: int = 155947
    intermediate_size: int = 11008
    max_position_embeddings: int = 2048
    use_logn_attn: bool = True
    use_dynamic_ntk: bool = True


class QwenAudioConfig(PreTrainedConfig):
    """Configuration of the whole model.

    Args:
        audio_config: sizes of the encoder, as `QwenAudioEncoderConfig` or its values.
        text_config: the language model, as a configuration or its values; any model type that `AutoModel` knows,
            `qwen_audio_text` by default.
        audio_start_id, audio_end_id: ids of `<audio>` and `</audio>`, which enclose each clip.
        audio_token_id: id of the placeholder between them, one per audio frame.
        projector_norm: None as released, or "cosine": projected frames are normalised to unit length and multiplied
            by one learned scale, which gives them the length of a small language model's token embeddings.
        ctc_alphabet: the characters of a CTC head on the projected frames, which scores transcripts and finds the
            times of their words (see `ctc/`); None as released, without such a head.
    """

    model_type = "qwen_audio"
    attribute_map = {"letters": "ctc_alphabet"}  # the name in files from before version 2.0
    sub_configs_defaults = {
        "audio_config": SubConfigSpec(config_class=QwenAudioEncoderConfig),
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="qwen_audio_text"),
    }

    # Values or a configuration when created, always a configuration afterwards.
    audio_config: Any = None
    text_config: Any = None
    audio_start_id: int = 155163
    audio_end_id: int = 155164
    audio_token_id: int = 151851
    projector_norm: str | None = None
    ctc_alphabet: str | None = None
    tie_word_embeddings: bool = False

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, **kwargs) -> "QwenAudioConfig":
        """As in transformers; also reads the official configuration.

        Raises:
            UserError: the configuration is of another model, or of an official one that can't be used.
        """
        values, kwargs = cls.get_config_dict(pretrained_model_name_or_path, **kwargs)
        if values.get("model_type") not in (cls.model_type, OFFICIAL_TYPE):
            raise UserError(
                "{model} holds a model of type {model_type!r}, not Qwen-Audio.",
                model=pretrained_model_name_or_path,
                model_type=values.get("model_type"),
            )
        return cls.from_dict(values, **kwargs)

    @classmethod
    def from_dict(cls, config_dict, **kwargs) -> "QwenAudioConfig":
        """As in transformers. An official configuration keeps the type "qwen" until its weights are loaded."""
        if config_dict.get("model_type") == OFFICIAL_TYPE:
            config_dict = translate_config(config_dict)
        return super().from_dict(config_dict, **kwargs)


class OfficialConfig(QwenAudioConfig):
    """The official model type for transformers' Auto classes; creates a `QwenAudioConfig`."""

    model_type = OFFICIAL_TYPE

    @classmethod
    def from_dict(cls, config_dict, **kwargs) -> QwenAudioConfig:
        return QwenAudioConfig.from_dict(config_dict, **kwargs)


AutoConfig.register("qwen_audio_encoder", QwenAudioEncoderConfig)
AutoConfig.register("qwen_audio_text", QwenAudioTextConfig)
AutoConfig.register("qwen_audio", QwenAudioConfig)
AutoConfig.register(OFFICIAL_TYPE, OfficialConfig)
