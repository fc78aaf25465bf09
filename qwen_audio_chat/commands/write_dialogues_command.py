"""Let a language model behind an OpenAI-compatible endpoint write dialogues about labelled clips."""

import argparse
import logging
from pathlib import Path

from ..errors import UserError
from .arguments import number


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`write-dialogues --manifest clips.jsonl --output written.jsonl --base-url http://localhost:8000/v1 --model M`"""
    parser.add_argument("--manifest", type=Path, nargs="+", required=True, help="labelled clips (JSONL)")
    parser.add_argument("--output", type=Path, required=True, help="manifest of dialogues to write or to continue")
    parser.add_argument("--base-url", required=True, help="of the endpoint, such as http://localhost:8000/v1")
    parser.add_argument("--model", required=True, help="the language model's name there")
    parser.add_argument("--count", type=number(int, 1), default=3, help="questions about each clip (default: 3)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Write about all clips that are left; called again, it continues with those.

    Raises:
        UserError: what is wrong with the arguments, the data or the endpoint.
    """
    try:
        from ..training.written_dialogues import write_all  # optional: needs openai
    except ModuleNotFoundError as error:
        raise UserError("Writing dialogues needs one more package: pip install {name}.", name=error.name) from error
    logging.basicConfig(format="%(levelname)s %(message)s")
    print(write_all(args.manifest, args.output, args.base_url, args.model, args.count))
