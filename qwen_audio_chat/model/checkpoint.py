"""From a name or folder to a model ready to answer: hubs, checks of the files, device, precision.

Only safetensors are read, and no code of a repository is downloaded or run.
"""

import json
import logging
import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from ..prompts.tokenizer import AUDIO_END, AUDIO_PLACEHOLDER, AUDIO_START
from .configuration import QwenAudioConfig
from .modeling import QwenAudioForConditionalGeneration
from .official import LICENCE
from .processing import QwenAudioProcessor
from .quantization import precision_name, quantization_config, unpack_while_loading

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
WANTED = ["*.json", "*.safetensors", "*.tiktoken", "LICENSE*", "NOTICE*"]
_LARGE = 4_000_000_000  # bytes of weights from which a CPU reads 4 bits by default: decoding waits for the memory

logger = logging.getLogger(__name__)
_licence_shown = False


class CheckpointError(ValueError):
    """What is wrong with a model's name or files, and what to do, in one sentence for the user."""


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
        device: "auto" (CUDA, else MPS, else the CPU), "cuda", "mps" or "cpu". Several GPUs share the model on "auto".
        quantization: "none", "int8", "int4", or "auto": as stored, else 4 bits where the memory or a CPU asks for it.
        hub: "huggingface" or "modelscope".
        offline: take only what is on this machine.
        revision: branch, tag or commit on the hub.

    Returns:
        The model in evaluation mode, its `precision` named for display, and the processor.

    Raises:
        CheckpointError: the model isn't there, or its files are damaged, incomplete or of another model.
    """
    if quantization not in ("auto", "none", "int8", "int4"):
        raise CheckpointError(f'quantization must be "auto", "none", "int8" or "int4", not {quantization!r}.')
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
    except (ValueError, OSError, RuntimeError) as error:
        raise CheckpointError(f"{name_or_path} can't be loaded: {str(error).strip().splitlines()[0]}") from error
    model.precision = precision_name(model)
    return model.eval(), processor


def choose_device(device: str) -> str:
    """The device to use: "cuda", "mps" or "cpu".

    Raises:
        CheckpointError: the wanted one isn't there.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        return next(name for name, available in there.items() if available)
    if not there.get(device.split(":")[0]):
        raise CheckpointError(f'There is no device {device!r} here: use device="auto" or "cpu".')
    return device


def has_fast_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 by itself (AVX512-BF16 or AMX)."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def choose_dtype(device: str) -> torch.dtype:
    """bfloat16 where the hardware multiplies it, else float16 on a GPU and float32 on a CPU."""
    if device == "cpu":
        return torch.bfloat16 if has_fast_bfloat16() else torch.float32
    if device.startswith("cuda") and not torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.float16
    return torch.bfloat16


def _choose_quantization(config: QwenAudioConfig, wanted: str, device: str, size: int):
    """The argument for `from_pretrained`; a checkpoint that is quantized in its files stays so, or becomes floats."""
    if getattr(config, "quantization_config", None) is not None:
        if not (wanted == "none" and unpack_while_loading(config)) and wanted != "auto":
            raise CheckpointError('This checkpoint is already quantized in its files: use quantization="auto".')
        return None
    if wanted == "auto":
        wanted = "none"
        if device == "cpu" and size > _LARGE:
            wanted = "int4"
        elif device.startswith("cuda"):
            free = sum(torch.cuda.mem_get_info(i)[0] for i in range(torch.cuda.device_count()))
            wanted = "none" if free > 1.3 * size else "int4"
    return quantization_config(wanted, device.split(":")[0])


def fetch(
    name_or_path: str | Path, *, hub: str = "huggingface", offline: bool = False, revision: str | None = None
) -> Path:
    """The folder that holds a model's files, downloaded unless it is there.

    Raises:
        CheckpointError: it can't be found or downloaded.
    """
    name = os.fspath(name_or_path)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if folder.is_absolute() or name.startswith((".", "~")) or name.count("/") != 1:
        raise CheckpointError(f"There is no folder {name}, and a model on a hub is called owner/name.")
    if hub == "huggingface":
        from huggingface_hub import snapshot_download
    elif hub == "modelscope":
        try:
            from modelscope import snapshot_download
        except ImportError as error:
            raise CheckpointError("Models from ModelScope need its package: pip install modelscope.") from error
    else:
        raise CheckpointError(f'hub must be "huggingface" or "modelscope", not {hub!r}.')
    try:
        return Path(snapshot_download(name, revision=revision, local_files_only=offline, allow_patterns=WANTED))
    except Exception as error:  # each hub has its own errors, for names, networks, permissions
        if offline:
            advice = "isn't on this machine: load it once with a connection, or give its folder"
        else:
            advice = f"can't be fetched from {hub}: check the name and the connection, or give a folder"
        raise CheckpointError(f"{name} {advice} ({type(error).__name__}).") from error


def check_files(folder: Path) -> int:
    """Check that a checkpoint's files are all there and whole; returns the bytes of its weights.

    Raises:
        CheckpointError: something is missing or cut, or the weights aren't safetensors.
    """
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder} holds no model: it has no config.json.")
    if (folder / INDEX).is_file():
        try:
            shards = sorted(set(json.loads((folder / INDEX).read_text())["weight_map"].values()))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{folder / INDEX} is damaged: download it again.") from error
    elif (folder / SINGLE).is_file():
        shards = [SINGLE]
    elif any(any(folder.glob(pattern)) for pattern in PICKLES):
        raise CheckpointError(
            f"{folder} holds its weights as pickles, which can run code when opened: use a safetensors checkpoint."
        )
    else:
        raise CheckpointError(f"{folder} holds no weights: it has no {SINGLE} or {INDEX}.")
    for shard in shards:
        if not (folder / shard).is_file():
            raise CheckpointError(f"{folder} lacks {shard}: download the checkpoint again.")
    return sum(_check_shard(folder / shard) for shard in shards)


def _check_shard(path: Path) -> int:
    """Size of a safetensors file whose header agrees with it."""
    try:
        with safe_open(path, "pt"):
            return path.stat().st_size
    except SafetensorError as error:
        raise CheckpointError(f"{path} is cut or damaged: download it again.") from error


def _check_ids(config: QwenAudioConfig, processor: QwenAudioProcessor) -> None:
    """A clip whose marks the model doesn't know would be ignored without a word."""
    wanted = [config.audio_start_id, config.audio_end_id, config.audio_token_id]
    found = processor.tokenizer.convert_tokens_to_ids([AUDIO_START, AUDIO_END, AUDIO_PLACEHOLDER])
    if wanted != found:
        raise CheckpointError(
            f"The configuration marks audio with the ids {wanted}, but the tokenizer has {found}: "
            "the files belong to different models."
        )


def _show_licence(config: QwenAudioConfig) -> None:
    """Once per process, for weights that descend from the released ones."""
    global _licence_shown
    if config.text_config.model_type == "qwen_audio_text" and not _licence_shown:
        logger.warning(LICENCE)
        _licence_shown = True
