"""A task in tags on one audio of any length: each piece of at most 30 s by itself, answered as one."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from .audio import SAMPLE_RATE, load_audio, split_audio
from .chatml import encode_text
from .generation import GenerationOptions
from .pipeline import AudioChat
from .reply import Reply
from .sessions import Session
from .tags import TaskPrompt, write_words
from .word_times import timed_words_to_ids


def pieces(source: Any) -> Iterator[tuple[float, np.ndarray]]:
    """(start in seconds, 16 kHz float32 [samples]) of each piece of at most 30 s of an audio.

    Args:
        source: anything that `audio.load_audio` takes.

    Raises:
        audio.AudioError: the audio can't be used.
    """
    samples = 0
    for piece in split_audio(load_audio(source)):
        yield samples / SAMPLE_RATE, piece
        samples += len(piece)


def task_message(task: TaskPrompt, audio: Any) -> dict:
    """The message that asks a model for a task in tags."""
    return {"role": "user", "content": [{"type": "audio", "audio": audio}], "task": task}


def without_times(task: TaskPrompt) -> TaskPrompt:
    """The transcript alone that a task with word times asks for."""
    return replace(task, timestamps=False, instruction="wo_itn")


class TaskReply(Reply):
    """The answer to a task, read like that to a conversation.

    A model that spells its frames transcribes, and the times are where it spells the words; any other writes them
    itself. Where words have times, each piece's part begins with `<|0.00|>`, which stands in its prompt: so it can be
    told where the times begin anew. Otherwise each part is a line.
    """

    def __init__(
        self,
        chat: AudioChat,
        task: TaskPrompt,
        source: Any,
        options: GenerationOptions,
        session: Session | None = None,
        cancel: threading.Event | None = None,
    ):
        super().__init__(chat.info.context_limit)
        self._pieces = self._answer(chat, task, source, options, session, cancel)

    def _answer(self, chat, task, source, options, session, cancel) -> Iterator[str]:
        session = session or Session()
        for start, piece in pieces(source):
            if task.timestamps:
                yield self._add("<|0.00|>", [chat.tokenizer.convert_tokens_to_ids("<|0.00|>")])
            elif start:
                yield self._add("\n", encode_text(chat.tokenizer, "\n"))
            timed = task.timestamps and chat.spells
            asked = without_times(task) if timed else task
            part = chat.stream([task_message(asked, piece)], options, session=session, cancel=cancel)
            first_token, said = self.stats.ttft_s, len(self.token_ids)
            if timed:
                words = chat.time_words(part.finish().text, piece, session)
                yield self._add(write_words(words), timed_words_to_ids(chat.tokenizer, words))
            else:
                for text in part:
                    self.token_ids[said:] = part.token_ids
                    yield self._add(text)
                self.token_ids[said:] = part.token_ids
            self.stats, self.finish_reason = part.stats, part.finish_reason
            self.stats.ttft_s = part.stats.ttft_s if first_token is None else first_token
            if self.finish_reason == "cancelled":
                return

    def _add(self, text: str, ids: list[int] = ()) -> str:
        self.text += text
        self.token_ids += ids
        return text
