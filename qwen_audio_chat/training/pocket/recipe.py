"""The pocket model from nothing to a folder that `from_pretrained` loads; every step goes on where it was stopped.

    python -m qwen_audio_chat.training.pocket.recipe --work build/pocket
    python -m qwen_audio_chat.training.pocket.recipe --work build/pocket --start assets/pocket --only tune

Fetch, synthesize, then four stages of `python -m qwen_audio_chat train`, each from the result of the one before.
"""

import argparse
import logging
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from qwen_audio_chat.training import cli
from qwen_audio_chat.training.dialogues import dialogues, write
from qwen_audio_chat.training.manifest import Clip, read_manifests
from qwen_audio_chat.training.pocket.sources import DEFAULT_WORK

log = logging.getLogger(__name__)

HOURS = {"flite": 12, "piper": 9, "festival": 4, "kokoro": 12}  # of English speech by synthesizer


@dataclass(frozen=True)
class Run:
    """One stage of training.

    Attributes:
        name: of its folder under `work`.
        stage: of `stages.STAGES`.
        data: patterns of the manifests under `work/manifests`, without their ".jsonl"; "-dev" and "-test" are held out.
        options: more words for the command.
    """

    name: str
    stage: str
    data: tuple[str, ...]
    options: tuple[str, ...]


RUNS = (
    Run(
        "align",
        "align",
        ("speech-*",),
        ("--steps", "12000", "--batch-tokens", "2500", "--augment", "--save-every", "200"),
    ),
    Run(
        "pretrain",
        "pretrain",
        ("speech-*", "languages-*", "sounds*", "notes*"),
        ("--steps", "4000", "--alignment", "0.3", "--corruption", "0.2", "--batch-tokens", "1600", "--augment"),
    ),
    Run(
        "tune",
        "finetune",
        ("speech-*", "languages-*", "sounds*", "notes*", "dialogues", "chat"),
        ("--steps", "8000", "--corruption", "0.2", "--batch-tokens", "1600", "--augment", "--learning-rate", "3"),
    ),
)


def prepare_data(work: Path) -> None:
    """Fetch and synthesize everything that isn't there yet."""
    commands = [["speech", "--synthesizer", name, "--hours", str(hours)] for name, hours in HOURS.items()]
    commands += [[name] for name in ("sounds", "notes", "languages", "recordings")]
    if not (work / "manifests/chat.jsonl").exists():
        commands.append(["chat", "--model", str(work / "initial")])
    for module, *options in commands:
        name = f"qwen_audio_chat.training.pocket.{module}"
        subprocess.run([sys.executable, "-m", name, "--work", str(work), *options], check=True)


def build_dialogues(work: Path, count: int = 12000) -> None:
    """Write `manifests/dialogues.jsonl` from all labelled clips of the training split."""
    path = work / "manifests/dialogues.jsonl"
    if not path.exists():
        manifests = select(work, RUNS[1].data)
        clips = [e for e in read_manifests(manifests, split="train", check_audio=False) if isinstance(e, Clip)]
        partial = path.with_suffix(".tmp")
        write(dialogues(clips, count), partial)
        partial.rename(path)


def select(work: Path, patterns: tuple[str, ...], dev: bool = False) -> list[Path]:
    """The training manifests, or the held-out ones, of some patterns."""
    found = {path for pattern in patterns for path in (work / "manifests").glob(f"{pattern}.jsonl")}
    held_out = {path for path in found if path.stem.endswith(("-dev", "-test"))}
    return sorted(path for path in held_out if path.stem.endswith("-dev")) if dev else sorted(found - held_out)


def train(run: Run, model: Path, work: Path) -> Path:
    """One stage, from `model`; returns the folder of its result."""
    output = work / run.name
    if (output / "final/config.json").exists():
        return output / "final"
    log.info("stage %s from %s", run.name, model)
    parser = argparse.ArgumentParser()
    cli.add_arguments(parser)
    held_out = select(work, run.data, dev=True)
    words = [
        "--stage",
        run.stage,
        "--model",
        model,
        "--output",
        output,
        "--no-check",
        "--on-error",
        "skip",
        *run.options,
    ]
    words += ["--train", *select(work, run.data), *(["--dev", *held_out] if held_out else [])]
    return cli.train(parser.parse_args([str(word) for word in words]))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=DEFAULT_WORK, help="work folder (default: %(default)s)")
    parser.add_argument("--start", type=Path, help="go on from this model instead of the untrained one")
    parser.add_argument("--only", choices=[run.name for run in RUNS], nargs="*", help="these stages only")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    model = arguments.start or arguments.work / "initial"
    if not (arguments.work / "initial/config.json").exists():
        subprocess.run(
            [
                sys.executable,
                "-m",
                "qwen_audio_chat.training.pocket.initialize",
                "--work",
                str(arguments.work),
                "--output",
                str(arguments.work / "initial"),
            ],
            check=True,
        )
    prepare_data(arguments.work)
    build_dialogues(arguments.work)
    for run in RUNS:
        if not arguments.only or run.name in arguments.only:
            model = train(run, model, arguments.work)
    print(f"trained: {model}")


if __name__ == "__main__":
    main()
