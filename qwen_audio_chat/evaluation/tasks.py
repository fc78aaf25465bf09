"""The registry of evaluation tasks: the paper's task families and the pocket model's own.

A task knows how to ask (the tags of the released evaluation scripts, or a natural question for a chat model), how long
an answer may be, and how answers are scored.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..prompts.questions import QUESTIONS
from ..prompts.tags import TASKS as TAG_TASKS
from ..prompts.tags import TaskPrompt
from . import scoring
from .data import Sample
from .metrics import Metric
from .predictions import Prediction

Score = Callable[[Sequence[Prediction], str], dict[str, Metric]]
CHAT_TOKENS = 256
WORDS = {name: asked.words[0] for name, asked in QUESTIONS.items()}  # in English, as the page asks


@dataclass(frozen=True)
class Task:
    """One evaluation task.

    Attributes:
        name: as given to `--task`; the paper's abbreviation where it has one.
        tags: the multi-task prompt, of which a sample may override languages, instruction and question;
            None for tasks that are chat only.
        question: what a chat model is asked where the sample brings no question; "{language}" is the one to
            translate into.
        max_new_tokens: limit of an answer to the tag prompt; chat answers are whole sentences and get `CHAT_TOKENS`.
        score: predictions and the name of a text normalisation to metrics.
        headline: the metrics that matter, most important first.
        normalization: default for manifests, by language: "" stands for all others.
        official_normalization: default for files in the official format, as in the released scripts.
        joins_pieces: audio beyond 30 s is asked piece by piece and the answers joined; elsewhere it is cut, as in the
            released scripts, and said so.
    """

    name: str
    title: str
    tags: TaskPrompt | None
    question: str
    max_new_tokens: int
    score: Score
    headline: tuple[str, ...]
    normalization: str = "lower_no_punctuation"
    english_normalization: str | None = None
    official_normalization: str = "none"
    joins_pieces: bool = False

    def default_normalization(self, predictions: Sequence[Prediction], official: bool) -> str:
        """The text normalisation of this task where the user names none."""
        if official:
            return self.official_normalization
        english = all(prediction.text_language == "en" for prediction in predictions)
        return self.english_normalization if english and self.english_normalization else self.normalization

    def fits(self, sample: Sample) -> bool:
        """Whether a sample is for this task, or at least doesn't say that it is for another."""
        if self.tags is None:
            return bool(sample.messages) or "question" in _tag_tasks(sample)
        if sample.messages or self.tags.task not in _tag_tasks(sample):
            return False
        if self.tags.task == "keyword" and sample.instruction != self.tags.instruction:
            return sample.instruction not in {each.tags.instruction for each in TASKS.values() if each.tags} - {None}
        # Only a line that names its task tells by its silence that it has no times.
        return not (self.tags.timestamps and sample.task) or sample.timestamps or bool(sample.words)


def _tag_tasks(sample: Sample) -> Sequence[str]:
    """The tasks in tags that a sample may be for, by what it says."""
    if sample.task:
        return (sample.task,)
    if sample.timestamps:
        return ("transcribe",)
    if sample.instruction in ("itn", "wo_itn"):
        return ("transcribe", "translate")
    if sample.instruction:
        return ("caption",) if sample.instruction.startswith("caption") else ("keyword",)
    return TAG_TASKS


_ASR = TaskPrompt("transcribe", instruction="wo_itn")


def _keyword(instruction: str, audio_language: str = "unknown") -> TaskPrompt:
    return TaskPrompt("keyword", audio_language, instruction=instruction)


TASKS = {
    task.name: task
    for task in (
        Task(
            "asr", "Speech recognition", _ASR, WORDS["transcribe"], 256,
            scoring.transcription, ("wer", "cer"),
            english_normalization="whisper_english", official_normalization="official", joins_pieces=True,
        ),
        Task(
            "s2tt", "Speech translation", TaskPrompt("translate", instruction="itn"),
            WORDS["translate"], 256, scoring.translation, ("bleu", "chrf"),
            normalization="none", joins_pieces=True,
        ),
        Task(
            "srwt", "Speech recognition with word times", TaskPrompt("transcribe", timestamps=True),
            WORDS["words"], 256,
            scoring.word_times, ("aas_ms", "median_shift_ms", "wer"), official_normalization="official",
        ),
        Task(
            "aac", "Audio captioning", TaskPrompt("caption", "unknown", instruction="caption_clotho"),
            WORDS["caption"], 30, scoring.caption, ("spider", "cider", "spice", "chrf"),
            normalization="none",
        ),
        Task(
            "asc", "Acoustic scenes", _keyword("scene"), WORDS["scene"], 10,
            scoring.label, ("accuracy",),
        ),
        Task(
            "ser", "Speech emotion", _keyword("emotion_recognition", "en"), WORDS["emotion"], 4,
            scoring.label, ("accuracy",),
        ),
        Task(
            "aqa", "Questions about audio", TaskPrompt("question", question=""), "", 4,
            scoring.answer, ("accuracy", "binary_accuracy"),
        ),
        Task(
            "vsc", "Vocal sounds", _keyword("vocal_classification", "en"), "Which vocal sound is this?", 4,
            scoring.label, ("accuracy",),
        ),
        Task(
            "mna", "Musical notes", _keyword("note_analysis"),
            WORDS["note"], 30,
            scoring.note, ("instrument_accuracy", "qualities_map", "pitch_accuracy"), normalization="none",
        ),
        Task(
            "sound", "Sounds", _keyword("event"), WORDS["sounds"], 16, scoring.label, ("accuracy",),
        ),
        Task(
            "lid", "Spoken language", TaskPrompt("question", "unknown", question=""), "Which language is spoken?", 8,
            scoring.label, ("accuracy",),
        ),
        Task(
            "chat", "Open questions", None, "Describe the audio.", CHAT_TOKENS,
            scoring.open_answer, ("contains_reference", "chrf"),
        ),
    )
}  # fmt: skip
