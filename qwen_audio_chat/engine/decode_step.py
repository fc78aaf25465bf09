"""One token through the language model, with nothing but the arithmetic.

A forward pass of transformers spends more time in Python than in a small model's arithmetic: modules, masks, keyword
arguments. A `DecodeStep` gathers the weights once and computes the same for one row and one position. A single new
position attends to everything, so that no mask is needed; the query heads that share a key head are the rows of one
attention, so that keys are never repeated. Where all weights have 8 bits, as the pocket's, the whole token is one call
of compiled code (`PackedStep`).
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache, partial

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from transformers.cache_utils import Cache
from transformers.models.llama.modeling_llama import LlamaModel

from ..model import kernels
from ..model.decoder import QwenAudioTextModel
from ..model.quantized_layers import SINGLE_THREAD_WEIGHTS, QuantizedLinear, multiply

_FIXED_ROTARY = ("default", "linear", "llama3")  # the other types change their angles with the length
_TABLE = 4096  # positions of which the angles are computed at once


class DecodeStep:
    """Callable: a token and the key-value cache of what came before → logits [1, vocab_size].

    The same result as the model's own forward, up to rounding; like it, it adds the token's keys and values to the
    cache. A model that it doesn't know goes through its own forward, see `_is_known`.

    Args:
        model: `QwenAudioForConditionalGeneration` in evaluation mode, its weights in place for good.

    `threads` is how many threads serve it best: waking a second one takes longer than a small matrix.
    """

    def __init__(self, model):
        self.model = model
        self.is_lean = _is_known(model)
        self.threads = torch.get_num_threads()
        if not self.is_lean:
            return
        text, config = model.model.language_model, model.config.text_config
        linears = [module for module in (*text.modules(), model.lm_head) if hasattr(module, "in_features")]
        self.threads = 1 if all(x.in_features * x.out_features < SINGLE_THREAD_WEIGHTS for x in linears[:-1]) else self.threads
        self._angles = lru_cache(maxsize=4)(partial(_angles, text))
        is_plain = type(text) is LlamaModel and all(getattr(x, "bits", 0) == 8 and x.bias is None for x in linears)
        self.packed = PackedStep(model) if is_plain and self.threads == 1 else None
        self.embed_tokens = text.embed_tokens
        if self.packed:
            return
        # The packed kernels take float32 and give float32: rounding to bfloat16 in between would only cost time.
        is_packed = all(isinstance(linear, QuantizedLinear) for linear in linears)
        self.dtype = torch.float32 if is_packed else model.dtype
        self.head = _product(model.lm_head)
        self.layers = [_Layer(layer, self.dtype) for layer in text.layers]
        self.norm = _norm(text.norm, self.dtype)
        self.head_dim, self.key_heads = text.layers[0].self_attn.head_dim, config.num_key_value_heads
        self.log_n_from = config.max_position_embeddings if getattr(config, "use_logn_attn", False) else math.inf

    @torch.inference_mode()
    def __call__(self, token: int, cache: Cache) -> torch.Tensor:
        ids = torch.tensor([token], device=self.model.device)
        if not self.is_lean:
            outputs = self.model(input_ids=ids[None], past_key_values=cache, use_cache=True, logits_to_keep=1)
            return outputs.logits[:, -1]
        position = cache.get_seq_length()
        cos, sin = self._angles(float(getattr(cache, "ntk_alpha", None) or 1), position // _TABLE)
        cos, sin = cos[position % _TABLE], sin[position % _TABLE]
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

    def __init__(self, layer: nn.Module, dtype: torch.dtype):
        attention, mlp = layer.self_attn, layer.mlp
        self.attention_norm = _norm(layer.input_layernorm, dtype)
        self.query_key_value = _product(attention.q_proj, attention.k_proj, attention.v_proj)
        self.output = _product(attention.o_proj)
        self.mlp_norm = _norm(layer.post_attention_layernorm, dtype)
        self.gate_up, self.down = _product(mlp.gate_proj, mlp.up_proj), _product(mlp.down_proj)


class PackedStep:
    """The same for a small Llama-type model of 8 bits throughout on a CPU, in one call of `kernels.decode`.

    It brings the weights of each kind together in one array, see `_stacked`.
    """

    def __init__(self, model):
        text, head = model.model.language_model, model.lm_head
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
    """Weights [groups, rows, columns] and scales [groups, rows ...] of groups of layers, each group's side by side.

    The layers become views of them.
    """
    # NumPy asks the system for large pages, PyTorch doesn't: with them a token takes a third less.
    weights = np.stack([np.concatenate([layer.weight.numpy() for layer in group]) for group in groups])
    scales = np.stack([np.concatenate([layer.kernel_scales.numpy() for layer in group]) for group in groups])
    for group, *whole in zip(groups, torch.from_numpy(weights), torch.from_numpy(scales), strict=True):
        sizes = [layer.out_features for layer in group]
        for layer, *own in zip(group, *(array.split(sizes) for array in whole), strict=True):
            layer.weight.data, layer.kernel_scales = own
    return weights, scales


def _is_known(model) -> bool:
    """Whether the lean step serves a model: of a known kind, in one place, with angles that stay."""
    text, config = model.model.language_model, model.config.text_config
    return (
        type(text) in (LlamaModel, QwenAudioTextModel)
        and config.hidden_act == "silu"
        and config.rope_parameters["rope_type"] in _FIXED_ROTARY
        and len(set(getattr(model, "hf_device_map", {}).values())) <= 1
    )


def _product(*linears: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    """Linear layers as a function that gives their results side by side.

    Layers of other libraries do themselves what they do beyond multiplying.
    """
    if all(type(linear) is QuantizedLinear for linear in linears):
        return _packed_product(linears)
    if len(linears) > 1:
        products = [_product(linear) for linear in linears]
        return lambda hidden: torch.cat([product(hidden) for product in products], dim=-1)
    (linear,) = linears
    if type(linear) is nn.Linear:
        return partial(F.linear, weight=linear.weight, bias=linear.bias)
    return linear


def _packed_product(linears: Sequence[QuantizedLinear]) -> Callable[[torch.Tensor], torch.Tensor]:
    """The same for packed layers, in one multiplication."""
    weight, scales = (torch.from_numpy(whole[0]) for whole in _stacked([linears]))
    bias = None if linears[0].bias is None else torch.cat([linear.bias for linear in linears])

    def product(hidden: torch.Tensor) -> torch.Tensor:
        output = multiply(weight, scales, hidden[0].float())[None].to(hidden.dtype)
        return output if bias is None else output + bias

    return product


def _norm(norm: nn.Module, dtype: torch.dtype) -> Callable[[torch.Tensor], torch.Tensor]:
    weight = norm.weight.to(dtype)
    return partial(F.rms_norm, normalized_shape=weight.shape, weight=weight, eps=norm.variance_epsilon)


def _angles(text: nn.Module, alpha: float, block: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines for a block of positions, each float32 [_TABLE, head_dim].

    The sines of the first half are negative: with the halves of a head exchanged they make up its rotation.
    """
    device = text.norm.weight.device
    positions = torch.arange(block * _TABLE, (block + 1) * _TABLE, device=device)[None]
    if isinstance(text, QwenAudioTextModel):
        cos, sin = text.rotary(positions, torch.tensor([alpha], device=device))
        cos, sin = cos[0, 0], sin[0, 0]
    else:
        cos, sin = (table[0] for table in text.rotary_emb(torch.empty(0, device=device), positions))
    half = sin.shape[-1] // 2
    return cos, torch.cat((-sin[:, :half], sin[:, half:]), dim=-1)
