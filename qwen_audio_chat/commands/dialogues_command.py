"""Make dialogues over one to four audios from labelled clips, by written templates."""

import argparse
from pathlib import Path

from ..errors import UserError
from .arguments import number


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`dialogues --manifest clips.jsonl --count 1000 --output dialogues.jsonl`"""
    parser.add_argument("--manifest", type=Path, nargs="+", required=True, help="labelled clips (JSONL)")
    parser.add_argument("--output", type=Path, required=True, help="manifest of dialogues to write")
    parser.add_argument("--count", type=number(int, 1), required=True, help="how many dialogues")
    parser.add_argument("--seed", type=number(int, 0), default=0, help="of everything random (default: 0)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Make dialogues.

    Raises:
        UserError: what is wrong with the arguments or the data.
    """
    from ..training.dialogues import dialogues, read_labelled, write_dialogues  # heavy, a help text shouldn't wait

    if args.output.exists():  # perhaps the manifest to read, or anything else that its owner wants to keep
        raise UserError("{output} is there already: delete it or choose another --output.", output=str(args.output))
    drawn = dialogues(read_labelled(args.manifest), args.count, args.seed)
    write_dialogues(drawn, args.output)
    print(f"{len(drawn)} dialogues: {args.output}")
