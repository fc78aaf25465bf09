"""The held-out sets of the pocket recipe: which lines they are, what they ask, and how well a guess would do."""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from .data import DataError, Sample, read_jsonl
from .metrics import Metric
from .scoring import label
from .tasks import TASKS, Task
from .whisper import is_language_name

KEYWORD_TASKS = {
    "note_analysis": "mna",
    "scene": "asc",
    "emotion_recognition": "ser",
    "vocal_classification": "vsc",
}
UNKNOWN = "unknown"
"""The recipe's label of silence and noise."""

DECLINE = "I can't tell what that is."
WHICH_AUDIO = re.compile(r"Audio \d+\.")
DIALOGUES, DIALOGUE_SEED = 1000, 7


@dataclass
class HeldOutSet:
    """Held-out samples of one task and, once they were measured, the scores of each system.

    Attributes:
        metrics: what the table shows, where that differs from the task's usual.
        chance: accuracy of a guess, where there is a closed set of answers.
        broken: samples whose audio can't be used.
        scores: system to metric names to figures.
    """

    name: str
    task: Task
    samples: list[Sample]
    metrics: tuple[str, ...] = ()
    chance: float | None = None
    broken: int = 0
    scores: dict[str, dict[str, Metric]] = field(default_factory=dict)


def held_out_sets(work: Path, split: str, output: Path, limit: int | None = None) -> list[HeldOutSet]:
    """The held-out lines of all finished manifests below the recipe's work folder, by manifest and task.

    Silence and noise become a set of their own, in which declining is right; clips of all sets become questions about
    several audios ("Which audio is a dog?").

    Args:
        split: "test" or "dev", which a line names itself.
        output: where the manifest of those questions is written.
        limit: at most so many samples of each set, evenly spread over it.

    Raises:
        DataError: there is none, or one is malformed.
    """
    groups: dict[tuple[str, str], list[Sample]] = defaultdict(list)
    manifests = sorted((work / "manifests").glob("*.jsonl"))
    for path in manifests:
        name = re.sub(r"-(\d{4}|dev|test)$", "", path.stem)
        for sample in read_jsonl(path, split=split):
            groups[name, _task_name(sample)].append(sample)
    groups = {key: _spread(samples, limit) for key, samples in groups.items() if samples}
    if not groups:
        raise DataError(f'{work / "manifests"} has no "{split}" lines; run the data steps of the recipe first.')
    sets = [_set(name, task, samples) for (name, task), samples in sorted(groups.items())]
    if questions := _which_audio(manifests, split, output):
        sets.append(_which_audio_set(_spread(questions, limit or 100)))
    return sets


def _task_name(sample: Sample) -> str:
    if sample.messages:
        return "chat"
    if sample.references == (UNKNOWN,):
        return UNKNOWN
    if sample.task in (None, "transcribe"):
        return "srwt" if sample.timestamps else "asr"
    if sample.task == "keyword":
        return KEYWORD_TASKS.get(sample.instruction, "sound")
    if sample.task == "question":
        return "lid" if is_language_name(sample.references[0]) else "aqa"
    return {"translate": "s2tt", "caption": "aac"}[sample.task]


def _spread(samples: Sequence[Sample], limit: int | None) -> list[Sample]:
    """At most `limit` samples at equal distances, numbered anew."""
    count = min(limit or len(samples), len(samples))
    chosen = [samples[place * len(samples) // count] for place in range(count)]
    return [replace(sample, index=index) for index, sample in enumerate(chosen)]


def _set(name: str, task: str, samples: list[Sample]) -> HeldOutSet:
    if task == UNKNOWN:
        question = TASKS["sound"].question
        asked = [replace(sample, references=(DECLINE,), question=question) for sample in samples]
        return HeldOutSet(f"{name}: silence and noise", TASKS["chat"], asked, metrics=("declined",))
    held_out = HeldOutSet(f"{name}: {TASKS[task].title.lower()}", TASKS[task], samples)
    if held_out.task.score is label:
        held_out.chance = 1 / len({sample.references[0] for sample in samples})
    return held_out


def _which_audio(manifests: Sequence[Path], split: str, output: Path) -> list[Sample]:
    """Questions which of two to four clips holds something, made by the recipe from held-out clips alone."""
    from ..training.dialogues import dialogues, facts, write
    from ..training.manifest import Clip, ManifestError, read_manifests

    try:
        examples = read_manifests(manifests, split=split, check_audio=False)
    except ManifestError as error:
        raise DataError(str(error)) from error
    clips = [example for example in examples if isinstance(example, Clip) and facts(example)]
    if not clips:
        return []
    talks = [
        talk
        for talk in dialogues(clips, DIALOGUES, seed=DIALOGUE_SEED)
        if WHICH_AUDIO.fullmatch(str(talk.messages[-1]["content"]))
    ]
    path = output / f"which-audio-{split}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    write(talks, path)
    return read_jsonl(path) if talks else []


def _which_audio_set(samples: list[Sample]) -> HeldOutSet:
    chance = sum(1 / len(sample.audios) for sample in samples) / len(samples)
    return HeldOutSet("several audios: which one", TASKS["chat"], samples, chance=chance)
