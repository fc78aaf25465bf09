"""The registry of evaluation tasks: the paper's task families and the pocket model's own.

A task says what to ask (the tags of the released evaluation scripts, or a natural question for a chat model), how long
an answer may be, and how answers are scored.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..prompts.questions import QUESTIONS
from ..prompts.tags import TASKS as TAG_TASKS
from ..prompts.tags import TaskPrompt
from . import scoring
from .metrics import Metric
from .predictions import Prediction
from .samples import Sample

Score = Callable[[Sequence[Prediction], str], dict[str, Metric]]
CHAT_TOKENS = 256  # limit of an answer in a chat
ENGLISH_QUESTIONS = {name: question.text[0] for name, question in QUESTIONS.items()}  # as the page asks


@dataclass(frozen=True)
class Task:
    """One evaluation task.

    Attributes:
        name: as given to `--task`; the paper's abbreviation where it has one.
        title: for people.
        tags: the multi-task prompt, of which a sample may override languages, instruction and question; None for a task
            that only chat models have.
        question: what a chat model is asked where the sample has no question; "{language}" is the one to translate
            into.
        max_new_tokens: limit of an answer to the tag prompt; chat answers are whole sentences and get `CHAT_TOKENS`.
        score: computes the metrics from predictions and the name of a text normalisation.
        headline: the metrics that matter, most important first.
        normalization: default for manifests.
        english_normalization: default for manifests in English, where it differs.
        official_normalization: default for files in the official format, as in the released scripts.
        joins_pieces: audio over 30 s is asked piece by piece and the answers are joined. For other tasks it is cut to
            30 s, as in the released scripts, with a notice.
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
        """Whether a sample is for this task, or at least doesn't say that it is for another one."""
        if self.tags is None:
            return bool(sample.messages) or "question" in _tag_tasks(sample)
        if sample.messages or self.tags.task not in _tag_tasks(sample):
            return False
        if self.tags.task == "keyword" and sample.instruction != self.tags.instruction:
            return sample.instruction not in {each.tags.instruction for each in TASKS.values() if each.tags} - {None}
        # A line that names its task but no timestamps has none; a line without a task may have them.
        return not (self.tags.timestamps and sample.task) or sample.timestamps or bool(sample.words)


def _tag_tasks(sample: Sample) -> Sequence[str]:
    """The tasks of `tags.TaskPrompt` that a sample may be for."""
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
            "asr", "Speech recognition", _ASR, ENGLISH_QUESTIONS["transcribe"], 256,
            scoring.score_transcripts, ("wer", "cer"),
            english_normalization="whisper_english", official_normalization="official", joins_pieces=True,
        ),
        Task(
            "s2tt", "Speech translation", TaskPrompt("translate", instruction="itn"),
            ENGLISH_QUESTIONS["translate"], 256, scoring.score_translations, ("bleu", "chrf"),
            normalization="none", joins_pieces=True,
        ),
        Task(
            "srwt", "Speech recognition with word times", TaskPrompt("transcribe", timestamps=True),
            ENGLISH_QUESTIONS["words"], 256,
            scoring.score_word_times, ("aas_ms", "median_shift_ms", "wer"), official_normalization="official",
        ),
        Task(
            "aac", "Audio captioning", TaskPrompt("caption", "unknown", instruction="caption_clotho"),
            ENGLISH_QUESTIONS["caption"], 30, scoring.score_captions, ("spider", "cider", "spice", "chrf"),
            normalization="none",
        ),
        Task(
            "asc", "Acoustic scenes", _keyword("scene"), ENGLISH_QUESTIONS["scene"], 10,
            scoring.score_labels, ("accuracy",),
        ),
        Task(
            "ser", "Speech emotion", _keyword("emotion_recognition", "en"), ENGLISH_QUESTIONS["emotion"], 4,
            scoring.score_labels, ("accuracy",),
        ),
        Task(
            "aqa", "Questions about audio", TaskPrompt("question", question=""), "", 4,
            scoring.score_short_answers, ("accuracy", "binary_accuracy"),
        ),
        Task(
            "vsc", "Vocal sounds", _keyword("vocal_classification", "en"), "Which vocal sound is this?", 4,
            scoring.score_labels, ("accuracy",),
        ),
        Task(
            "mna", "Musical notes", _keyword("note_analysis"),
            ENGLISH_QUESTIONS["note"], 30,
            scoring.score_notes, ("instrument_accuracy", "qualities_map", "pitch_accuracy"), normalization="none",
        ),
        Task(
            "sound", "Sounds", _keyword("event"), ENGLISH_QUESTIONS["sounds"], 16, scoring.score_labels, ("accuracy",),
        ),
        Task(
            "lid", "Spoken language", TaskPrompt("question", "unknown", question=""), "Which language is spoken?", 8,
            scoring.score_labels, ("accuracy",),
        ),
        Task(
            "chat", "Open questions", None, "Describe the audio.", CHAT_TOKENS,
            scoring.score_open_answers, ("contains_reference", "chrf"),
        ),
    )
}  # fmt: skip
