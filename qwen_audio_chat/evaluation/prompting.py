"""From samples to what a model is asked: tag prompts as in the released scripts, or chat questions."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..prompts.questions import LANGUAGE_NAMES, wants_transcript
from ..prompts.tags import LANGUAGES, TaskPrompt, default_audio_language
from .data import DataError, Sample
from .tasks import CHAT_TOKENS, Task

ENGLISH_NAMES = {code: english for code, (english, _) in LANGUAGE_NAMES.items()} | {"zh_tr": "traditional Chinese"}


@dataclass(frozen=True)
class Request:
    """What one call of a model gets.

    Attributes:
        audios: waveforms [samples] at 16 kHz, in order.
        prompt: tags that follow the audios, or the messages of a conversation with the waveforms in place.
    """

    audios: list[np.ndarray]
    prompt: TaskPrompt | list[dict[str, Any]]
    max_new_tokens: int

    @property
    def transcribes(self) -> bool:
        """Whether it asks for what is said, with times or without."""
        if isinstance(self.prompt, TaskPrompt):
            return self.prompt.task == "transcribe"
        return wants_transcript(self.prompt[-1])


def languages(task: Task, sample: Sample, default: str = "en") -> tuple[str, str]:
    """Language of the audio and of the answer.

    A sample's own fields come first; the official files tell it by their source ("covost2_de_en_test", "aishell1").
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
    if sample.task:  # a line of a manifest, asked as training reads it
        return audio or default_audio_language(sample.task, sample.instruction), text or "en"
    return audio or (task.tags.audio_language if task.tags else default), text or "en"


def tag_prompt(task: Task, sample: Sample, default_language: str = "en") -> TaskPrompt:
    """The task's tags with the languages, instruction and question of a sample.

    Raises:
        DataError: the task has no tag prompt, or the sample doesn't fit one.
    """
    if sample.messages or len(sample.audios) != 1:
        raise DataError(f"Sample {sample.index + 1} isn't one audio, which tag prompts need: ask with --prompt chat.")
    if task.tags is None:
        raise DataError(f'The task "{task.name}" is for chat models: ask with --prompt chat.')
    audio_language, text_language = languages(task, sample, default_language)
    instruction = sample.instruction or task.tags.instruction
    if sample.task == task.tags.task != "transcribe":
        instruction = sample.instruction  # a line that names its task says all; without an instruction it has none
    question = sample.question or task.question
    if not question:
        raise DataError(f'Sample {sample.index + 1} ({sample.name}) needs a "question" for the task "{task.name}".')
    return replace(
        task.tags,
        audio_language=audio_language,
        text_language=text_language,
        instruction=instruction,
        question=question if task.tags.task == "question" else None,
    )


def chat_messages(task: Task, sample: Sample, audios: list[np.ndarray]) -> list[dict[str, Any]]:
    """The conversation to be answered: the sample's own turns, its question, or the task's question.

    Args:
        audios: float32 waveforms [samples] at 16 kHz.

    Raises:
        DataError: the task has no question of its own, and the sample neither.
    """
    if sample.messages:
        return [_with_audio(message, audios) for message in sample.messages]
    _, text_language = languages(task, sample)
    target = ENGLISH_NAMES.get(text_language, text_language)
    question = sample.question or task.question.format(language=target)
    if not question:
        raise DataError(f'Sample {sample.index + 1} ({sample.name}) needs a "question" for the task "{task.name}".')
    content = [{"type": "audio", "audio": audio} for audio in audios] + [{"type": "text", "text": question}]
    return [{"role": "user", "content": content}]


def _with_audio(message: dict[str, Any], audios: list[np.ndarray]) -> dict[str, Any]:
    if isinstance(message["content"], str):
        return message
    parts = [
        part | {"audio": audios[part["audio"]]} if part["type"] == "audio" else part for part in message["content"]
    ]
    return message | {"content": parts}


def request(task: Task, sample: Sample, audios: list[np.ndarray], prompt: str, default_language: str = "en") -> Request:
    """What to ask a model about waveforms of a sample; `prompt` is "tags" or "chat"."""
    if prompt == "chat":
        return Request(audios, chat_messages(task, sample, audios), CHAT_TOKENS)
    return Request(audios, tag_prompt(task, sample, default_language), task.max_new_tokens)
