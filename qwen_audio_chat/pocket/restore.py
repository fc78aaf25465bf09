"""Restore what a trained language model forgot, by interpolating between its weights and the original ones.

Fine-tuning on few examples moves the weights far and forgets; a point on the line between both models keeps most of
what either can do (Wortsman et al., "Robust fine-tuning of zero-shot models", arXiv 2109.01903).

    python -m qwen_audio_chat.pocket restore --model build/pocket/joint/final \\
        --original build/pocket/initial --share 0.5 --output build/pocket/joint-restored
"""

import argparse
from pathlib import Path

import torch
from transformers import AutoProcessor

from ..commands.arguments import number
from ..training.alignment import load_head
from ..training.weights import load_model
from .steps import require_model


def restore(source: str | Path, original: str | Path, share: float, output: Path) -> None:
    """Write the model of `source` with its language model moved towards that of `original`.

    The embeddings stay: those of text are frozen in training, and those of the tags have no original.

    Args:
        share: of the original in the result, from 0 (as trained) to 1 (the original).
        output: folder for the model with its processor and, if it has one, its alignment head.

    Raises:
        UserError: `source` or `original` holds no model.
    """
    require_model(source)
    require_model(original)
    model = load_model(str(source), "full")
    original_parameters = dict(load_model(str(original), "full").named_parameters())
    embeddings = model.get_input_embeddings().weight
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "language_model." in name and parameter is not embeddings:
                parameter.lerp_(original_parameters[name], share)
    model.alignment_head = load_head(source)
    model.save_plain(output, AutoProcessor.from_pretrained(source), max_shard_size="45MB")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the step."""
    parser.add_argument("--model", required=True, help="folder of the trained model")
    parser.add_argument("--original", required=True, help="folder of the model that the training started from")
    parser.add_argument("--share", type=number(float, 0, 1), required=True, help="of the original in the result")
    parser.add_argument("--output", type=Path, required=True, help="folder of the new model")


def run(args: argparse.Namespace) -> None:
    """Run the step."""
    restore(args.model, args.original, args.share, args.output)
