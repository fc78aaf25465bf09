"""Measure a model on a task of the paper.

What needs PyTorch is imported where it is used, so that a help text or a wrong argument doesn't wait for it.
"""

import argparse
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

from ..evaluation.data import LANGUAGE_TAGS, DataError, Sample, read_hub, read_jsonl
from ..evaluation.normalization import NORMALIZERS
from ..evaluation.predictions import RESULT, SETTINGS, Prediction, read_predictions
from ..evaluation.tasks import TASKS, Task
from ..loading import add_model_arguments, load_from
from .arguments import number

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`evaluate --task asr --data test.jsonl --output results/`."""
    parser.set_defaults(run=run)
    parser.description = (
        "Ask a model about evaluation data and score its answers. The last line of standard output is one JSON object "
        "with the metrics; predictions, summary and pictures go to the output folder. An interrupted run goes on where "
        "it stopped. Several processes: accelerate launch -m qwen_audio_chat evaluate ..."
    )
    names = "; ".join(f"{task.name}: {task.title.lower()}" for task in TASKS.values())
    add_model_arguments(parser)
    parser.add_argument("--task", required=True, metavar="TASK", help=names)
    parser.add_argument("--data", help="JSONL file, or a Hugging Face data set together with --split")
    parser.add_argument(
        "--audio-folder",
        type=Path,
        metavar="DIR",
        help="where audio paths start (default: the folder of the JSONL file)",
    )
    parser.add_argument("--output", required=True, type=Path, help="folder for predictions and results")
    count = number(int, 1)
    parser.add_argument("--batch-size", type=count, default=8, metavar="N", help="samples asked at once (default 8)")
    parser.add_argument(
        "--prompt",
        choices=("tags", "chat"),
        help="tag prompts as in the paper, or questions (default: tags if there are)",
    )
    parser.add_argument(
        "--language",
        choices=LANGUAGE_TAGS,
        default="en",
        help="of the speech, where the data don't tell (default en)",
    )
    parser.add_argument(
        "--normalization", choices=NORMALIZERS, help="of texts before scoring (default: what fits task and data)"
    )
    parser.add_argument("--limit", type=count, metavar="N", help="only the first N samples")
    parser.add_argument("--split", help="of the data (default for JSONL files: all but train)")
    parser.add_argument("--config", help="configuration of a Hugging Face data set")
    parser.add_argument("--text-column", default="text", help="column of references of a Hugging Face data set")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--predict-only", action="store_true", help="write predictions, score later")
    only.add_argument("--score-only", action="store_true", help="score the predictions that the output folder holds")


def run(args: argparse.Namespace) -> int:
    """Run the command and return the exit code.

    Raises:
        ValueError: one sentence on what is wrong with arguments, data or model.
    """
    if args.task not in TASKS:
        raise DataError(f'There is no task "{args.task}"; choose one of {", ".join(TASKS)}.')
    identity, predictions = _stored(args) if args.score_only else _predict(args)
    from ..evaluation.report import score, write_report
    from ..evaluation.runner import processes

    if args.predict_only or not processes().is_main_process:
        return 0
    sound = [prediction for prediction in predictions if not prediction.error]
    default = TASKS[args.task].default_normalization(sound, identity["official"])
    report = score(predictions, identity, args.normalization or default)
    write_report(report, args.output)
    print(f"Results: {args.output}", file=sys.stderr)
    print(json.dumps(report.result(), ensure_ascii=False), flush=True)
    return 0


def _predict(args: argparse.Namespace) -> tuple[dict[str, Any], list[Prediction]]:
    from ..evaluation.predictor import ModelPredictor
    from ..evaluation.runner import Runner

    task = TASKS[args.task]
    if not args.data:
        raise DataError("Which data? Give a JSONL file with --data.")
    if args.split and not os.path.isfile(args.data):
        samples = read_hub(args.data, args.split, config=args.config, text_column=args.text_column)
    else:
        samples = read_jsonl(args.data, args.audio_folder, args.split)
    samples = _fitting(task, samples, args.data)[: args.limit]
    prompt = args.prompt or ("chat" if task.tags is None else "tags")
    chat = load_from(args)
    predictor = ModelPredictor(chat)
    name = f"{args.model or chat.info.name} ({chat.info.precision}, weights {predictor.weights})"
    runner = Runner(
        task, samples, args.output, model=name, prompt=prompt, language=args.language,
        transcript_seconds=chat.transcript_seconds,
    )  # fmt: skip
    return runner.identity, runner.run(predictor, args.batch_size)


def _fitting(task: Task, samples: list[Sample], data: str) -> list[Sample]:
    """The samples that a task is for; a warning counts the others."""
    fitting = [sample for sample in samples if task.fits(sample)]
    if not fitting:
        raise DataError(f'{data} has nothing to measure for the task "{task.name}"; choose another --task or --split.')
    if left_out := len(samples) - len(fitting):
        message = '%s: left out %d of %d samples, which are for other tasks than "%s".'
        log.warning(message, data, left_out, len(samples), task.name)
    return fitting


def _stored(args: argparse.Namespace) -> tuple[dict[str, Any], list[Prediction]]:
    """The run that an output folder holds."""
    settings, result = args.output / SETTINGS, args.output / RESULT
    if not settings.exists() or not result.exists():
        raise DataError(f"{args.output} holds no finished predictions; run without --score-only first.")
    identity = json.loads(settings.read_text(encoding="utf-8"))
    if identity["task"] != args.task:
        raise DataError(f'{args.output} holds predictions of the task "{identity["task"]}", not "{args.task}".')
    return identity, list(read_predictions(result))
