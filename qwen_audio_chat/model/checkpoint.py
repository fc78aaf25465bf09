"""From a name or folder to a model ready to answer: hubs, checks of the files, device, precision.

Only safetensors files are read, and no code of a repository is downloaded or run.
"""

import json
import logging
import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from transformers.utils.quantization_config import QuantizationConfigMixin

from ..errors import UserError
from ..prompts.tokenizer import AUDIO_END, AUDIO_PLACEHOLDER, AUDIO_START
from .configuration import QwenAudioConfig
from .modeling import QwenAudioForConditionalGeneration
from .official import LICENCE
from .processing import QwenAudioProcessor
from .quantization import quantization_config, unpack_while_loading

INDEX_FILE, WEIGHTS_FILE = "model.safetensors.index.json", "model.safetensors"
_PICKLE_PATTERNS = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_DOWNLOAD_PATTERNS = ["*.json", "*.safetensors", "*.tiktoken", "LICENSE*", "NOTICE*"]
_MIN_BYTES_FOR_INT4 = 4_000_000_000  # larger weights get 4 bits on a CPU, where memory bandwidth limits decoding

logger = logging.getLogger(__name__)
_licence_shown = False


class CheckpointError(UserError):
    """What is wrong with a model's name or files, and what to do about it."""


def load_model(
    name_or_path: str | Path,
    *,
    device: str = "auto",
    quantization: str = "auto",
    hub: str = "huggingface",
    offline: bool = False,
    revision: str | None = None,
) -> tuple[QwenAudioForConditionalGeneration, QwenAudioProcessor]:
    """Load a model and its processor, from the official layout or ours.

    Args:
        name_or_path: a folder, or a name on the hub such as "Qwen/Qwen-Audio-Chat".
        device: "auto" (CUDA, else MPS, else the CPU), "cuda", "mps" or "cpu". On "auto" several GPUs share the model.
        quantization: "none", "int8", "int4", or "auto": as stored, else 4 bits where memory or a CPU calls for it.
        hub: "huggingface" or "modelscope".
        offline: use only files that are already on this machine.
        revision: branch, tag or commit on the hub.

    Returns:
        The model in evaluation mode, and the processor.

    Raises:
        CheckpointError: the model isn't there, or its files are damaged, incomplete or of another model.
    """
    if quantization not in ("auto", "none", "int8", "int4"):
        raise CheckpointError(
            'quantization must be "auto", "none", "int8" or "int4", not {value!r}.', value=quantization
        )
    device = choose_device(device)
    folder = fetch(name_or_path, hub=hub, offline=offline, revision=revision)
    size = check_files(folder)
    try:
        config = QwenAudioConfig.from_pretrained(folder)
        processor = QwenAudioProcessor.from_pretrained(folder)
        _check_ids(config, processor)
        _show_licence(config)
        model = QwenAudioForConditionalGeneration.from_pretrained(
            folder,
            config=config,
            dtype=choose_dtype(device),
            device_map="auto" if device == "cuda" and torch.cuda.device_count() > 1 else {"": device},
            quantization_config=_choose_quantization(config, quantization, device, size),
        )
    except CheckpointError:
        raise
    except (ValueError, OSError, RuntimeError) as error:  # libraries raise all three for files that don't fit
        reason = error if isinstance(error, UserError) else str(error).strip().splitlines()[0]
        raise CheckpointError("{model} can't be loaded: {reason}", model=name_or_path, reason=reason) from error
    return model.eval(), processor


def choose_device(device: str) -> str:
    """The device to use: "cuda", "mps" or "cpu".

    Raises:
        CheckpointError: the requested one isn't available.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        return next(name for name, is_available in available.items() if is_available)
    if not available.get(device.split(":")[0]):
        raise CheckpointError('There is no device {device!r} here: use device="auto" or "cpu".', device=device)
    return device


def has_fast_bfloat16() -> bool:
    """Whether this CPU has instructions that multiply bfloat16 (AVX512-BF16 or AMX)."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def choose_dtype(device: str) -> torch.dtype:
    """bfloat16 where the hardware multiplies it, else float16 on a GPU and float32 on a CPU."""
    if device == "cpu":
        return torch.bfloat16 if has_fast_bfloat16() else torch.float32
    if device.startswith("cuda") and not torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.float16
    return torch.bfloat16


def _choose_quantization(
    config: QwenAudioConfig, quantization: str, device: str, size: int
) -> QuantizationConfigMixin | None:
    """The argument for `from_pretrained`; files that are already quantized stay so, or are loaded as floats."""
    if getattr(config, "quantization_config", None) is not None:
        if not (quantization == "none" and unpack_while_loading(config)) and quantization != "auto":
            raise CheckpointError('This checkpoint is already quantized in its files: use quantization="auto".')
        return None
    if quantization == "auto":
        quantization = "none"
        if device == "cpu" and size > _MIN_BYTES_FOR_INT4:
            quantization = "int4"
        elif device.startswith("cuda"):
            free = sum(torch.cuda.mem_get_info(i)[0] for i in range(torch.cuda.device_count()))
            quantization = "none" if free > 1.3 * size else "int4"
    return quantization_config(quantization, device.split(":")[0])


def fetch(
    name_or_path: str | Path, *, hub: str = "huggingface", offline: bool = False, revision: str | None = None
) -> Path:
    """The folder that holds a model's files, downloaded unless it is on this machine.

    Raises:
        CheckpointError: it can't be found or downloaded.
    """
    name = os.fspath(name_or_path)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if folder.is_absolute() or name.startswith((".", "~")) or name.count("/") != 1:
        raise CheckpointError("There is no folder {name}, and a model on a hub is called owner/name.", name=name)
    if hub == "huggingface":
        from huggingface_hub import snapshot_download  # here, because a local folder needs no hub
    elif hub == "modelscope":
        try:
            from modelscope import snapshot_download  # here, because it is heavy and only this hub needs it
        except ImportError as error:
            raise CheckpointError("Models from ModelScope need its package: pip install modelscope.") from error
    else:
        raise CheckpointError('hub must be "huggingface" or "modelscope", not {hub!r}.', hub=hub)
    try:
        return Path(
            snapshot_download(name, revision=revision, local_files_only=offline, allow_patterns=_DOWNLOAD_PATTERNS)
        )
    except Exception as error:  # each hub has its own errors for names, networks and permissions
        cause = type(error).__name__
        if offline:
            raise CheckpointError(
                "{name} isn't on this machine: load it once with a connection, or give its folder ({cause}).",
                name=name,
                cause=cause,
            ) from error
        raise CheckpointError(
            "{name} can't be fetched from {hub}: check the name and the connection, or give a folder ({cause}).",
            name=name,
            hub=hub,
            cause=cause,
        ) from error


def check_files(folder: Path) -> int:
    """Check that a checkpoint's files are all there and complete; returns the bytes of its weights.

    Raises:
        CheckpointError: something is missing or truncated, or the weights aren't safetensors.
    """
    if not (folder / "config.json").is_file():
        raise CheckpointError("{folder} holds no model: it has no config.json.", folder=folder)
    if (folder / INDEX_FILE).is_file():
        try:
            shards = sorted(set(json.loads((folder / INDEX_FILE).read_text())["weight_map"].values()))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError("{file} is damaged: download it again.", file=folder / INDEX_FILE) from error
    elif (folder / WEIGHTS_FILE).is_file():
        shards = [WEIGHTS_FILE]
    elif any(any(folder.glob(pattern)) for pattern in _PICKLE_PATTERNS):
        raise CheckpointError(
            "{folder} holds its weights as pickles, which can run code when opened: use a safetensors checkpoint.",
            folder=folder,
        )
    else:
        raise CheckpointError(
            "{folder} holds no weights: it has no {weights} or {index}.",
            folder=folder,
            weights=WEIGHTS_FILE,
            index=INDEX_FILE,
        )
    for shard in shards:
        if not (folder / shard).is_file():
            raise CheckpointError("{folder} lacks {file}: download the checkpoint again.", folder=folder, file=shard)
    return sum(_shard_bytes(folder / shard) for shard in shards)


def _shard_bytes(path: Path) -> int:
    """Size of a safetensors file, once its header is found to agree with it."""
    try:
        with safe_open(path, "pt"):
            return path.stat().st_size
    except SafetensorError as error:
        raise CheckpointError("{file} is cut or damaged: download it again.", file=path) from error


def _check_ids(config: QwenAudioConfig, processor: QwenAudioProcessor) -> None:
    """Refuse a tokenizer whose audio ids aren't the model's: clips would be ignored without any sign of it."""
    expected = [config.audio_start_id, config.audio_end_id, config.audio_token_id]
    found = processor.tokenizer.convert_tokens_to_ids([AUDIO_START, AUDIO_END, AUDIO_PLACEHOLDER])
    if expected != found:
        raise CheckpointError(
            "The configuration marks audio with the ids {expected}, but the tokenizer has {found}: "
            "the files belong to different models.",
            expected=expected,
            found=found,
        )


def _show_licence(config: QwenAudioConfig) -> None:
    """Log the licence of weights that descend from the released ones, once per process."""
    global _licence_shown
    if config.text_config.model_type == "qwen_audio_text" and not _licence_shown:
        logger.warning(LICENCE)
        _licence_shown = True
