"""Quantize a trained pocket for shipping, in files small enough for any host.

    python -m qwen_audio_chat.pocket release --model build/pocket/joint-kept/restored --output assets/pocket

The model card in the output folder is kept, because people write it.
"""

import argparse
from pathlib import Path

import torch
from transformers import AutoProcessor

from ..files import atomic_folder
from ..model import QwenAudioForConditionalGeneration
from ..model.quantization import quantize_for_release
from ..training.alignment import load_head, save_head
from .steps import require_model


def release(source: str | Path, output: Path) -> None:
    """Replace the weights and the processor in `output` by those of the float model in `source`.

    The alignment head is included, so that training can continue from the shipped model.

    Raises:
        UserError: `source` holds no model.
    """
    require_model(source)
    model = QwenAudioForConditionalGeneration.from_pretrained(source, dtype=torch.float32)
    with atomic_folder(output) as partial:
        quantize_for_release(model, partial)
        AutoProcessor.from_pretrained(source).save_pretrained(partial)
        if head := load_head(source):
            save_head(head, partial)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the step."""
    parser.add_argument("--model", required=True, help="folder of the trained model")
    parser.add_argument("--output", type=Path, default=Path("assets/pocket"), help="default: %(default)s")


def run(args: argparse.Namespace) -> None:
    """Run the step."""
    release(args.model, args.output)
