"""The held-out sets of the pocket recipe: which lines they are, what they ask, and how well a guess would do."""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import cycle
from pathlib import Path

from ..evaluation.data import DataError, Sample, read_jsonl
from ..evaluation.metrics import Metric
from ..evaluation.scoring import label
from ..evaluation.tasks import TASKS, Task
from ..prompts.conversation import Conversation
from ..prompts.questions import DECLINE, UNKNOWN
from .whisper import is_language_name

KEYWORD_TASKS = {
    "note_analysis": "mna",
    "scene": "asc",
    "emotion_recognition": "ser",
    "vocal_classification": "vsc",
}
DIALOGUES, DIALOGUE_SEED = 1000, 7
UNTOLD, UNTOLD_COUNT = re.escape(DECLINE), 20  # probes about silence and noise, by their answer
TOLD, TOLD_COUNT = rf"(?!{UNTOLD}|There is no audio|Audio \d)(.|\n)*", 30  # and those that can be answered
NOT_THERE = {  # questions in words that no training has, and the number of the audio that they are about, 0 for any
    "What animal is that?": 0, "How many people are talking?": 0, "Write the recording out for me.": 0,
    "Is it music or speech?": 0, "Does the singer sound sad?": 0, "Who talks in Audio 3?": 3,
    "Does Audio 2 hold any music?": 2, "Tell me what happens in Audio 4.": 4, "How long is Audio 5?": 5,
    "Can you make out the words of Audio 2?": 2,
}  # fmt: skip


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

    Clips of all sets become questions about several audios ("Which audio is a dog?") and probes: 30 questions about
    silence, noise or an audio that isn't there, where declining is right, and as many that can be answered.

    Args:
        split: "test" or "dev", which a line names itself.
        output: where the manifests of those questions are written.
        limit: at most so many samples of each set, evenly spread over it.

    Raises:
        DataError: there is none, or one is malformed.
    """
    groups: dict[tuple[str, str], list[Sample]] = defaultdict(list)
    manifests = sorted((work / "manifests").glob("*.jsonl"))
    for path in manifests:
        name = re.sub(r"-(\d{4}|dev|test)$", "", path.stem)
        for sample in read_jsonl(path, split=split):
            if sample.references != (UNKNOWN,):  # silence and noise are for the probes
                groups[name, _task_name(sample)].append(sample)
    groups = {key: _spread(samples, limit) for key, samples in groups.items() if samples}
    if not groups:
        raise DataError(f'{work / "manifests"} has no "{split}" lines; run the data steps of the recipe first.')
    sets = [_set(name, task, samples) for (name, task), samples in sorted(groups.items())]
    return sets + _dialogue_sets(manifests, split, output, limit or 100)


def _task_name(sample: Sample) -> str:
    if sample.messages:
        return "chat"
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
    held_out = HeldOutSet(f"{name}: {TASKS[task].title.lower()}", TASKS[task], samples)
    if held_out.task.score is label:
        held_out.chance = 1 / len({sample.references[0] for sample in samples})
    return held_out


def _dialogue_sets(manifests: Sequence[Path], split: str, output: Path, limit: int) -> list[HeldOutSet]:
    """Questions about several clips, made by the recipe from held-out clips alone."""
    from ..training.dialogues import dialogues, facts, write
    from ..training.manifest import Clip, Dialogue, ManifestError, read_manifests

    try:
        examples = read_manifests(manifests, split=split, check_audio=False)
    except ManifestError as error:
        raise DataError(str(error)) from error
    clips = [example for example in examples if isinstance(example, Clip) and facts(example)]
    if not clips:
        return []
    talks = dialogues(clips, DIALOGUES, seed=DIALOGUE_SEED)

    def not_there(asked: tuple[str, int], clip: Clip) -> Dialogue:
        words, number = asked
        heard = [clip.audio] if number else []
        talk = Conversation().ask(words, heard).answer(f"There is no audio {number or 'here'}.")
        return Dialogue("a probe", tuple(talk), clip.seconds if heard else 0.0)

    def held_out(name: str, chosen: Sequence, metrics: tuple[str, ...]) -> HeldOutSet:
        path = output / f"{re.sub(r'[^a-z]+', '-', name)}-{split}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        write(chosen, path)
        return HeldOutSet(name, TASKS["chat"], read_jsonl(path), metrics=metrics)

    sets = []
    if which := _answered(talks, r"Audio \d+\.", limit):
        sets.append(held_out("several audios: which one", which, ("contains_reference", "false_refusals")))
        sets[0].chance = sum(1 / len(sample.audios) for sample in sets[0].samples) / len(which)
    probes = [
        *_answered(talks, UNTOLD, UNTOLD_COUNT), *map(not_there, NOT_THERE.items(), cycle(clips)),
        *_answered(talks, TOLD, TOLD_COUNT),
    ]  # fmt: skip
    return [*sets, held_out("probes: can it be told", probes, ("declined", "false_refusals"))]


def _answered(talks: Sequence, answer: str, count: int) -> Sequence:
    """The first `count` dialogues whose last answer matches a pattern."""
    return [talk for talk in talks if re.fullmatch(answer, str(talk.messages[-1]["content"]))][:count]
