"""Run a stage of training, or fine-tune a model."""

import argparse

from ..training import run as training


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`train --model pocket --train mine.jsonl --dev held_out.jsonl --output runs/mine`."""
    training.add_arguments(parser)


run = training.run
