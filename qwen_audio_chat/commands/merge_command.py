"""Merge adapters that were trained on 4-bit weights into the weights of their model."""

import argparse
from pathlib import Path

from ..resources import resolve_model_name


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`merge --model Qwen/Qwen-Audio-Chat --adapter runs/mine/adapter --output runs/mine/final`"""
    parser.add_argument("--model", required=True, help="folder or hub id of the model that the adapter was trained on")
    parser.add_argument("--adapter", type=Path, required=True, help="folder of the adapter")
    parser.add_argument("--output", type=Path, required=True, help="folder of the merged model")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Write the merged model, which loads like any other."""
    from ..training.weights import merge_adapter  # needs PyTorch, for which a help text shouldn't wait

    merge_adapter(resolve_model_name(args.model), args.adapter, args.output)
    print(f"The merged model is in {args.output}.")
