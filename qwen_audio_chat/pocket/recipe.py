"""The pocket model from nothing to a folder that `from_pretrained` loads; every step goes on where it was stopped.

    python -m qwen_audio_chat.pocket.recipe --work build/pocket
    python -m qwen_audio_chat.pocket.recipe --work build/pocket --start assets/pocket --only joint-all

Fetch, synthesize, mix, then the stages of `python -m qwen_audio_chat train`, each from the result of the one before:
first speech alone, then every sound. At last the weights are quantized. `evaluation/scoreboard.py` measures them.
"""

import argparse
import logging
import random
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from ..commands.arguments import run_command
from ..prompts.messages import conversation_audios
from ..training import run as cli
from ..training.dialogues import dialogues, write
from ..training.manifest import Clip, read_manifests
from .release import release
from .restore import restore
from .shards import read_manifest, write_manifest
from .sources import DEFAULT_WORK

log = logging.getLogger(__name__)

HOURS = {"flite": 12, "piper": 4, "festival": 4, "kokoro": 12}  # of English speech by synthesizer
DIALOGUES, LONGEST = 12_000, 9.0  # how many, and seconds of sound in one over several clips: long ones cost most


@dataclass(frozen=True)
class Run:
    """One stage of training.

    Attributes:
        name: of its folder under `work`.
        stage: of `stages.STAGES`.
        data: pattern of manifests under `work/manifests`, without their ".jsonl", to how many of their lines are mixed
            in: drawn at random, again and again where there are too few.
        options: more words for the command.
        restored: share of the untrained language model that is mixed into the result, see `restore`.
    """

    name: str
    stage: str
    data: dict[str, int]
    options: tuple[str, ...]
    restored: float = 0.0


SMALL_BATCHES = ("--batch-tokens", "800", "--augment", "--corruption", "0.1", "--warmup", "20", "--alignment", "0.15",
                 "--save-every", "50")  # fmt: skip
RUNS = (
    Run(
        "align", "align",
        {"speech-flite-*": 3000, "speech-festival-*": 500, "speech-piper-*": 1000, "speech-kokoro-*": 3000,
         "speech-human-prompts": 700},
        ("--steps", "1500", "--batch-tokens", "2600", "--augment", "--decay", "0.4", "--save-every", "100"),
    ),
    Run(
        "joint", "joint",
        {"speech-flite-*": 1000, "speech-festival-*": 200, "speech-piper-*": 500, "speech-kokoro-*": 2000,
         "speech-human-prompts": 300, "dialogues": 5000, "languages-*": 700, "sounds": 900, "notes": 800,
         "chat": 800},
        ("--steps", "450", "--batch-tokens", "1600", "--augment", "--corruption", "0.1", "--warmup", "30",
         "--decay", "0.5", "--learning-rate", "2.5", "--alignment", "0.3", "--save-every", "75"),
    ),
    Run(
        "align-all", "align",
        {"speech-flite-*": 1750, "speech-festival-*": 450, "speech-piper-*": 1500, "speech-kokoro-*": 4500,
         "speech-human-prompts": 700, "sounds": 5000, "notes": 2500, "languages-*": 4000},
        ("--steps", "850", "--batch-tokens", "2600", "--augment", "--decay", "0.2", "--learning-rate", "0.6",
         "--save-every", "50"),
    ),
    Run(
        "joint-all", "joint",
        {"speech-flite-*": 60, "speech-festival-*": 20, "speech-piper-*": 60, "speech-kokoro-*": 220,
         "speech-human-prompts": 60, "dialogues": 750, "languages-*": 500, "sounds": 550, "notes": 120,
         "chat": 380},
        ("--steps", "300", "--decay", "0.4", "--learning-rate", "1.5", *SMALL_BATCHES),
        restored=0.2,
    ),
    Run(
        "joint-last", "joint",
        {"speech-flite-*": 150, "speech-festival-*": 50, "speech-piper-*": 200, "speech-kokoro-*": 900,
         "speech-human-prompts": 200, "dialogues": 2400, "languages-*": 600, "sounds": 900, "notes": 400,
         "chat": 1500},
        ("--steps", "850", "--decay", "0.5", "--learning-rate", "1.2", *SMALL_BATCHES),
        restored=0.3,
    ),
    Run(
        "joint-kept", "joint",
        {"speech-flite-*": 100, "speech-festival-*": 40, "speech-piper-*": 200, "speech-kokoro-*": 1000,
         "speech-human-prompts": 250, "dialogues": 1600, "languages-*": 700, "sounds": 700, "notes": 400,
         "chat": 1400},
        ("--steps", "700", "--decay", "0.5", "--learning-rate", "1.0", *SMALL_BATCHES),
        restored=0.2,
    ),
)  # fmt: skip
RECORDED = {
    "recordings": "speech-human-test", "sounds": "sounds", "notes": "notes", "languages": "languages-synthetic",
    "timed": "timed",
}  # fmt: skip
"""The modules that make all data but synthesized English and text, and the last manifest of each."""
MATERIAL = ("speech-*", "languages-*", "sounds", "notes")  # of the dialogues


def prepare_data(work: Path) -> None:
    """Fetch and synthesize everything that isn't there yet."""
    commands = [["speech", "--synthesizer", name, "--hours", str(hours)] for name, hours in HOURS.items()]
    if not (work / "manifests/chat.jsonl").exists():
        commands.append(["chat", "--model", str(work / "initial")])
    for module, *options in commands:
        run_step(module, work, *options)
    prepare_recorded(work)


def prepare_recorded(work: Path) -> None:
    """What `RECORDED` lists, as far as it isn't there; the held-out sets of `evaluation/scoreboard.py` are among it."""
    for module, last in RECORDED.items():
        if not (work / f"manifests/{last}.jsonl").exists():
            run_step(module, work)


def run_step(module: str, work: Path, *options: str) -> None:
    """One module of this package as a command of its own: its memory is given back, and it can be killed."""
    name = f"qwen_audio_chat.pocket.{module}"
    subprocess.run([sys.executable, "-m", name, "--work", str(work), *options], check=True)


def build_dialogues(work: Path) -> None:
    """Write `manifests/dialogues.jsonl` from all labelled clips of the training split."""
    path = work / "manifests/dialogues.jsonl"
    if not path.exists():
        manifests = [found for pattern in MATERIAL for found in select(work, pattern)]
        clips = [e for e in read_manifests(manifests, split="train", check_audio=False) if isinstance(e, Clip)]
        partial = path.with_suffix(".tmp")
        write(dialogues(clips, DIALOGUES, longest=LONGEST), partial)
        partial.rename(path)


def select(work: Path, pattern: str, dev: bool = False) -> list[Path]:
    """The training manifests, or the held-out ones, of a pattern."""
    found = sorted((work / "manifests").glob(f"{pattern}.jsonl"))
    return [path for path in found if path.stem.endswith("-dev") == dev and not path.stem.endswith("-test")]


def mix(run: Run, work: Path) -> Path:
    """Write `manifests/mix-<name>.jsonl`, each kind of data in the share that the run asks for.

    Raises:
        ValueError: a line to learn from holds an audio that another line holds out.
    """
    rng, mixed = random.Random(0), []
    for pattern, count in run.data.items():
        lines = [line for path in select(work, pattern) for line in read_manifest(path)]
        lines = [line for line in lines if line.get("split", "train") == "train"]
        rng.shuffle(lines)
        mixed += (lines * (count // max(1, len(lines)) + 1))[:count]
    if heard := {audio for line in mixed for audio in audios(line)} & held_out_audios(work):
        raise ValueError(
            f"{len(heard)} clips are held out and to be learned from, such as {min(heard)}: make them anew."
        )
    path = work / f"manifests/mix-{run.name}.jsonl"
    write_manifest(path, mixed)
    return path


def held_out_audios(work: Path) -> set[str]:
    """The audios of all lines that are no training."""
    manifests = [path for path in (work / "manifests").glob("*.jsonl") if not path.stem.startswith("mix-")]
    lines = [line for path in manifests for line in read_manifest(path)]
    return {audio for line in lines if line.get("split", "train") != "train" for audio in audios(line)}


def audios(line: dict) -> list[str]:
    """The audios of a manifest's line."""
    return [line["audio"]] if "audio" in line else [str(audio) for audio in conversation_audios(line["messages"])]


def result(run: Run, work: Path) -> Path:
    """The folder of a run's model."""
    return work / run.name / ("restored" if run.restored else "final")


def train(run: Run, model: Path, work: Path) -> Path:
    """One stage, from `model`; returns the folder of its result."""
    if (result(run, work) / "config.json").exists():
        return result(run, work)
    log.info("%s from %s", run.name, model)
    parser = argparse.ArgumentParser()
    cli.add_arguments(parser)
    held_out = [path for pattern in run.data for path in select(work, pattern, dev=True)]
    words = ["--stage", run.stage, "--model", model, "--output", work / run.name, "--train", mix(run, work)]
    words += [*(["--dev", *held_out] if held_out else []), "--no-check", "--on-error", "skip", *run.options]
    trained = cli.train(parser.parse_args([str(word) for word in words]))
    if run.restored:
        restore(trained, work / "initial", run.restored, result(run, work))
    return result(run, work)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=DEFAULT_WORK, help="work folder (default: %(default)s)")
    parser.add_argument("--start", type=Path, help="go on from this model instead of the untrained one")
    parser.add_argument(
        "--only", choices=[run.name for run in RUNS], nargs="*", help="these runs only, each from the one before"
    )
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    model = arguments.start or arguments.work / "initial"
    if arguments.start and not (arguments.start / "config.json").exists():
        raise ValueError(f"{arguments.start} holds no model to start from.")
    if not (arguments.work / "initial/config.json").exists():
        run_step("initialize", arguments.work, "--output", str(arguments.work / "initial"))
    prepare_data(arguments.work)
    build_dialogues(arguments.work)
    for run in RUNS:
        if not arguments.only or run.name in arguments.only:
            model = train(run, model, arguments.work)
        elif not arguments.start and (result(run, arguments.work) / "config.json").exists():
            model = result(run, arguments.work)
    release(model, arguments.work / "release")
    print(f"trained: {model}; as it is shipped: {arguments.work / 'release'}")


if __name__ == "__main__":
    sys.exit(run_command(main))
