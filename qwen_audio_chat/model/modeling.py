"""Qwen-Audio: encoder → projection → language model, with audio frames in place of token embeddings."""

from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoModel, AutoModelForMultimodalLM, GenerationMixin, PreTrainedModel
from transformers import initialization as init
from transformers.cache_utils import Cache
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import WeightRenaming
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.modeling_utils import slice_logits_to_keep
from transformers.utils.generic import ModelOutput

from ..errors import UserError
from . import official
from .configuration import QwenAudioConfig, QwenAudioTextConfig
from .decoder import QwenAudioTextModel
from .encoder import QwenAudioEncoder, conv_frames
from .quantization import QUANTIZED_LAYERS, precision_name, restore_nf4


@dataclass
class QwenAudioOutput(ModelOutput):
    """loss (with labels), logits [rows, kept positions, vocab_size], and the key-value cache."""

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    past_key_values: Cache | None = None
    hidden_states: tuple[torch.Tensor] | None = None
    attentions: tuple[torch.Tensor] | None = None


class QwenAudioProjector(nn.Module):
    """From encoder frames to the language model's embeddings, with learned embeddings of a clip's start and end.

    Raises:
        UserError: the configuration has an unknown `projector_norm`.
    """

    def __init__(self, config: QwenAudioConfig):
        super().__init__()
        width = config.text_config.hidden_size
        self.linear = nn.Linear(config.audio_config.d_model, width)
        self.boundary_embeddings = nn.Embedding(2, width)  # row 0 replaces <audio>, row 1 </audio>
        if config.projector_norm not in (None, "cosine"):
            raise UserError('projector_norm must be None or "cosine", not {value!r}.', value=config.projector_norm)
        self.scale = nn.Parameter(torch.ones(())) if config.projector_norm == "cosine" else None

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """[..., d_model] → [..., hidden_size]."""
        projected = self.linear(frames)
        return projected if self.scale is None else self.scale * F.normalize(projected, dim=-1)


class QwenAudioPreTrainedModel(PreTrainedModel):
    """What both models share: loading, saving and how their modules may be distributed."""

    config_class = QwenAudioConfig
    base_model_prefix = "model"
    input_modalities = ["audio", "text"]
    supports_gradient_checkpointing = True
    _no_split_modules = ["WhisperEncoderLayer", "QwenAudioTextLayer", "LlamaDecoderLayer", "Qwen2DecoderLayer"]
    _skip_keys_device_placement = ["past_key_values"]
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_attention_backend = True

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, output_loading_info: bool = False, **kwargs) -> Self:
        """As in transformers, from our layout or the official one, except that a weight that doesn't fit is an error.

        Raises:
            UserError: a weight is missing, superfluous, of another shape, or could not be converted.
        """
        kwargs |= {"use_safetensors": True, "ignore_mismatched_sizes": True}  # `_refuse_misfits` names the mismatches
        loaded: Any = super().from_pretrained(pretrained_model_name_or_path, *args, output_loading_info=True, **kwargs)
        model, info = loaded
        _refuse_misfits(pretrained_model_name_or_path, model, info)
        if model.config.model_type == official.MODEL_TYPE:
            model.config.model_type = QwenAudioConfig.model_type
            if model.can_generate():
                model.generation_config = official.generation_config(
                    model.generation_config, model.config.text_config.vocab_size
                )
        return (model, info) if output_loading_info else model  # pyright: ignore[reportReturnType]  rarely a pair

    def save_pretrained(self, save_directory, *args, save_original_format: bool = False, **kwargs) -> None:
        """As in transformers, always in our layout, whichever layout the weights were loaded from."""
        restore_nf4(self)
        super().save_pretrained(save_directory, *args, save_original_format=save_original_format, **kwargs)

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, QwenAudioProjector) and module.scale is not None:
            init.ones_(module.scale)


def _refuse_misfits(name: str, model: nn.Module, info: dict[str, Any]) -> None:
    """Raise a `UserError` that names the weights that don't fit `model`, if there are any."""
    wrong = {key: tuple(found) for key, found, _ in info["mismatched_keys"]}
    for layer_name, layer in model.named_modules():
        if isinstance(layer, nn.Linear):  # no one else checks the shape of weights that bitsandbytes quantized
            state = getattr(layer.weight, "quant_state", None)
            shape = tuple((layer.weight if state is None else state).shape)
            if shape != (layer.out_features, layer.in_features):
                wrong[f"{layer_name}.weight"] = shape
        elif isinstance(layer, QUANTIZED_LAYERS) and layer.weight is not None and layer.weight.is_floating_point():
            wrong[f"{layer_name}.weight"] = tuple(layer.weight.shape)  # not quantized, see `QuantizeWeights`
    problems = {  # shapes first: a weight that wasn't quantized because of its shape also lacks its scales
        "have another shape": [f"{key} {shape}" for key, shape in sorted(wrong.items())],
        "are missing": sorted(info["missing_keys"]),
        "are not of this model": sorted(info["unexpected_keys"]),
    }
    for problem, weights in problems.items():
        if weights:
            more = f" and {len(weights) - 3} more" if len(weights) > 3 else ""
            raise UserError(
                "The weights in {name} don't fit the model: {weights} {problem}. "
                "Download the checkpoint again, or check that its config.json belongs to it.",
                name=name,
                weights=", ".join(weights[:3]) + more,
                problem=problem,
            )


class QwenAudioModel(QwenAudioPreTrainedModel):
    """Qwen-Audio without the language-model head."""

    _keys_to_ignore_on_load_unexpected = [r"^lm_head\."]

    def __init__(self, config: QwenAudioConfig):
        super().__init__(config)
        self.audio_tower = QwenAudioEncoder._from_config(config.audio_config)
        self.projector = QwenAudioProjector(config)
        self.language_model = AutoModel.from_config(config.text_config)
        self.post_init()

    def get_input_embeddings(self):
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value):
        self.language_model.set_input_embeddings(value)

    def get_audio_features(self, input_features: torch.Tensor, feature_lengths: torch.Tensor) -> list[torch.Tensor]:
        """Embeddings of each clip, without those of its start and end.

        Args:
            input_features: log-mel [clips, num_mel_bins, frames], zero beyond each clip's own length.
            feature_lengths: log-mel frames of each clip [clips].

        Returns:
            One tensor [tokens, hidden_size] per clip, a token per 40 ms.
        """
        frames = self.projector(self.audio_tower(input_features, feature_lengths))
        tokens = (conv_frames(feature_lengths) // 2).tolist()
        return [clip[:count] for clip, count in zip(frames, tokens, strict=True)]

    def embed(self, input_ids: torch.Tensor, audio_features: list[torch.Tensor]) -> torch.Tensor:
        """Token embeddings [rows, length, hidden_size], with `audio_features` in place of the placeholders, in order.

        Raises:
            ValueError: `input_ids` has more or fewer placeholders than there are frames.
        """
        embeddings = self.get_input_embeddings()(input_ids)
        start, end = self.projector.boundary_embeddings.weight.to(embeddings.dtype)
        embeddings = torch.where((input_ids == self.config.audio_start_id)[..., None], start, embeddings)
        embeddings = torch.where((input_ids == self.config.audio_end_id)[..., None], end, embeddings)
        if not audio_features:  # also where a reused prefix ends just before `</audio>`
            return embeddings
        is_placeholder = input_ids == self.config.audio_token_id
        placeholders = int(is_placeholder.sum())
        features = torch.cat(audio_features).to(embeddings.device, embeddings.dtype)
        if placeholders != len(features):
            raise ValueError(
                f"The prompt has {placeholders} audio placeholders but the clips give {len(features)} frames: "
                "build both with the same processor call."
            )
        return embeddings.masked_scatter(is_placeholder[..., None], features)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
        feature_lengths: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs,
    ) -> BaseModelOutputWithPast:
        """Hidden states [rows, length, hidden_size] of a prompt whose audio placeholders stand for the clips in order.

        Args:
            input_ids: [rows, length]; or give `inputs_embeds` [rows, length, hidden_size] instead.
            input_features, feature_lengths: the clips, see `get_audio_features`.

        Raises:
            ValueError: neither `input_ids` nor `inputs_embeds` is given, or clips come without their lengths.
        """
        if inputs_embeds is None:
            if input_ids is None:
                raise ValueError("Give input_ids or inputs_embeds.")
            clips = []
            if input_features is not None:
                if feature_lengths is None:
                    raise ValueError("input_features need feature_lengths.")
                clips = self.get_audio_features(input_features, feature_lengths)
            inputs_embeds = self.embed(input_ids, clips)
        return self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            use_cache=use_cache,
            **kwargs,
        )


class QwenAudioForConditionalGeneration(QwenAudioPreTrainedModel, GenerationMixin):
    """Qwen-Audio with its language-model head (arXiv 2311.07919) and, where configured, a CTC head."""

    _tied_weights_keys = {"lm_head.weight": "model.language_model.embed_tokens.weight"}

    def __init__(self, config: QwenAudioConfig):
        super().__init__(config)
        self.model = QwenAudioModel(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.ctc_head = None
        if config.ctc_alphabet:  # the blank first, then a class for each character
            self.ctc_head = nn.Linear(config.text_config.hidden_size, 1 + len(config.ctc_alphabet))
        self.post_init()

    @property
    def precision(self) -> str:
        """How the weights are stored, for people: "bfloat16", "4-bit NF4", "packed 4-bit" ..."""
        return precision_name(self)

    def get_audio_features(self, input_features: torch.Tensor, feature_lengths: torch.Tensor) -> list[torch.Tensor]:
        """See `QwenAudioModel.get_audio_features`."""
        return self.model.get_audio_features(input_features, feature_lengths)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
        feature_lengths: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs,
    ) -> QwenAudioOutput:
        """One pass over prompts and their clips.

        Args:
            input_ids: [rows, length], with one placeholder per audio frame.
            input_features, feature_lengths: the clips, see `QwenAudioModel.get_audio_features`.
            attention_mask: [rows, length], 0 at padding (left of the prompt).
            labels: [rows, length], -100 where no loss is taken.
            logits_to_keep: how many of the last positions get logits; 0 means all.
        """
        outputs = self.model(
            input_ids=input_ids,
            input_features=input_features,
            feature_lengths=feature_lengths,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        logits = self.lm_head(slice_logits_to_keep(outputs.last_hidden_state, logits_to_keep))
        loss = None
        if labels is not None:
            loss = self.loss_function(
                logits=logits, labels=labels, vocab_size=self.config.text_config.vocab_size, **kwargs
            )
        return QwenAudioOutput(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def _expand_inputs_for_generation(self, expand_size=1, input_ids=None, **kwargs):
        """For beams and several answers per row: repeats the clips of each row as its `input_ids` are repeated."""
        features, lengths = kwargs.pop("input_features", None), kwargs.pop("feature_lengths", None)
        if features is not None:
            per_row = (input_ids == self.config.audio_start_id).sum(dim=-1).tolist()
            rows = torch.arange(len(features), device=features.device).split(per_row)
            order = torch.cat([clips for clips in rows for _ in range(expand_size)])
            features, lengths = features[order], lengths[order]
        expand = super()._expand_inputs_for_generation  # pyright: ignore[reportAttributeAccessIssue]  protocol of a mixin
        input_ids, kwargs = expand(expand_size, input_ids=input_ids, **kwargs)
        if features is not None:
            kwargs |= {"input_features": features, "feature_lengths": lengths}
        return input_ids, kwargs


# Files from before version 2.0, such as those of the shipped pocket, call the CTC head `letter_head`.
register_checkpoint_conversion_mapping(
    QwenAudioConfig.model_type, [WeightRenaming(r"^letter_head\.", "ctc_head.")], overwrite=True
)

AutoModel.register(QwenAudioTextConfig, QwenAudioTextModel)
AutoModel.register(QwenAudioConfig, QwenAudioModel)
AutoModelForMultimodalLM.register(QwenAudioConfig, QwenAudioForConditionalGeneration)
