"""`load`: an `AudioChat` from a hub id or folder, and the arguments of every command that talks with one."""

import argparse
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from .resources import POCKET, resolve_model_name

if TYPE_CHECKING:
    from .chat import AudioChat

OFFICIAL = "Qwen/Qwen-Audio-Chat"


@lru_cache(maxsize=4)
def load(
    model: str | None = None,
    *,
    device: str = "auto",
    quantization: str = "auto",
    hub: str = "huggingface",
    offline: bool = False,
) -> "AudioChat":
    """Load a model once per process and setting.

    Args:
        model: hub id or folder, or "pocket" for the shipped model; None takes Qwen-Audio-Chat where there is a CUDA
            GPU, else the pocket model.
        device: "auto", "cuda", "mps" or "cpu".
        quantization: "auto", "none", "int8" or "int4".
        hub: "huggingface" or "modelscope".
        offline: never reach for a network.

    Raises:
        model.checkpoint.CheckpointError: one sentence on what is wrong with the model's files.
    """
    import torch  # lazily: `--help` must not wait for PyTorch

    from .chat import AudioChat
    from .model.checkpoint import load_model

    if model is None:
        model = OFFICIAL if device in ("auto", "cuda") and torch.cuda.is_available() else "pocket"
    model = resolve_model_name(model)
    is_pocket = Path(model).resolve() == POCKET
    loaded, processor = load_model(model, device=device, quantization=quantization, hub=hub, offline=offline)
    name = "Pocket" if is_pocket else model
    return AudioChat(loaded, processor, name=name, precision=loaded.precision, is_pocket=is_pocket)


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Which model, from where, on what: the same for every command that talks with one."""
    parser.add_argument(
        "--model",
        help="hub id, folder, or pocket (shipped); default: Qwen-Audio-Chat with a GPU, else pocket",
    )
    parser.add_argument(
        "--device", default="auto", choices=["auto", "cuda", "mps", "cpu"], help="where the model runs (default: auto)"
    )
    parser.add_argument(
        "--quantization",
        default="auto",
        choices=["auto", "none", "int8", "int4"],
        help="bits of the weights (default: auto, 4 bits where memory or a CPU asks for it)",
    )
    parser.add_argument(
        "--hub", default="huggingface", choices=["huggingface", "modelscope"], help="where hub ids are looked up"
    )
    parser.add_argument("--offline", action="store_true", help="never reach for a network")


def load_from(args: argparse.Namespace) -> "AudioChat":
    """The `AudioChat` that `add_model_arguments` describes."""
    return load(args.model, device=args.device, quantization=args.quantization, hub=args.hub, offline=args.offline)
