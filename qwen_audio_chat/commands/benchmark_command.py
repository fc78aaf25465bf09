"""Measure how fast a model answers on this machine.

A table for people goes to standard error; the last line of standard output is one JSON object.
"""

import argparse
import importlib.util
import json
import platform
import sys
import time
from pathlib import Path
from typing import Any

import torch

from ..benchmark import measures, peers
from ..chat import AudioChat
from ..errors import UserError
from ..files import atomic_write
from ..loading import add_model_arguments, load_from

CONTEXT_TOKENS = (100, 500, 1000, 2000, 3000, 4000)
VISITORS = (1, 2, 4, 8)
CLIP_SECONDS = (5, 10, 20, 30)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`benchmark --repeats 5 --peers --output figures/`."""
    add_model_arguments(parser)
    parser.add_argument(
        "--repeats",
        type=int,
        default=5,
        help="how often each time is measured; the median counts (default: %(default)s)",
    )
    parser.add_argument("--threads", type=int, help="CPU threads (default: PyTorch's)")
    parser.add_argument("--output", type=Path, help="folder for the figures and a plot of time per token by context")
    parser.add_argument("--peers", action="store_true", help="measure the other libraries that are installed, too")
    parser.add_argument("--quick", action="store_true", help="short clips, contexts and answers: does it run at all?")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Load the model, measure it and print the figures."""
    if args.repeats < 1:
        raise UserError("--repeats must be at least 1.")
    if args.threads:
        torch.set_num_threads(args.threads)
    start = time.perf_counter()
    chat = load_from(args)
    figures: dict[str, Any] = {"load_s": time.perf_counter() - start}
    chat.warm_up()
    figures |= measure(chat, 1 if args.quick else args.repeats, args.quick)
    if args.peers:
        figures["peers"] = peers.measure(chat, figures)
    figures = _rounded(figures)
    for name, value in figures.items():
        print(f"{name:<26} {_readable(value)}", file=sys.stderr)
    if args.output:
        try:
            atomic_write(args.output / "benchmark.json", json.dumps(figures, indent=1) + "\n")
        except OSError as error:
            raise UserError(
                "{folder} can't be written: {reason}.", folder=args.output, reason=error.strerror
            ) from error
        plot(figures["ms_per_token_by_context"], args.output / "ms_per_token.png")
    print(json.dumps(figures))
    return 0


def measure(chat: AudioChat, repeats: int, quick: bool = False) -> dict[str, Any]:
    """All figures of a loaded model, by name. The names give the units of times; shares are from 0 to 1."""
    contexts = [n for n in (CONTEXT_TOKENS[:2] if quick else CONTEXT_TOKENS) if n < chat.info.context_limit]
    tokens = 4 if quick else 32
    figures = {
        "model": chat.info.name,
        "precision": chat.info.precision,
        "device": chat.info.device,
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "repeats": repeats,
    }
    figures |= measures.times_to_first_token(chat, repeats, clip_s=2.0 if quick else 20.0, new_tokens=tokens // 2)
    encoder = {
        clip: measures.encoder_seconds(chat, clip, repeats) for clip in (CLIP_SECONDS[:1] if quick else CLIP_SECONDS)
    }
    figures["encoder_s_by_clip_s"] = {length: seconds for length, (seconds, _) in encoder.items()}
    length, (seconds, gflop) = list(encoder.items())[-1]
    figures["encoder_s_per_audio_s"] = seconds / length
    figures["matmul_gflop_per_s"] = measures.matmul_gflop_per_s(chat.model.dtype, chat.model.device)
    figures["encoder_share_of_matmul"] = gflop / seconds / figures["matmul_gflop_per_s"]

    figures["ms_per_token_by_context"] = by_context = {
        context: measures.ms_per_token(chat, context, repeats * tokens) for context in contexts
    }
    figures["ms_per_token"] = by_context[contexts[0]]
    figures["gb_per_token"] = measures.gb_per_token(chat)
    if chat.model.device.type == "cpu":
        figures["read_gb_per_s"] = measures.read_gb_per_s(64 if quick else 512)
        limit_ms = 1000 * figures["gb_per_token"] / figures["read_gb_per_s"]
        figures["share_of_bandwidth"] = limit_ms / figures["ms_per_token"]
    else:  # the host's memory says nothing about a GPU's
        figures["read_gb_per_s"] = figures["share_of_bandwidth"] = None
    visitors = VISITORS[:2] if quick else VISITORS
    figures["tokens_per_s_by_visitors"] = {n: measures.tokens_per_s(chat, n, tokens // 2) for n in visitors}
    figures["peak_rss_mib"] = measures.peak_rss_mib()
    return figures


def _rounded(value: Any) -> Any:
    """Figures with four significant digits."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _readable(value: Any) -> str:
    if isinstance(value, dict):
        return "  ".join(f"{key}: {_readable(item)}" for key, item in value.items())
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def plot(by_context: dict[int, float], path: Path) -> None:
    """Plot the time per token against the context, as PNG; without matplotlib, print what to install."""
    if importlib.util.find_spec("matplotlib") is None:
        print("No plot: pip install matplotlib", file=sys.stderr)
        return
    from matplotlib.figure import Figure  # optional

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(list(by_context), list(by_context.values()), marker="o")
    axes.set(xlabel="context (tokens)", ylabel="time per token (ms)", ylim=(0, None))
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
