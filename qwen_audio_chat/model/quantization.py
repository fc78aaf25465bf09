"""Quantization while loading: which method serves which device, and our own for CPUs as a transformers quantizer.

bitsandbytes (NF4, LLM.int8) serves CUDA. On CPUs, and in the files of the pocket model, weights have the plain formats
of `quantized_layers`: at the 8.4 B model's shapes they are faster than bitsandbytes' for CPUs, above all for prompts.
"""

import copy
import importlib.util
import logging
import sys
from pathlib import Path

import torch
from torch import nn
from transformers import BitsAndBytesConfig, PreTrainedConfig
from transformers.core_model_loading import ConversionOps
from transformers.quantizers import HfQuantizer, register_quantization_config, register_quantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from .quantized_layers import QuantizedEmbedding, QuantizedLinear, quantize

METHOD = "packed"
LAYERS = (QuantizedLinear, QuantizedEmbedding)
BODY = "language_model.layers"
# In the 8.4 B model these stay as they are: a tenth of the weights, and what is heard depends on them.
KEPT_IN_FLOAT = [r"(model\.)?audio_tower", r"(model\.)?projector", "lm_head", "ctc_head"]
# With 4 bits in the body the trained pocket no longer transcribes, though its parent came in 4 bits.
RELEASED_PARTS = {"audio_tower": 8, "embed_tokens": 8, BODY: 8}
_SHARD = "45MB"
_SMALL = 500_000_000  # quantized weights up to which a float copy for prompts is kept


def quantization_config(precision: str, device: str) -> QuantizationConfigMixin | None:
    """What `from_pretrained` takes to load a float checkpoint at "none", "int8" or "int4" on a type of device.

    Raises:
        ValueError: nothing quantizes on that device.
    """
    if precision == "none":
        return None
    if device not in ("cuda", "cpu"):
        raise ValueError(f'Quantization isn\'t available on {device}: use quantization="none", or device="cpu".')
    if device == "cpu":
        return PackedConfig({BODY: 8 if precision == "int8" else 4})
    if not import_bitsandbytes():
        raise ValueError("Quantization on a GPU needs bitsandbytes: pip install bitsandbytes.")
    return bitsandbytes_config(precision)


def bitsandbytes_config(precision: str) -> BitsAndBytesConfig:
    """LLM.int8 for "int8", NF4 for "int4"."""
    return BitsAndBytesConfig(
        load_in_8bit=precision == "int8",
        load_in_4bit=precision == "int4",
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.bfloat16,
        llm_int8_skip_modules=KEPT_IN_FLOAT,
    )


def import_bitsandbytes() -> bool:
    """Import bitsandbytes if it is installed.

    On CPUs with AVX512-BF16 it would fetch native code from a hub whenever the package `kernels` is there, and
    complain when it isn't; its own compiled kernels are all that is wanted.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        return False
    if "bitsandbytes" not in sys.modules:
        logger = logging.getLogger("bitsandbytes.backends.cpu.ops")
        level, kernels = logger.level, sys.modules.get("kernels")
        logger.setLevel(logging.ERROR)
        sys.modules["kernels"] = None  # makes its import fail
        try:
            import bitsandbytes  # noqa: F401
        finally:
            logger.setLevel(level)
            sys.modules.pop("kernels")
            if kernels is not None:
                sys.modules["kernels"] = kernels
    return True


def restore_nf4(model: nn.Module) -> None:
    """Bring 4-bit layers of bitsandbytes back from its CPU layout, so that they can be saved.

    bitsandbytes 0.50 does so by itself when it saves, but leaves the scales in the order of the CPU layout: both the
    file and the model would be damaged.
    """
    for layer in model.modules():
        state = getattr(getattr(layer, "weight", None), "quant_state", None)
        if getattr(state, "packing_format_for_cpu", False):
            from bitsandbytes.functional import _convert_weight_packed_for_cpu_inverse

            scales = state.absmax  # [columns / block, rows], bfloat16
            layer.weight.data, layer.weight.quant_state = _convert_weight_packed_for_cpu_inverse(
                layer.weight.data, state
            )
            layer.weight.quant_state.absmax = scales.T.float().flatten()


@register_quantization_config(METHOD)
class PackedConfig(QuantizationConfigMixin):
    """Which parts of the model have how many bits.

    Args:
        parts: bits (8 or 4) by part of a module's name, such as {"language_model.layers": 4, "embed_tokens": 8}.
        dequantize: turn everything back into floats while loading.
    """

    def __init__(self, parts: dict[str, int], dequantize: bool = False, **kwargs):
        self.quant_method = METHOD
        self.parts = dict(parts)
        self.dequantize = dequantize

    def bits(self, name: str) -> int | None:
        """Bits of the module with this name, or None."""
        return next((bits for part, bits in self.parts.items() if f".{part}." in f".{name}."), None)


def unpack_while_loading(config: PreTrainedConfig) -> bool:
    """Have `from_pretrained` turn a packed checkpoint's weights into floats; False where `config` isn't of one."""
    stored = getattr(config, "quantization_config", None) or {}
    if stored.get("quant_method") != METHOD:
        return False
    stored["dequantize"] = True
    return True


class QuantizeWeights(ConversionOps):
    """Rounds every weight that comes out of a conversion: q, k and v of a split `c_attn`, not only the first."""

    def convert(self, input_dict, model=None, **kwargs):
        quantized = {}
        for name, weight in input_dict.items():
            weight = weight[0] if isinstance(weight, list) else weight
            layer_name = name.removesuffix(".weight")
            layer = model.get_submodule(layer_name)
            if weight.shape != layer.shape:
                quantized[name] = weight  # refused by `from_pretrained`; an error raised here would lose its sentence
            else:
                quantized[name], quantized[f"{layer_name}.scales"] = quantize(weight, layer.bits)
        return quantized


@register_quantizer(METHOD)
class PackedQuantizer(HfQuantizer):
    """Loads float or packed checkpoints into `quantized_layers` on CPUs; packed ones as floats elsewhere."""

    def is_serializable(self) -> bool:
        return True

    @property
    def is_trainable(self) -> bool:
        return False

    def update_device_map(self, device_map):
        devices = device_map.values() if isinstance(device_map, dict) else [device_map]
        if any(device is not None and torch.device(device).type != "cpu" for device in devices):
            self.quantization_config.dequantize = True
        return device_map

    def param_needs_quantization(self, model, param_name, **kwargs) -> bool:
        layer_name, _, leaf = param_name.rpartition(".")
        return leaf == "weight" and isinstance(model.get_submodule(layer_name), LAYERS)

    def get_quantize_ops(self):
        return QuantizeWeights()

    def _process_model_before_weight_loading(self, model, **kwargs):
        tied = model.all_tied_weights_keys
        embedding = model.get_input_embeddings()
        with torch.device("meta"):
            for name, module in list(model.named_modules()):
                source = tied.get(f"{name}.weight", name)
                bits = self.quantization_config.bits(source.removesuffix(".weight"))
                if bits and module is embedding:
                    model.set_submodule(name, QuantizedEmbedding(*module.weight.shape, bits, module.weight.dtype))
                elif bits and type(module) is nn.Linear:
                    layer = QuantizedLinear(*module.weight.shape, bits, module.bias is not None, module.weight.dtype)
                    model.set_submodule(name, layer)
                    if source != name:
                        scales = {f"{name}.scales": source.replace("weight", "scales")}
                        model._tied_weights_keys = model._tied_weights_keys | scales
                        tied |= scales

    def _process_model_after_weight_loading(self, model, **kwargs):
        config = self.quantization_config
        layers = {name: module for name, module in model.named_modules() if isinstance(module, LAYERS)}
        layers = {name: layer for name, layer in layers.items() if not layer.weight.is_floating_point()}  # misfits
        is_small = sum(layer.shape.numel() for layer in layers.values()) < _SMALL
        for name, layer in layers.items():
            # The encoder always has hundreds of rows to multiply, where floats are faster: its bits save disk only.
            if config.dequantize or "audio_tower" in name:
                model.set_submodule(name, layer.to_float(model.dtype))
            elif isinstance(layer, QuantizedLinear):
                layer.prepare(model.dtype if is_small else None)
        if config.dequantize:
            model._tied_weights_keys = type(model)._tied_weights_keys
            model.tie_weights()
        config.parts.pop("audio_tower", None)


def quantize_for_release(model: nn.Module, folder: str | Path, parts: dict[str, int] = RELEASED_PARTS) -> None:
    """Save a float model with some parts quantized, in files small enough for any host; `model` stays as it is.

    Args:
        model: `QwenAudioForConditionalGeneration` with float weights, as trained.
        folder: where configuration and weights go; any `from_pretrained` of this package loads them.
        parts: bits by part, see `PackedConfig`; the rest is saved in bfloat16.
    """
    config = PackedConfig(parts)
    with torch.device("meta"):
        shell = type(model)(copy.deepcopy(model.config)).to(torch.bfloat16)
    shell.config.quantization_config = config
    shell.generation_config = model.generation_config
    state = {}
    for name, tensor in model.state_dict().items():
        layer_name, _, leaf = name.rpartition(".")
        layer, bits = model.get_submodule(layer_name), config.bits(layer_name)
        if name in model.all_tied_weights_keys:
            continue
        if bits and leaf == "weight" and (type(layer) is nn.Linear or layer is model.get_input_embeddings()):
            state[name], state[f"{layer_name}.scales"] = quantize(tensor, bits)
        else:
            state[name] = tensor.to(torch.bfloat16)
    shell.save_pretrained(folder, state_dict=state, max_shard_size=_SHARD)


def precision_name(model: nn.Module) -> str:
    """How the weights are held, for people: "bfloat16", "4-bit NF4", "packed 4-bit" ..."""
    config = getattr(model.config, "quantization_config", None)
    if config is None:
        return str(model.dtype).removeprefix("torch.")
    if isinstance(config, PackedConfig):
        return f"packed {config.parts[BODY]}-bit" if BODY in config.parts else "packed 8-bit"
    return "4-bit NF4" if config.load_in_4bit else "8-bit"
