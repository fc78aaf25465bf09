"""From samples to what a model is asked: tag prompts as in the released scripts, or chat questions."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ..audio.audio import Audio
from ..data.lines import DataError
from ..prompts.messages import Message, Part, content_parts, user_message
from ..prompts.questions import LANGUAGE_NAMES, wants_transcript
from ..prompts.tags import LANGUAGES, TaskPrompt, default_audio_language
from .samples import Sample
from .tasks import CHAT_TOKENS, Task

ENGLISH_NAMES = {code: english for code, (english, _) in LANGUAGE_NAMES.items()} | {"zh_tr": "traditional Chinese"}


@dataclass(frozen=True)
class Request:
    """What a model is asked at a time.

    Attributes:
        audios: in order.
        prompt: tags that follow the audios, or the messages of a conversation that holds them.
        max_new_tokens: limit of the answer.
    """

    audios: list[Audio]
    prompt: TaskPrompt | list[Message]
    max_new_tokens: int

    @property
    def transcribes(self) -> bool:
        """Whether it asks for a transcript, with times or without."""
        if isinstance(self.prompt, TaskPrompt):
            return self.prompt.task == "transcribe"
        return wants_transcript(self.prompt[-1])


def languages(task: Task, sample: Sample, default: str = "en") -> tuple[str, str]:
    """Language of the audio and of the answer.

    A sample's own fields come first; official files have them in their source ("covost2_de_en_test", "aishell1").

    Args:
        task: what to ask.
        sample: what to ask about.
        default: language of the speech, where neither sample nor source names it.
    """
    audio, text = sample.audio_language, sample.text_language
    source = sample.source.lower().replace("-", "_")
    if task.tags is not None and task.tags.task == "translate":
        parts = [part for part in source.split("_") if part in LANGUAGES]
        if not (audio and text) and len(parts) >= 2:
            return audio or parts[-2], text or parts[-1]
        return audio or default, text or "en"
    if task.tags is not None and task.tags.task == "transcribe":
        audio = audio or ("zh" if "aishell" in source else default)
        return audio, text or audio
    if sample.task:  # a line of a manifest, with the same defaults as in training
        return audio or default_audio_language(sample.task, sample.instruction), text or "en"
    return audio or (task.tags.audio_language if task.tags else default), text or "en"


def tag_prompt(task: Task, sample: Sample, default_language: str = "en") -> TaskPrompt:
    """The task's tags with the languages, the instruction and the question of a sample.

    Raises:
        DataError: the task has no tag prompt, or the sample doesn't fit one.
    """
    if sample.messages or len(sample.audios) != 1:
        raise DataError(
            "Sample {number} isn't one audio, which tag prompts need: ask with --prompt chat.", number=sample.index + 1
        )
    if task.tags is None:
        raise DataError('The task "{task}" is for chat models: ask with --prompt chat.', task=task.name)
    audio_language, text_language = languages(task, sample, default_language)
    instruction = sample.instruction or task.tags.instruction
    if sample.task == task.tags.task != "transcribe":
        instruction = sample.instruction  # a line that names its task but no instruction has none
    question = _question(task, sample, task.question)
    return replace(
        task.tags,
        audio_language=audio_language,
        text_language=text_language,
        instruction=instruction,
        question=question if task.tags.task == "question" else None,
    )


def chat_messages(task: Task, sample: Sample, audios: Sequence[Audio]) -> list[Message]:
    """The conversation to answer: the sample's own messages, its question, or the task's question.

    Args:
        task: what to ask.
        sample: what to ask about.
        audios: those of the sample.

    Raises:
        DataError: neither task nor sample has a question.
    """
    if sample.messages:
        return [_with_audios(message, audios) for message in sample.messages]
    _, text_language = languages(task, sample)
    target = ENGLISH_NAMES.get(text_language, text_language)
    return [user_message(_question(task, sample, task.question.format(language=target)), audios)]


def _with_audios(message: Message, audios: Sequence[Audio]) -> Message:
    """The message of a sample with its audios in place of their indices."""
    parts: list[Part] = [
        {"type": "audio", "audio": audios[part["audio"]]} if part["type"] == "audio" else part
        for part in content_parts(message)
    ]
    return {"role": message["role"], "content": parts}


def _question(task: Task, sample: Sample, default: str) -> str:
    if question := sample.question or default:
        return question
    raise DataError(
        'Sample {number} ({name}) needs a "question" for the task "{task}".',
        number=sample.index + 1,
        name=sample.name,
        task=task.name,
    )


def request(
    task: Task,
    sample: Sample,
    audios: Sequence[Audio],
    prompt: Literal["tags", "chat"],
    default_language: str = "en",
) -> Request:
    """What to ask a model about a sample.

    Args:
        task: what to ask.
        sample: what to ask about.
        audios: those of the sample, or a piece of its audio.
        prompt: as tags, or as a question in a chat.
        default_language: of the speech, where neither sample nor source names it.
    """
    if prompt == "chat":
        return Request([*audios], chat_messages(task, sample, audios), CHAT_TOKENS)
    return Request([*audios], tag_prompt(task, sample, default_language), task.max_new_tokens)
