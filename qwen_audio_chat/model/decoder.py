"""Qwen-7B (v1) as a variation of transformers' Qwen2: the same blocks, plus log-n scaling and stepwise dynamic NTK.

Both additions only act beyond the training length (2,048 positions) and in evaluation mode, as in the release.
"""

import math
from typing import Any

import torch
from torch import nn
from transformers.cache_utils import Cache, DynamicCache
from transformers.masking_utils import create_causal_mask
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.qwen2.modeling_qwen2 import (
    Qwen2Attention,
    Qwen2DecoderLayer,
    Qwen2PreTrainedModel,
    Qwen2RMSNorm,
    eager_attention_forward,
    rotate_half,
)
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .configuration import QwenAudioTextConfig


def ntk_alpha(length: torch.Tensor, trained_length: int) -> torch.Tensor:
    """Factor of the rotary base for prompts of `length` tokens [rows]: 1 up to `trained_length`, then 3, 7, 15, ..."""
    doublings = torch.ceil(torch.log2(length.float() / trained_length) + 1)
    return (2**doublings - 1).clamp(min=1)


class RotaryTable(nn.Module):
    """Cosines and sines of the rotary embedding; the base grows with `alpha` (dynamic NTK), one value per row."""

    def __init__(self, config: QwenAudioTextConfig):
        super().__init__()
        self.dim = config.hidden_size // config.num_attention_heads
        rope: Any = config.rope_parameters  # every loaded configuration has them
        self.base: float = rope["rope_theta"]

    def forward(self, position_ids: torch.Tensor, alpha: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """position_ids [rows, length], alpha [rows] -> two float32 tensors [rows, 1, length, head_dim]."""
        exponents = torch.arange(0, self.dim, 2, device=position_ids.device, dtype=torch.float32) / self.dim
        base = self.base * alpha ** (self.dim / (self.dim - 2))
        inverse_frequencies = 1.0 / base[:, None] ** exponents
        angles = position_ids[..., None].float() * inverse_frequencies[:, None, :]
        angles = torch.cat((angles, angles), dim=-1)[:, None]
        return angles.cos(), angles.sin()


class QwenAudioTextAttention(Qwen2Attention):
    """Qwen2's attention with the rotation in float32 and a query scale that depends on the position (log-n)."""

    def forward(
        self,
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor, torch.Tensor | None],
        attention_mask: torch.Tensor | None,
        past_key_values: Cache | None = None,
        **kwargs,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """As in Qwen2; `position_embeddings` are the cosines and sines of `RotaryTable`, and the query scale."""
        shape = (*hidden_states.shape[:-1], -1, self.head_dim)
        query = self.q_proj(hidden_states).view(shape).transpose(1, 2)
        key = self.k_proj(hidden_states).view(shape).transpose(1, 2)
        value = self.v_proj(hidden_states).view(shape).transpose(1, 2)

        cos, sin, query_scale = position_embeddings
        query, key = (x.float() for x in (query, key))
        query = (query * cos + rotate_half(query) * sin).to(value.dtype)
        key = (key * cos + rotate_half(key) * sin).to(value.dtype)
        if query_scale is not None:
            query = query * query_scale.to(query.dtype)

        if past_key_values is not None:
            key, value = past_key_values.update(key, value, self.layer_idx)
        implementation = self.config._attn_implementation or "eager"
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(implementation, eager_attention_forward)
        output, weights = attend(
            self,
            query,
            key,
            value,
            attention_mask,
            dropout=self.attention_dropout if self.training else 0.0,
            scaling=self.scaling,
            **kwargs,
        )
        return self.o_proj(output.reshape(*hidden_states.shape[:-1], -1)), weights


class QwenAudioTextLayer(Qwen2DecoderLayer):
    """Qwen2's layer with the attention above."""

    def __init__(self, config: QwenAudioTextConfig, layer_idx: int):
        super().__init__(config, layer_idx)
        self.self_attn = QwenAudioTextAttention(config, layer_idx)


class QwenAudioTextModel(Qwen2PreTrainedModel):
    """The decoder of Qwen-7B (v1), without a head."""

    config_class = QwenAudioTextConfig
    _no_split_modules = ["QwenAudioTextLayer"]
    _can_record_outputs = {"hidden_states": QwenAudioTextLayer, "attentions": QwenAudioTextAttention}

    def __init__(self, config: QwenAudioTextConfig):
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(QwenAudioTextLayer(config, i) for i in range(config.num_hidden_layers))
        self.norm = Qwen2RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.rotary = RotaryTable(config)
        self.gradient_checkpointing = False
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs,
    ) -> BaseModelOutputWithPast:
        """One pass over `input_ids` [rows, length] or `inputs_embeds` [rows, length, hidden_size].

        The length of the whole prompt determines the rotary base, which then stays the same as long as the cache is
        used. To feed a prompt in chunks, set `past_key_values.ntk_alpha` to `ntk_alpha(whole length)` first.
        """
        hidden_states = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
        rows, length = hidden_states.shape[:2]
        if position_ids is None:
            position_ids = self._positions(rows, length, attention_mask, past_key_values, hidden_states.device)

        mask = create_causal_mask(
            config=self.config,
            inputs_embeds=hidden_states,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            position_ids=position_ids,
        )
        alpha = self._rotary_alpha(position_ids, past_key_values)
        position_embeddings = (*self.rotary(position_ids, alpha), self._query_scale(position_ids))
        for layer in self.layers:
            hidden_states = layer(
                hidden_states,
                attention_mask=mask,
                position_embeddings=position_embeddings,
                position_ids=position_ids,
                past_key_values=past_key_values,
                use_cache=use_cache,
                **kwargs,
            )
        return BaseModelOutputWithPast(
            last_hidden_state=self.norm(hidden_states), past_key_values=past_key_values if use_cache else None
        )

    @staticmethod
    def _positions(
        rows: int, length: int, attention_mask: torch.Tensor | None, past_key_values: Cache | None, device: torch.device
    ) -> torch.Tensor:
        """Positions without padding, so that a padded row gives the same result as the row alone at any length."""
        if attention_mask is not None and attention_mask.ndim == 2:
            return (attention_mask.long().cumsum(-1) - 1).clamp(min=0)[:, -length:]
        past = past_key_values.get_seq_length() if past_key_values is not None else 0
        return torch.arange(past, past + length, device=device).expand(rows, -1)

    def _rotary_alpha(self, position_ids: torch.Tensor, past_key_values: Any) -> torch.Tensor:
        """One factor per row, fixed at prefill and kept with the cache, whose keys are rotated with it."""
        alpha = getattr(past_key_values, "ntk_alpha", None)
        if alpha is None:
            lengths = position_ids[:, -1] + 1
            if self.training or not self.config.use_dynamic_ntk:
                lengths = torch.ones_like(lengths)
            alpha = ntk_alpha(lengths, self.config.max_position_embeddings)
            if past_key_values is not None:
                past_key_values.ntk_alpha = alpha
        return alpha

    def _query_scale(self, position_ids: torch.Tensor) -> torch.Tensor | None:
        """log(position) / log(trained length) beyond the trained length, else 1: [rows, 1, length, 1], or None."""
        trained = self.config.max_position_embeddings
        if self.training or not self.config.use_logn_attn:
            return None
        scale = torch.log((position_ids + 1).float()) / math.log(trained)
        return scale.clamp(min=1)[:, None, :, None]
