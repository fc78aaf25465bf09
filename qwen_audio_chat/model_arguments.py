"""The arguments of every command that loads a model."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .pipeline import AudioChat


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Which model, from where, on what: the same for every command that loads one."""
    parser.add_argument("--model", help="hub id or folder (default: Qwen-Audio-Chat with a GPU, else the pocket)")
    parser.add_argument("--device", default="auto", choices=["auto", "cuda", "mps", "cpu"])
    parser.add_argument("--quantization", default="auto", choices=["auto", "none", "int8", "int4"])
    parser.add_argument("--hub", default="huggingface", choices=["huggingface", "modelscope"])
    parser.add_argument("--offline", action="store_true", help="never reach for a network")


def load_from(args: argparse.Namespace) -> "AudioChat":
    """The `AudioChat` that `add_model_arguments` describes."""
    from .pipeline import load

    return load(args.model, device=args.device, quantization=args.quantization, hub=args.hub, offline=args.offline)
