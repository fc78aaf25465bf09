"""Adapters that were trained on 4-bit weights, merged into the weights as they were: a folder that loads as any model.

    python -m qwen_audio_chat.training.merge --model Qwen/Qwen-Audio-Chat --adapter runs/mine/adapter \\
        --output runs/mine/final

The model is held in bfloat16 meanwhile, on the CPU.
"""

import argparse
import sys
from pathlib import Path

from peft import PeftModel
from transformers import AutoProcessor

from ..commands.arguments import run_command
from .run import load_model


def merge(source: str | Path, adapter: str | Path, output: Path) -> None:
    """Write the model of `source` with an adapter's changes."""
    model = PeftModel.from_pretrained(load_model(str(source), "lora"), adapter).merge_and_unload()
    model.save_plain(output, AutoProcessor.from_pretrained(source))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="folder or hub id of the model that the adapter was trained on")
    parser.add_argument("--adapter", required=True, help="folder of the adapter")
    parser.add_argument("--output", type=Path, required=True, help="folder of the merged model")
    arguments = parser.parse_args()
    merge(arguments.model, arguments.adapter, arguments.output)


if __name__ == "__main__":
    sys.exit(run_command(main))
