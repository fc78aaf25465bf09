"""Give a trained language model back what it forgot: weights between its own and those it started from.

Fine-tuning moves far for what it has few examples of, and forgets; a point on the line between both models keeps most
of either (Wortsman et al., "Robust fine-tuning of zero-shot models", arXiv 2109.01903).

    python -m qwen_audio_chat.pocket.restore --model build/pocket/joint/final \\
        --original build/pocket/initial --share 0.5 --output build/pocket/joint-restored
"""

import argparse
import sys
from pathlib import Path

import torch
from transformers import AutoProcessor

from ..commands.arguments import number, run_command
from ..training.alignment import load_head
from ..training.run import load_model


def restore(source: str | Path, original: str | Path, share: float, output: Path) -> None:
    """Write the model of `source` with its language model moved towards that of `original`.

    The embeddings stay: text's were frozen, and the tags' have no original.

    Args:
        share: how far, from 0 (as trained) to 1 (as it was).
        output: folder, for the model with its alignment head (if it has one) and processor.
    """
    model, before = load_model(str(source), "full"), dict(load_model(str(original), "full").named_parameters())
    table = model.get_input_embeddings().weight
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "language_model." in name and parameter is not table:
                parameter.lerp_(before[name], share)
    model.alignment_head = load_head(source)
    model.save_plain(output, AutoProcessor.from_pretrained(source), max_shard_size="45MB")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="folder of the trained model")
    parser.add_argument("--original", required=True, help="folder of the model that the training began with")
    parser.add_argument("--share", type=number(float, 0, 1), required=True, help="of the original in the result")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    restore(arguments.model, arguments.original, arguments.share, arguments.output)


if __name__ == "__main__":
    sys.exit(run_command(main))
