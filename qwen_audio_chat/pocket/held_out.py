"""The held-out sets of the scoreboard: their manifest lines, what is asked about them, and the level of chance."""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import cycle
from pathlib import Path

from ..data.lines import DataError
from ..evaluation.metrics import Metric
from ..evaluation.samples import Sample, read_jsonl
from ..evaluation.scoring import score_labels
from ..evaluation.tasks import TASKS, Task
from ..prompts.messages import assistant_message, user_message
from ..prompts.questions import DECLINE, UNKNOWN
from ..training.dialogues import dialogues, facts, write_dialogues
from ..training.manifest import Clip, Dialogue, read_manifests
from .whisper_baseline import is_language_name

TASK_OF_INSTRUCTION = {
    "note_analysis": "mna",
    "scene": "asc",
    "emotion_recognition": "ser",
    "vocal_classification": "vsc",
}
DIALOGUES, DIALOGUE_SEED = 1000, 7  # from which the questions about several audios and the probes are taken
UNANSWERABLE = re.escape(DECLINE)  # matches the answers about silence and noise
ANSWERABLE = rf"(?!{UNANSWERABLE}|There is no audio|Audio \d)(.|\n)*"
UNANSWERABLE_PROBES, ANSWERABLE_PROBES = 20, 30
MISSING_AUDIO_QUESTIONS = {  # phrased as nowhere in training → the number of the audio that is missing, 0 for any
    "What animal is that?": 0, "How many people are talking?": 0, "Write the recording out for me.": 0,
    "Is it music or speech?": 0, "Does the singer sound sad?": 0, "Who talks in Audio 3?": 3,
    "Does Audio 2 hold any music?": 2, "Tell me what happens in Audio 4.": 4, "How long is Audio 5?": 5,
    "Can you make out the words of Audio 2?": 2,
}  # fmt: skip


@dataclass
class HeldOutSet:
    """Held-out samples of one task and, once measured, the scores of each system.

    Attributes:
        metrics: what the table shows, where that isn't the default of the task.
        chance: accuracy of a guess, where the set of answers is closed.
        broken: how many samples have an audio that can't be used.
        scores: system → metric → figure.
    """

    name: str
    task: Task
    samples: list[Sample]
    metrics: tuple[str, ...] = ()
    chance: float | None = None
    broken: int = 0
    scores: dict[str, dict[str, Metric]] = field(default_factory=dict)


def held_out_sets(work: Path, split: str, output: Path, limit: int | None = None) -> list[HeldOutSet]:
    """The held-out lines of all finished manifests in the recipe's work folder, by manifest and task.

    The clips of all sets also make questions about several audios ("Which audio is a dog?") and probes: 30 questions
    about silence, noise or a missing audio, which should be declined, and 30 that can be answered.

    Args:
        split: "test" or "dev", as the lines name it.
        output: folder for the manifests of those questions.
        limit: most samples of each set, spread evenly over it.

    Raises:
        DataError: no line is held out, or one is malformed.
    """
    groups: dict[tuple[str, str], list[Sample]] = defaultdict(list)
    manifests = sorted((work / "manifests").glob("*.jsonl"))
    for path in manifests:
        name = re.sub(r"-(\d{4}|dev|test)$", "", path.stem)
        for sample in read_jsonl(path, split=split):
            if sample.references != (UNKNOWN,):  # the probes ask about silence and noise
                groups[name, _task_name(sample)].append(sample)
    groups = {key: _spread(samples, limit) for key, samples in groups.items() if samples}
    if not groups:
        raise DataError(
            '{folder} has no "{split}" lines; run the data steps of the recipe first.',
            folder=work / "manifests", split=split,
        )  # fmt: skip
    sets = [_held_out_set(name, task, samples) for (name, task), samples in sorted(groups.items())]
    return sets + _dialogue_sets(manifests, split, output, limit or 100)


def _task_name(sample: Sample) -> str:
    if sample.messages:
        return "chat"
    if sample.task in (None, "transcribe"):
        return "srwt" if sample.timestamps else "asr"
    if sample.task == "keyword":
        return TASK_OF_INSTRUCTION.get(sample.instruction or "", "sound")
    if sample.task == "question":
        return "lid" if is_language_name(sample.references[0]) else "aqa"
    return {"translate": "s2tt", "caption": "aac"}[sample.task]


def _spread(samples: Sequence[Sample], limit: int | None) -> list[Sample]:
    """At most `limit` samples at equal distances, with new indices."""
    count = min(limit or len(samples), len(samples))
    chosen = [samples[number * len(samples) // count] for number in range(count)]
    return [replace(sample, index=index) for index, sample in enumerate(chosen)]


def _held_out_set(name: str, task: str, samples: list[Sample]) -> HeldOutSet:
    held_out = HeldOutSet(f"{name}: {TASKS[task].title.lower()}", TASKS[task], samples)
    if held_out.task.score is score_labels:
        held_out.chance = 1 / len({sample.references[0] for sample in samples})
    return held_out


def _dialogue_sets(manifests: Sequence[Path], split: str, output: Path, limit: int) -> list[HeldOutSet]:
    """Questions about several clips, and the probes, made from held-out clips alone."""
    examples = read_manifests(manifests, split=split, check_audio=False)
    clips = [example for example in examples if isinstance(example, Clip) and facts(example)]
    if not clips:
        return []
    drawn = dialogues(clips, DIALOGUES, seed=DIALOGUE_SEED)

    def held_out(name: str, chosen: Sequence[Dialogue], metrics: tuple[str, ...]) -> HeldOutSet:
        path = output / f"{re.sub(r'[^a-z]+', '-', name)}-{split}.jsonl"
        write_dialogues(chosen, path)
        return HeldOutSet(name, TASKS["chat"], read_jsonl(path), metrics=metrics)

    sets = []
    if which_audio := _with_answer(drawn, r"Audio \d+\.", limit):
        sets.append(held_out("several audios: which one", which_audio, ("contains_reference", "false_refusals")))
        sets[0].chance = sum(1 / len(sample.audios) for sample in sets[0].samples) / len(which_audio)
    probes = [
        *_with_answer(drawn, UNANSWERABLE, UNANSWERABLE_PROBES),
        *map(_missing_audio, MISSING_AUDIO_QUESTIONS, MISSING_AUDIO_QUESTIONS.values(), cycle(clips)),
        *_with_answer(drawn, ANSWERABLE, ANSWERABLE_PROBES),
    ]
    return [*sets, held_out("probes: can it be told", probes, ("declined", "false_refusals"))]


def _missing_audio(question: str, number: int, clip: Clip) -> Dialogue:
    """A question about an audio that isn't there: audio `number` of a conversation that has one, or any if it is 0."""
    audios = [clip.audio] if number else []
    messages = (user_message(question, audios), assistant_message(f"There is no audio {number or 'here'}."))
    return Dialogue("a probe", messages, clip.seconds if audios else 0.0)


def _with_answer(drawn: Sequence[Dialogue], pattern: str, count: int) -> Sequence[Dialogue]:
    """The first `count` dialogues whose last answer matches a pattern."""
    return [each for each in drawn if re.fullmatch(pattern, str(each.messages[-1]["content"]))][:count]
