"""Measure a model on a task of the paper.

The last line of standard output is one JSON object with the metrics; predictions, summary and pictures go to the output
folder. An interrupted run continues where it stopped. Modules that need PyTorch are imported where they are used, so
that a help text or a wrong argument doesn't wait for it.
"""

import argparse
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

from ..data.lines import LANGUAGE_TAGS, DataError
from ..errors import UserError
from ..evaluation.normalization import NORMALIZERS
from ..evaluation.predictions import IDENTITY_FILE, RESULT_FILE, Prediction, read_predictions
from ..evaluation.samples import Sample, read_hub, read_jsonl
from ..evaluation.tasks import TASKS, Task
from ..loading import add_model_arguments, load_from
from .arguments import number

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`evaluate --model pocket --task asr --data test.jsonl --output results/`,
    `evaluate --task asr --data NAME --split test --output results/` for a Hugging Face data set; with several
    processes: accelerate launch -m qwen_audio_chat evaluate ...
    """
    add_model_arguments(parser)
    tasks = "; ".join(f"{task.name}: {task.title.lower()}" for task in TASKS.values())
    parser.add_argument("--task", required=True, metavar="TASK", help=tasks)
    parser.add_argument("--data", help="JSONL file, or with --split the name of a Hugging Face data set")
    parser.add_argument(
        "--audio-folder",
        type=Path,
        metavar="DIR",
        help="where audio paths start (default: the folder of the JSONL file)",
    )
    parser.add_argument("--output", required=True, type=Path, help="folder for predictions and results")
    count = number(int, 1)
    parser.add_argument("--batch-size", type=count, default=8, metavar="N", help="samples asked at once (default: 8)")
    parser.add_argument(
        "--prompt",
        choices=("tags", "chat"),
        help="tags as in the paper, or questions in a chat (default: tags where the task has them)",
    )
    parser.add_argument(
        "--language",
        choices=LANGUAGE_TAGS,
        default="en",
        help="of the speech, where the data don't name it (default: en)",
    )
    parser.add_argument(
        "--normalization",
        choices=NORMALIZERS,
        help="of texts before scoring (default: depends on task and data)",
    )
    parser.add_argument("--limit", type=count, metavar="N", help="only the first N samples")
    parser.add_argument("--split", help="of the data (default for JSONL files: all but train)")
    parser.add_argument("--config", help="configuration of a Hugging Face data set")
    parser.add_argument(
        "--text-column",
        default="text",
        help="column with the references of a Hugging Face data set (default: text)",
    )
    steps = parser.add_mutually_exclusive_group()
    steps.add_argument("--predict-only", action="store_true", help="write predictions and score them later")
    steps.add_argument("--score-only", action="store_true", help="score the predictions in the output folder")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command and return the exit code.

    Raises:
        UserError: what is wrong with arguments, data or model.
    """
    if args.task not in TASKS:
        raise UserError('There is no task "{task}"; choose one of {tasks}.', task=args.task, tasks=", ".join(TASKS))
    identity, predictions = _stored(args) if args.score_only else _predict(args)
    from ..evaluation.report import score, write_report  # heavy
    from ..evaluation.runner import processes  # needs PyTorch

    if args.predict_only or not processes().is_main_process:
        return 0
    answered = [prediction for prediction in predictions if not prediction.error]
    default = TASKS[args.task].default_normalization(answered, identity["official"])
    report = score(predictions, identity, args.normalization or default)
    write_report(report, args.output)
    print(f"Results: {args.output}", file=sys.stderr)
    print(json.dumps(report.result(), ensure_ascii=False), flush=True)
    return 0


def _predict(args: argparse.Namespace) -> tuple[dict[str, Any], list[Prediction]]:
    from ..evaluation.predictor import ModelPredictor  # needs PyTorch
    from ..evaluation.runner import Runner  # needs PyTorch

    task = TASKS[args.task]
    if not args.data:
        raise UserError("Which data? Give a JSONL file with --data.")
    if args.split and not os.path.isfile(args.data):
        samples = read_hub(args.data, args.split, config=args.config, text_column=args.text_column)
    else:
        samples = read_jsonl(args.data, args.audio_folder, args.split)
    samples = _samples_for(task, samples, args.data)[: args.limit]
    prompt = args.prompt or ("chat" if task.tags is None else "tags")
    chat = load_from(args)
    predictor = ModelPredictor(chat)
    name = f"{args.model or chat.info.name} ({chat.info.precision}, weights {predictor.weights})"
    runner = Runner(
        task, samples, args.output, model=name, prompt=prompt, language=args.language,
        transcript_seconds=chat.transcript_seconds,
    )  # fmt: skip
    return runner.identity, runner.run(predictor, args.batch_size)


def _samples_for(task: Task, samples: list[Sample], data: str) -> list[Sample]:
    """The samples that a task is for; a warning counts the others."""
    chosen = [sample for sample in samples if task.fits(sample)]
    if not chosen:
        raise DataError(
            '{data} has nothing to measure for the task "{task}"; choose another --task or --split.',
            data=data,
            task=task.name,
        )
    if left_out := len(samples) - len(chosen):
        message = '%s: left out %d of %d samples, which are for other tasks than "%s".'
        log.warning(message, data, left_out, len(samples), task.name)
    return chosen


def _stored(args: argparse.Namespace) -> tuple[dict[str, Any], list[Prediction]]:
    """Identity and predictions of the run that the output folder holds."""
    identity_file, result = args.output / IDENTITY_FILE, args.output / RESULT_FILE
    if not identity_file.exists() or not result.exists():
        raise UserError(
            "{output} holds no finished predictions; run without --score-only first.", output=str(args.output)
        )
    identity = json.loads(identity_file.read_text(encoding="utf-8"))
    if identity["task"] != args.task:
        raise UserError(
            '{output} holds predictions of the task "{stored}", not "{task}".',
            output=str(args.output),
            stored=identity["task"],
            task=args.task,
        )
    return identity, list(read_predictions(result))
