"""Run one stage of training, or fine-tune a model.

Modules that need PyTorch are imported where they are used, so that a help text or a wrong argument doesn't wait for it.
"""

import argparse
import logging
from pathlib import Path
from typing import get_args

from ..training.settings import Method, OnError, StageName, TrainSettings
from .arguments import number


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`train --model pocket --train mine.jsonl --dev held_out.jsonl --output runs/mine`,
    `train --model Qwen/Qwen-Audio-Chat --method qlora --train mine.jsonl --output runs/mine`
    """
    defaults = TrainSettings
    count, share, amount = number(int, 1), number(float, 0, 1), number(float, 0)

    def add(name: str, **options) -> None:
        parser.add_argument(name, **options)

    add("--model", required=True, help='folder or hub id of the model to start from; "pocket" is the shipped one')
    add("--train", type=Path, nargs="+", required=True, help="files of data lines (JSONL) to learn from")
    add("--dev", type=Path, nargs="*", default=[], help="files to measure on: lines of split dev or of none")
    add("--output", type=Path, required=True, help="folder for checkpoints, logs and the result")
    add(
        "--stage",
        choices=get_args(StageName),
        default=defaults.stage,
        help="what is trained (default: %(default)s)",
    )
    add(
        "--method",
        choices=get_args(Method),
        default=defaults.method,
        help="how the language model is trained: all weights, or adapters on 16 or 4 bits (default: %(default)s)",
    )
    add("--lora-rank", type=count, default=defaults.lora_rank, help="rank of the adapters (default: %(default)s)")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--steps", type=count, default=None, help="optimizer steps, instead of --epochs")
    length.add_argument(
        "--epochs",
        type=number(float, 0.001),
        default=defaults.epochs,
        help="passes over the data (default: %(default)s)",
    )
    length.add_argument(
        "--minutes",
        type=number(float, 0.001),
        default=None,
        help="length of the training, instead of --epochs; the learning rate falls in time",
    )
    add(
        "--learning-rate",
        type=amount,
        default=defaults.learning_rate,
        help="factor on the stage's own learning rates (default: 1)",
    )
    add(
        "--warmup",
        type=number(int, 0),
        default=defaults.warmup,
        help="steps of rising learning rate, at most a tenth of all (default: %(default)s)",
    )
    add(
        "--decay",
        type=share,
        default=defaults.decay,
        help="last share of the steps or minutes, in which the learning rate falls to 0 (default: %(default)s)",
    )
    add(
        "--batch-tokens",
        type=count,
        default=defaults.batch_tokens,
        help="padded tokens in a batch; a second of audio has 25 (default: %(default)s)",
    )
    add("--accumulate", type=count, default=defaults.accumulate, help="batches in one step (default: %(default)s)")
    add("--alignment", type=amount, default=None, help="weight of the CTC loss beside the language model's")
    add(
        "--corruption",
        type=share,
        default=defaults.corruption,
        help="highest share of random tokens in the history of the answers (default: 0)",
    )
    add("--augment", action="store_true", help="change the sound at random: rooms, noise, telephones, levels")
    add(
        "--on-error",
        choices=get_args(OnError),
        default=defaults.on_error,
        help="bad data lines: refuse to start, or leave them out (default: %(default)s)",
    )
    add(
        "--no-check",
        dest="check_audio",
        action="store_false",
        help="don't decode every audio file before the start",
    )
    add(
        "--eval-every",
        type=count,
        default=defaults.eval_every,
        help="steps between measurements (default: %(default)s)",
    )
    add(
        "--save-every", type=count, default=defaults.save_every, help="steps between checkpoints (default: %(default)s)"
    )
    add("--log-every", type=count, default=defaults.log_every, help="steps between log lines (default: %(default)s)")
    add("--keep", type=count, default=defaults.keep, help="checkpoints kept (default: %(default)s)")
    add(
        "--workers",
        type=number(int, 0),
        default=defaults.workers,
        help="processes that prepare data (default: %(default)s)",
    )
    add("--seed", type=int, default=defaults.seed, help="of everything random (default: %(default)s)")
    add("--compile", action="store_true", help="compile the layers: faster on a GPU, after a start of a minute or two")
    add("--full-precision", action="store_true", help="compute in float32 even where bfloat16 is faster")
    add("--gradient-checkpointing", action="store_true", help="recompute activations: less memory, a third slower")
    parser.set_defaults(run=run)


def settings_from(args: argparse.Namespace) -> TrainSettings:
    """The settings that the arguments describe."""
    return TrainSettings(**{name: value for name, value in vars(args).items() if name != "run"})


def run(args: argparse.Namespace) -> None:
    """Train one stage and print where the result is."""
    from ..training.run import train  # needs PyTorch

    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    print(f"The trained model is in {train(settings_from(args))}.")
