"""Make the pocket model: its data, its training, its quantization. An interrupted recipe can be resumed.

    python -m qwen_audio_chat.pocket recipe
    python -m qwen_audio_chat.pocket recipe --start assets/pocket --only joint-all

It makes the data, then trains the stages of `python -m qwen_audio_chat train`, each from the result of the previous
one: first on speech alone, then on all kinds of sound. Finally it quantizes the weights. `scoreboard` measures them.
"""

import argparse
import logging
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..prompts.messages import conversation_audios
from ..training.dialogues import dialogues, read_labelled, write_dialogues
from ..training.run import train
from ..training.settings import StageName, TrainSettings
from .release import release
from .restore import restore
from .shards import Line, read_manifest, write_manifest
from .steps import add_work_argument, require_model, run_step

log = logging.getLogger(__name__)

HOURS_OF_SPEECH = {"flite": 12, "piper": 4, "festival": 4, "kokoro": 12}  # by synthesizer
DIALOGUES = 12_000
MAX_DIALOGUE_SECONDS = 9.0  # of audio in a dialogue about several clips: long ones cost most to train on


@dataclass(frozen=True)
class Run:
    """One run of training.

    Attributes:
        name: of its folder in the work folder.
        stage: of `stages.STAGES`.
        mixture: pattern of manifests, without their ".jsonl" → how many of their lines are in the mixture; lines are
            drawn at random, and repeated where there are too few.
        options: further `TrainSettings`.
        restored_share: share of the untrained language model that is mixed into the result, see `restore`.
    """

    name: str
    stage: StageName
    mixture: dict[str, int]
    options: Mapping[str, Any]
    restored_share: float = 0.0


SMALL_BATCHES = {
    "batch_tokens": 800, "augment": True, "corruption": 0.1, "warmup": 20, "alignment": 0.15, "save_every": 50,
}  # fmt: skip
RUNS = (
    Run(
        "align", "align",
        {"speech-flite-*": 3000, "speech-festival-*": 500, "speech-piper-*": 1000, "speech-kokoro-*": 3000,
         "speech-human-prompts": 700},
        {"steps": 1500, "batch_tokens": 2600, "augment": True, "decay": 0.4, "save_every": 100},
    ),
    Run(
        "joint", "joint",
        {"speech-flite-*": 1000, "speech-festival-*": 200, "speech-piper-*": 500, "speech-kokoro-*": 2000,
         "speech-human-prompts": 300, "dialogues": 5000, "languages-*": 700, "sounds": 900, "notes": 800,
         "chat": 800},
        {"steps": 450, "batch_tokens": 1600, "augment": True, "corruption": 0.1, "warmup": 30, "decay": 0.5,
         "learning_rate": 2.5, "alignment": 0.3, "save_every": 75},
    ),
    Run(
        "align-all", "align",
        {"speech-flite-*": 1750, "speech-festival-*": 450, "speech-piper-*": 1500, "speech-kokoro-*": 4500,
         "speech-human-prompts": 700, "sounds": 5000, "notes": 2500, "languages-*": 4000},
        {"steps": 850, "batch_tokens": 2600, "augment": True, "decay": 0.2, "learning_rate": 0.6, "save_every": 50},
    ),
    Run(
        "joint-all", "joint",
        {"speech-flite-*": 60, "speech-festival-*": 20, "speech-piper-*": 60, "speech-kokoro-*": 220,
         "speech-human-prompts": 60, "dialogues": 750, "languages-*": 500, "sounds": 550, "notes": 120,
         "chat": 380},
        {"steps": 300, "decay": 0.4, "learning_rate": 1.5, **SMALL_BATCHES},
        restored_share=0.2,
    ),
    Run(
        "joint-last", "joint",
        {"speech-flite-*": 150, "speech-festival-*": 50, "speech-piper-*": 200, "speech-kokoro-*": 900,
         "speech-human-prompts": 200, "dialogues": 2400, "languages-*": 600, "sounds": 900, "notes": 400,
         "chat": 1500},
        {"steps": 850, "decay": 0.5, "learning_rate": 1.2, **SMALL_BATCHES},
        restored_share=0.3,
    ),
    Run(
        "joint-kept", "joint",
        {"speech-flite-*": 100, "speech-festival-*": 40, "speech-piper-*": 200, "speech-kokoro-*": 1000,
         "speech-human-prompts": 250, "dialogues": 1600, "languages-*": 700, "sounds": 700, "notes": 400,
         "chat": 1400},
        {"steps": 700, "decay": 0.5, "learning_rate": 1.0, **SMALL_BATCHES},
        restored_share=0.2,
    ),
)  # fmt: skip
LAST_MANIFESTS = {
    "recordings": "speech-human-test", "sounds": "sounds", "notes": "notes", "languages": "languages-synthetic",
    "timed": "timed",
}  # fmt: skip
"""The last manifest of each step that makes held-out data, which shows that the step is complete."""

DIALOGUE_MANIFESTS = ("speech-*", "languages-*", "sounds", "notes")  # whose clips the dialogues are about


def initial_model(work: Path) -> Path:
    """The folder of the untrained model."""
    return work / "initial"


def prepare_initial_model(work: Path) -> None:
    """Make the untrained model, unless it is there already."""
    folder = initial_model(work)
    if not (folder / "config.json").exists():
        run_step("initialize", work, "--output", str(folder))


def prepare_training_data(work: Path) -> None:
    """Download and synthesize all data that is missing."""
    for name, hours in HOURS_OF_SPEECH.items():
        run_step("speech", work, "--synthesizer", name, "--hours", str(hours))
    if not (work / "manifests/chat.jsonl").exists():
        run_step("text-dialogues", work, "--model", str(initial_model(work)))
    prepare_held_out_data(work)
    build_dialogues(work)


def prepare_held_out_data(work: Path) -> None:
    """Run the steps that make the held-out sets of the scoreboard, unless they are complete."""
    for step, last_manifest in LAST_MANIFESTS.items():
        if not (work / f"manifests/{last_manifest}.jsonl").exists():
            run_step(step, work)


def build_dialogues(work: Path) -> None:
    """Write `manifests/dialogues.jsonl` from all labelled clips of the training split, unless it is there already."""
    path = work / "manifests/dialogues.jsonl"
    if not path.exists():
        manifests = [found for pattern in DIALOGUE_MANIFESTS for found in select_manifests(work, pattern)]
        write_dialogues(dialogues(read_labelled(manifests), DIALOGUES, longest=MAX_DIALOGUE_SECONDS), path)


def select_manifests(work: Path, pattern: str, dev: bool = False) -> list[Path]:
    """The manifests of a pattern that are for training or, if wanted, for development."""
    found = sorted((work / "manifests").glob(f"{pattern}.jsonl"))
    return [path for path in found if path.stem.endswith("-dev") == dev and not path.stem.endswith("-test")]


def mix(run: Run, work: Path) -> Path:
    """Write the training data of a run to `manifests/mix-<name>.jsonl`.

    Raises:
        UserError: a training line has an audio that another line holds out.
    """
    rng, mixed = random.Random(0), []
    for pattern, count in run.mixture.items():
        lines = [line for path in select_manifests(work, pattern) for line in read_manifest(path)]
        lines = [line for line in lines if line.get("split", "train") == "train"]
        rng.shuffle(lines)
        mixed += (lines * (count // max(1, len(lines)) + 1))[:count]
    if leaked := {audio for line in mixed for audio in audios_of(line)} & held_out_audios(work):
        raise UserError(
            "{count} clips are both held out and in the training data, such as {example}: make their manifests again.",
            count=len(leaked), example=min(leaked),
        )  # fmt: skip
    path = work / f"manifests/mix-{run.name}.jsonl"
    write_manifest(path, mixed)
    return path


def held_out_audios(work: Path) -> set[str]:
    """The audios of all lines that aren't for training."""
    manifests = [path for path in (work / "manifests").glob("*.jsonl") if not path.stem.startswith("mix-")]
    lines = [line for path in manifests for line in read_manifest(path)]
    return {audio for line in lines if line.get("split", "train") != "train" for audio in audios_of(line)}


def audios_of(line: Line) -> list[str]:
    """The audios of a manifest's line."""
    return [line["audio"]] if "audio" in line else [str(audio) for audio in conversation_audios(line["messages"])]


def result_folder(run: Run, work: Path) -> Path:
    """The folder of the model that a run makes."""
    return work / run.name / ("restored" if run.restored_share else "final")


def has_result(run: Run, work: Path) -> bool:
    """Whether the run is finished."""
    return (result_folder(run, work) / "config.json").exists()


def train_and_restore(run: Run, model: Path, work: Path) -> None:
    """Train a run from `model`, unless it is finished."""
    if has_result(run, work):
        return
    log.info("%s from %s", run.name, model)
    settings = TrainSettings(
        model=str(model),
        train=[mix(run, work)],
        dev=[path for pattern in run.mixture for path in select_manifests(work, pattern, dev=True)],
        output=work / run.name,
        stage=run.stage,
        check_audio=False,
        on_error="skip",
        **run.options,
    )
    trained = train(settings)
    if run.restored_share:
        restore(trained, initial_model(work), run.restored_share, result_folder(run, work))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the step."""
    add_work_argument(parser)
    parser.add_argument("--start", type=Path, help="model to start from instead of the untrained one")
    parser.add_argument(
        "--only", choices=[run.name for run in RUNS], nargs="*", help="these runs only, each from the previous one"
    )


def run(args: argparse.Namespace) -> None:
    """Run the step."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if args.start:
        require_model(args.start)
    prepare_initial_model(args.work)
    prepare_training_data(args.work)
    model = args.start or initial_model(args.work)
    for each in RUNS:
        is_chosen = not args.only or each.name in args.only
        if is_chosen:
            train_and_restore(each, model, args.work)
        if is_chosen or (not args.start and has_result(each, args.work)):
            model = result_folder(each, args.work)
    release(model, args.work / "release")
    print(f"trained: {model}; as it is shipped: {args.work / 'release'}")
