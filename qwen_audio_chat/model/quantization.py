"""Quantization while loading: which method serves which device, and our own method for CPUs.

bitsandbytes (NF4, LLM.int8) serves CUDA. On CPUs, and in the files of the pocket model, weights have the plain formats
of `quantized_layers`, loaded by a transformers quantizer defined here. At the shapes of the 8.4 B model they are faster
than bitsandbytes' formats for CPUs, above all for prompts.
"""

import copy
import importlib.util
import logging
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import BitsAndBytesConfig, PreTrainedConfig, PreTrainedModel
from transformers.core_model_loading import ConversionOps
from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from ..errors import UserError
from .quantized_layers import QuantizedEmbedding, QuantizedLinear, quantize

PACKED_METHOD = "packed"  # the name of our method in the configuration of a checkpoint
QUANTIZED_LAYERS = (QuantizedLinear, QuantizedEmbedding)
DECODER_LAYERS = "language_model.layers"
# These modules of the 8.4 B model keep float weights: they are a tenth of all weights, and hearing depends on them.
FLOAT_MODULES = [r"(model\.)?audio_tower", r"(model\.)?projector", "lm_head", "ctc_head"]
# With 4 bits in the decoder the trained pocket no longer transcribes, though its parent was stored in 4 bits.
POCKET_BITS = {"audio_tower": 8, "embed_tokens": 8, DECODER_LAYERS: 8}
_RELEASE_SHARD_SIZE = "45MB"
_MAX_WEIGHTS_WITH_FLOAT_COPY = 500_000_000  # up to this many quantized weights, a float copy is kept for prompts


def quantization_config(precision: str, device: str) -> QuantizationConfigMixin | None:
    """What `from_pretrained` takes to load a float checkpoint at "none", "int8" or "int4" on a type of device.

    Raises:
        UserError: no method quantizes on that device.
    """
    if precision == "none":
        return None
    if device not in ("cuda", "cpu"):
        raise UserError(
            'Quantization isn\'t available on {device}: use quantization="none", or device="cpu".', device=device
        )
    if device == "cpu":
        return PackedConfig({DECODER_LAYERS: 8 if precision == "int8" else 4})
    if not import_bitsandbytes():
        raise UserError("Quantization on a GPU needs bitsandbytes: pip install bitsandbytes.")
    return bitsandbytes_config(precision)


def bitsandbytes_config(precision: str) -> BitsAndBytesConfig:
    """LLM.int8 for "int8", NF4 for "int4"."""
    return BitsAndBytesConfig(
        load_in_8bit=precision == "int8",
        load_in_4bit=precision == "int4",
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.bfloat16,
        llm_int8_skip_modules=FLOAT_MODULES,
    )


def import_bitsandbytes() -> bool:
    """Import bitsandbytes without downloads or warnings, if it is installed.

    On CPUs with AVX512-BF16, bitsandbytes imports the package `kernels` to download native code from a hub, and warns
    where that package is missing. Its own compiled kernels are all we use, so that import is made to fail here. Call
    this before anything else imports bitsandbytes, as transformers' Trainer and PEFT do.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        return False
    if "bitsandbytes" not in sys.modules:
        logger = logging.getLogger("bitsandbytes.backends.cpu.ops")
        level, kernels = logger.level, sys.modules.get("kernels")
        logger.setLevel(logging.ERROR)
        sys.modules["kernels"] = None  # pyright: ignore[reportArgumentType]  None makes `import kernels` fail
        try:
            import bitsandbytes  # noqa: F401  heavy and optional
        finally:
            logger.setLevel(level)
            sys.modules.pop("kernels")
            if kernels is not None:
                sys.modules["kernels"] = kernels
    return True


def restore_nf4(model: nn.Module) -> None:
    """Convert bitsandbytes' 4-bit layers back from its layout for CPUs, so that they can be saved.

    bitsandbytes 0.50 converts them itself when it saves, but leaves the scales in the order of the CPU layout, which
    damages both the file and the model.
    """
    for layer in model.modules():
        weight: Any = getattr(layer, "weight", None)
        state = getattr(weight, "quant_state", None)
        if state is not None and getattr(state, "packing_format_for_cpu", False):
            from bitsandbytes.functional import _convert_weight_packed_for_cpu_inverse  # heavy and optional

            scales = state.absmax  # [columns / block, rows], bfloat16
            weight.data, weight.quant_state = _convert_weight_packed_for_cpu_inverse(weight.data, state)
            weight.quant_state.absmax = scales.T.float().flatten()


class PackedConfig(QuantizationConfigMixin):
    """How many bits the weights of each part of the model have. Its attributes are stored in config.json.

    Args:
        parts: bits (8 or 4) by part of a module's name, such as {"language_model.layers": 4, "embed_tokens": 8}.
        dequantize: turn all weights back into floats while loading.
    """

    def __init__(self, parts: dict[str, int], dequantize: bool = False, **kwargs):
        self.quant_method: Any = PACKED_METHOD
        self.parts = dict(parts)
        self.dequantize = dequantize

    def bits(self, name: str) -> int | None:
        """Bits of the module with this name, or None where it isn't quantized."""
        return next((bits for part, bits in self.parts.items() if f".{part}." in f".{name}."), None)


register_quantization_config(PACKED_METHOD)(PackedConfig)  # not as a decorator, which hides the class's type


def unpack_while_loading(config: PreTrainedConfig) -> bool:
    """Make `from_pretrained` load packed weights as floats; False where `config` isn't of a packed checkpoint."""
    stored = getattr(config, "quantization_config", None) or {}
    if stored.get("quant_method") != PACKED_METHOD:
        return False
    stored["dequantize"] = True
    return True


class QuantizeWeights(ConversionOps):
    """Quantizes every weight that a conversion produces: q, k and v of a split `c_attn`, not only the first."""

    def convert(self, input_dict: dict[str, Any], model: Any = None, **kwargs) -> dict[str, torch.Tensor]:
        quantized = {}
        for name, weight in input_dict.items():
            weight = weight[0] if isinstance(weight, list) else weight
            layer_name = name.removesuffix(".weight")
            layer = model.get_submodule(layer_name)
            if weight.shape != layer.shape:
                quantized[name] = weight  # `from_pretrained` refuses it with a clear sentence, which is lost from here
            else:
                quantized[name], quantized[f"{layer_name}.scales"] = quantize(weight, layer.bits)
        return quantized


@register_quantizer(PACKED_METHOD)
class PackedQuantizer(HfQuantizer):
    """Loads float or packed checkpoints into `quantized_layers` on CPUs; packed ones as floats elsewhere."""

    quantization_config: PackedConfig

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
        return leaf == "weight" and isinstance(model.get_submodule(layer_name), QUANTIZED_LAYERS)

    def get_quantize_ops(self) -> QuantizeWeights:
        return QuantizeWeights()

    def _process_model_before_weight_loading(self, model, **kwargs):
        tied = model.all_tied_weights_keys
        embedding = model.get_input_embeddings()
        with torch.device("meta"):
            for name, module in list(model.named_modules()):
                source = tied.get(f"{name}.weight", name)
                bits = self.quantization_config.bits(source.removesuffix(".weight"))
                if bits and module is embedding:
                    rows, columns = module.weight.shape
                    model.set_submodule(name, QuantizedEmbedding(rows, columns, bits, module.weight.dtype))
                elif bits and type(module) is nn.Linear:
                    has_bias, dtype = module.bias is not None, module.weight.dtype
                    layer = QuantizedLinear(module.out_features, module.in_features, bits, has_bias, dtype)
                    model.set_submodule(name, layer)
                    if source != name:
                        scales = {f"{name}.scales": source.replace("weight", "scales")}
                        model._tied_weights_keys = model._tied_weights_keys | scales
                        tied |= scales

    def _process_model_after_weight_loading(self, model, **kwargs):
        config = self.quantization_config
        layers = {name: module for name, module in model.named_modules() if isinstance(module, QUANTIZED_LAYERS)}
        # A weight of the wrong shape was left as floats, see `QuantizeWeights`.
        layers = {name: layer for name, layer in layers.items() if not layer.weight.is_floating_point()}
        keeps_copy = sum(layer.shape.numel() for layer in layers.values()) < _MAX_WEIGHTS_WITH_FLOAT_COPY
        for name, layer in layers.items():
            # The encoder always has hundreds of rows to multiply, where floats are faster: its bits only save disk.
            if config.dequantize or "audio_tower" in name:
                model.set_submodule(name, layer.to_float(model.dtype))
            elif isinstance(layer, QuantizedLinear):
                layer.prepare(model.dtype if keeps_copy else None)
        if config.dequantize:
            model._tied_weights_keys = type(model)._tied_weights_keys
            model.tie_weights()
        config.parts.pop("audio_tower", None)


def quantize_for_release(model: PreTrainedModel, folder: str | Path, parts: dict[str, int] = POCKET_BITS) -> None:
    """Save a float model with some parts quantized, in files small enough for any host; `model` stays unchanged.

    Args:
        model: `QwenAudioForConditionalGeneration` with float weights, as trained.
        folder: where configuration and weights go; `from_pretrained` of this package loads them.
        parts: bits by part, see `PackedConfig`; the rest is saved in bfloat16.
    """
    config = PackedConfig(parts)
    with torch.device("meta"):
        shell = type(model)(copy.deepcopy(model.config)).bfloat16()
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
    shell.save_pretrained(folder, state_dict=state, max_shard_size=_RELEASE_SHARD_SIZE)


def precision_name(model: PreTrainedModel) -> str:
    """How the weights are stored, for people: "bfloat16", "4-bit NF4", "packed 4-bit" ..."""
    config = getattr(model.config, "quantization_config", None)
    if config is None:
        return str(model.dtype).removeprefix("torch.")
    if isinstance(config, PackedConfig):
        return f"packed {config.parts.get(DECODER_LAYERS, 8)}-bit"
    return "4-bit NF4" if config.load_in_4bit else "8-bit"
