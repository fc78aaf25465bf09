"""Write the trained pocket as it is shipped: quantized, in files that any host takes.

    python -m qwen_audio_chat.pocket.release --model build/pocket/joint/final --output assets/pocket

The model card in the output folder is written by people and left alone.
"""

import argparse
import sys
from pathlib import Path

import torch
from transformers import AutoProcessor

from ..commands.arguments import run_command
from ..files import atomic_folder
from ..model import QwenAudioForConditionalGeneration
from ..model.quantization import quantize_for_release
from ..training.alignment import load_head, save_head


def release(source: str | Path, output: Path) -> None:
    """Replace the weights in `output` by those of the float model in `source`, and the processor with them.

    The alignment head goes along, so that training can go on from what was shipped.
    """
    model = QwenAudioForConditionalGeneration.from_pretrained(source, dtype=torch.float32)
    with atomic_folder(output) as partial:
        quantize_for_release(model, partial)
        AutoProcessor.from_pretrained(source).save_pretrained(partial)
        if head := load_head(source):
            save_head(head, partial)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="folder of the trained model")
    parser.add_argument("--output", type=Path, default=Path("assets/pocket"), help="default: %(default)s")
    arguments = parser.parse_args()
    release(arguments.model, arguments.output)


if __name__ == "__main__":
    sys.exit(run_command(main))
