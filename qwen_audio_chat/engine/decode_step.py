"""One token through the language model, without the overhead of a general forward pass.

A forward pass of transformers spends more time in Python (modules, masks, keyword arguments) than in a small model's
arithmetic. `DecodeStep` collects the weights once and computes the same for one row and one position. A single new
position attends to everything, so no mask is needed; the query heads that share a key head become the rows of one
attention, so keys are never repeated. Where all weights have 8 bits, as in the pocket, the whole token is one call of
compiled code (`PackedStep`).
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any, cast

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from transformers.cache_utils import Cache
from transformers.models.llama.modeling_llama import LlamaModel

from ..model import QwenAudioForConditionalGeneration, kernels
from ..model.decoder import QwenAudioTextModel
from ..model.quantized_layers import SINGLE_THREAD_WEIGHTS, QuantizedLinear, multiply

_FIXED_ROTARY_TYPES = ("default", "linear", "llama3")  # other types change their angles with the length
_ANGLE_BLOCK = 4096  # positions whose rotary angles are computed at once


class DecodeStep:
    """Callable: a token and the key-value cache of what came before → logits [1, vocab_size].

    The result equals that of the model's own forward up to rounding, and the token's keys and values are added to the
    cache alike. A model of another kind goes through its own forward, see `_is_supported`.

    Args:
        model: in evaluation mode, its weights in place for good.

    Attributes:
        threads: how many threads are fastest; for small matrices, one: waking a second one takes longer.
    """

    def __init__(self, model: QwenAudioForConditionalGeneration):
        self.model = model
        self.is_lean = _is_supported(model)
        self.threads = torch.get_num_threads()
        if not self.is_lean:
            return
        text = cast(Any, model.model.language_model)  # of one of two classes, see `_is_supported`
        config = cast(Any, model.config.text_config)
        linears = [module for module in (*text.modules(), model.lm_head) if hasattr(module, "in_features")]
        if all(x.in_features * x.out_features < SINGLE_THREAD_WEIGHTS for x in linears[:-1]):
            self.threads = 1
        self._angles = lru_cache(maxsize=4)(partial(_angles, text))
        is_llama = type(model.model.language_model) is LlamaModel
        is_plain = is_llama and all(getattr(x, "bits", 0) == 8 and x.bias is None for x in linears)
        self.packed = PackedStep(model) if is_plain and self.threads == 1 else None
        self.embed_tokens = text.embed_tokens
        if self.packed:
            return
        # The packed kernels take and return float32: rounding to bfloat16 in between would only cost time.
        is_packed = all(isinstance(linear, QuantizedLinear) for linear in linears)
        self.dtype = torch.float32 if is_packed else model.dtype
        self.head = _product(model.lm_head)
        self.layers = [_Layer(layer, self.dtype) for layer in text.layers]
        self.norm = _norm(text.norm, self.dtype)
        self.head_dim: int = text.layers[0].self_attn.head_dim
        self.key_heads: int = config.num_key_value_heads
        self.log_n_from = config.max_position_embeddings if getattr(config, "use_logn_attn", False) else math.inf

    @torch.inference_mode()
    def __call__(self, token: int, cache: Cache) -> torch.Tensor:
        ids = torch.tensor([token], device=self.model.device)
        if not self.is_lean:
            outputs = self.model(input_ids=ids[None], past_key_values=cache, use_cache=True, logits_to_keep=1)
            return outputs.logits[:, -1]
        position = cache.get_seq_length()
        cos, sin = self._angles(float(getattr(cache, "ntk_alpha", None) or 1), position // _ANGLE_BLOCK)
        cos, sin = cos[position % _ANGLE_BLOCK], sin[position % _ANGLE_BLOCK]
        if self.packed:
            return self.packed(self.embed_tokens(ids)[0], cache.layers, position, cos, sin)
        scale = self.head_dim**-0.5
        if position >= self.log_n_from:
            scale *= math.log(position + 1) / math.log(self.log_n_from)
        hidden = self.embed_tokens(ids).to(self.dtype)
        for layer, memory in zip(self.layers, cache.layers, strict=True):
            hidden = hidden + self._attend(layer, layer.attention_norm(hidden), memory, cos, sin, scale)
            gate, up = layer.gate_up(layer.mlp_norm(hidden)).chunk(2, dim=-1)
            hidden = hidden + layer.down(F.silu(gate) * up)
        return self.head(self.norm(hidden))

    def _attend(self, layer, hidden, memory, cos, sin, scale) -> torch.Tensor:
        heads = layer.query_key_value(hidden).view(-1, self.head_dim)
        heads, value = heads.split((len(heads) - self.key_heads, self.key_heads))
        heads = torch.addcmul(heads * cos, heads.roll(self.head_dim // 2, dims=-1), sin)
        query, key = heads.split((len(heads) - self.key_heads, self.key_heads))
        keys, values = memory.update(key[None, :, None], value[None, :, None])
        query = query.view(1, self.key_heads, -1, self.head_dim).to(keys.dtype)
        attended = F.scaled_dot_product_attention(query, keys, values, scale=scale)
        return layer.output(attended.reshape(1, -1).to(self.dtype))


class _Layer:
    """The operations of one decoder layer."""

    def __init__(self, layer: Any, dtype: torch.dtype):
        attention, mlp = layer.self_attn, layer.mlp
        self.attention_norm = _norm(layer.input_layernorm, dtype)
        self.query_key_value = _product(attention.q_proj, attention.k_proj, attention.v_proj)
        self.output = _product(attention.o_proj)
        self.mlp_norm = _norm(layer.post_attention_layernorm, dtype)
        self.gate_up, self.down = _product(mlp.gate_proj, mlp.up_proj), _product(mlp.down_proj)


class PackedStep:
    """The same for a small Llama-type model with 8 bits throughout on a CPU, in one call of `kernels.decode`.

    The weights of each kind are stacked in one array, see `_stacked`.
    """

    def __init__(self, model: QwenAudioForConditionalGeneration):
        text = cast(Any, model.model.language_model)
        head = cast(Any, model.lm_head)
        attentions, mlps = [layer.self_attn for layer in text.layers], [layer.mlp for layer in text.layers]
        self.layers = (
            _stacked([(x.q_proj, x.k_proj, x.v_proj) for x in attentions]),
            _stacked([(x.o_proj,) for x in attentions]),
            _stacked([(x.gate_proj, x.up_proj) for x in mlps]),
            _stacked([(x.down_proj,) for x in mlps]),
        )
        self.head = tuple(x[0] for x in _stacked([(head,)]))
        norms = [norm for x in text.layers for norm in (x.input_layernorm, x.post_attention_layernorm)] + [text.norm]
        self.norms = torch.stack([norm.weight.detach().float() for norm in norms]).numpy()
        self.epsilon = np.float32(text.norm.variance_epsilon)

    def __call__(self, embedding, memories, position: int, cos, sin) -> torch.Tensor:
        keys, values = [], []
        for memory in memories:
            memory.extend(1)
            for found, buffer in zip((keys, values), memory.buffers, strict=True):
                found.append((buffer[0] if buffer.dtype == torch.float32 else buffer[0].view(torch.uint16)).numpy())
        hidden, cos, sin = (x.float().numpy() for x in (embedding, cos, sin))
        logits = torch.empty(1, len(self.head[0]))
        kernels.decode(
            hidden,
            position,
            self.layers,
            self.head,
            self.norms,
            self.epsilon,
            cos,
            sin,
            tuple(keys),
            tuple(values),
            logits[0].numpy(),
        )
        return logits


def _stacked(groups: Sequence[Sequence[QuantizedLinear]]) -> tuple[np.ndarray, np.ndarray]:
    """Weights [groups, rows, columns] and scales [groups, rows, ...] of groups of layers, one below another in a group.

    The layers become views of these arrays.
    """
    # NumPy asks the system for large pages and PyTorch doesn't; with them a token takes a third less time.
    weights = np.stack([np.concatenate([layer.weight.numpy() for layer in group]) for group in groups])
    scales = np.stack(
        [np.concatenate([cast(torch.Tensor, layer.kernel_scales).numpy() for layer in group]) for group in groups]
    )
    for group, *whole in zip(groups, torch.from_numpy(weights), torch.from_numpy(scales), strict=True):
        sizes = [layer.out_features for layer in group]
        for layer, *own in zip(group, *(array.split(sizes) for array in whole), strict=True):
            layer.weight.data, layer.kernel_scales = own
    return weights, scales


def _is_supported(model: QwenAudioForConditionalGeneration) -> bool:
    """Whether the model is of a known class, on one device, with rotary angles that don't depend on the length."""
    text, config = model.model.language_model, model.config.text_config
    return (
        type(text) in (LlamaModel, QwenAudioTextModel)
        and config.hidden_act == "silu"
        and config.rope_parameters["rope_type"] in _FIXED_ROTARY_TYPES
        and len(set(getattr(model, "hf_device_map", {}).values())) <= 1
    )


def _product(*linears: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """Linear layers as one function whose results stand side by side.

    Layers of other libraries (quantized ones, adapters) are called as they are.
    """
    if all(type(linear) is QuantizedLinear for linear in linears):
        return _packed_product(cast(Sequence[QuantizedLinear], linears))
    linear, *others = linears
    if others:
        products = [_product(linear) for linear in linears]
        return lambda hidden: torch.cat([product(hidden) for product in products], dim=-1)
    if type(linear) is nn.Linear:
        return partial(F.linear, weight=linear.weight, bias=linear.bias)
    return linear


def _packed_product(linears: Sequence[QuantizedLinear]) -> Callable[[torch.Tensor], torch.Tensor]:
    """The same for packed layers, in one multiplication."""
    weight, scales = (torch.from_numpy(whole[0]) for whole in _stacked([linears]))
    biases: list[torch.Tensor] = [linear.bias for linear in linears if linear.bias is not None]
    bias = torch.cat(biases) if biases else None

    def product(hidden: torch.Tensor) -> torch.Tensor:
        output = multiply(weight, scales, hidden[0].float())[None].to(hidden.dtype)
        return output if bias is None else output + bias

    return product


def _norm(norm: Any, dtype: torch.dtype) -> Callable[[torch.Tensor], torch.Tensor]:
    weight = norm.weight.to(dtype)
    return partial(F.rms_norm, normalized_shape=weight.shape, weight=weight, eps=norm.variance_epsilon)


def _angles(text: Any, alpha: float, block: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines for a block of positions, each float32 [_ANGLE_BLOCK, head_dim].

    The sines of the first half are negated: a head is rotated as head * cos + swapped halves of the head * sin.
    """
    device = text.norm.weight.device
    positions = torch.arange(block * _ANGLE_BLOCK, (block + 1) * _ANGLE_BLOCK, device=device)[None]
    if isinstance(text, QwenAudioTextModel):
        cos, sin = text.rotary(positions, torch.tensor([alpha], device=device))
        cos, sin = cos[0, 0], sin[0, 0]
    else:
        cos, sin = (table[0] for table in text.rotary_emb(torch.empty(0, device=device), positions))
    half = sin.shape[-1] // 2
    return cos, torch.cat((-sin[:, :half], sin[:, half:]), dim=-1)
