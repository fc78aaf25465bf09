"""How a request is best answered: as a conversation, or as a task in tags on one audio of any length, in pieces."""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .audio.cutting import MAX_CLIP_SECONDS, pieces, split_audio
from .audio.decoding import SAMPLE_RATE, load_audio
from .chat import AudioChat
from .engine.sampling import GenerationOptions
from .engine.sessions import Session
from .prompts.chatml import encode_text, encode_timed_words
from .prompts.messages import content_parts, conversation_audios
from .prompts.questions import QUESTIONS, task_prompt, wants_transcript
from .prompts.tags import TaskPrompt, write_words
from .reply import Progress, Reply


def answer(
    chat: AudioChat,
    conversation: Sequence[dict],
    options: GenerationOptions = GenerationOptions(),  # noqa: B008 - frozen
    *,
    session: Session | None = None,
    cancel: threading.Event | None = None,
    meant: Any = None,
) -> Reply:
    """Answer the last message as the model does it best: as `AudioChat.stream`, or the task that it asks for in tags.

    A pretrained model knows tags alone. One that spells its frames times words by them, and transcribes longer speech
    in parts of `chat.transcript_seconds`. Where the last message is the assistant's, its answer is gone on with: one
    that was broken off between parts holds `progress`, and nothing that came after them.

    Args:
        meant: the audio that the last question is about, where its own (or the only one) isn't it.

    Raises:
        pipeline.ChatError, audio.AudioError: while reading, as `AudioChat.stream`.
    """
    asked, progress = list(conversation), Progress()
    if asked and "progress" in asked[-1]:
        progress = asked.pop()["progress"]
    if asked and asked[-1]["role"] == "user":
        last = asked[-1]
        audios = conversation_audios([last]) or conversation_audios(asked)
        meant = audios[0] if meant is None and len(audios) == 1 else meant
        words = "".join(part["text"] for part in content_parts(last) if part["type"] == "text")
        task = task_prompt(words, pretrained=chat.info.is_pretrained)
        if (
            chat.has_ctc_head
            and len(audios) == 1
            and wants_transcript(last)
            and _is_long(meant, chat.transcript_seconds)
        ):
            task = QUESTIONS["transcribe"].tags
        if task is not None and meant is not None and (chat.info.is_pretrained or chat.has_ctc_head):
            return TaskReply(chat, task, meant, options, session, cancel, progress)
    return chat.stream(conversation, options, session=session, cancel=cancel)


def _is_long(source: Any, seconds: float) -> bool:
    return len(load_audio(source)) > seconds * SAMPLE_RATE


def task_message(task: TaskPrompt, audio: Any) -> dict:
    """The message that asks a model for a task in tags."""
    return {"role": "user", "content": [{"type": "audio", "audio": audio}], "task": task}


def without_times(task: TaskPrompt) -> TaskPrompt:
    """The transcript alone that a task with word times asks for."""
    return replace(task, timestamps=False, instruction="wo_itn")


class TaskReply(Reply):
    """The answer to a task, read like that to a conversation.

    A model that spells its frames transcribes in parts, and the times are where it spells the words; any other writes
    them itself. Where words have times, each piece's part begins with `<|0.00|>`, which stands in its prompt: so it can
    be told where the times begin anew. Otherwise each piece is a line.

    `progress` tells how far it came, from what it was begun with on: nothing of the parts before is told again.
    """

    def __init__(
        self,
        chat: AudioChat,
        task: TaskPrompt,
        source: Any,
        options: GenerationOptions,
        session: Session | None = None,
        cancel: threading.Event | None = None,
        progress: Progress = Progress(),  # noqa: B008 - frozen
    ):
        super().__init__(chat.info.context_limit)
        self.progress = self._before = progress
        self._chat, self._task, self._options, self._cancel = chat, task, options, cancel
        self._session = session or Session()
        self._pieces = self._answer(source)

    def _answer(self, source: Any) -> Iterator[str]:
        tokenizer, timed = self._chat.tokenizer, self._task.timestamps
        longest = self._chat.transcript_seconds if self._task.task == "transcribe" else MAX_CLIP_SECONDS
        cut = [(start, piece, split_audio(piece, longest)) for start, piece in pieces(source)]
        if (count := sum(len(parts) for *_, parts in cut)) > 1:
            seconds = sum(len(piece) for _, piece, _ in cut) / SAMPLE_RATE
            self.notices.append(f"The audio is {seconds:.0f} s long and was heard in {count} pieces.")
        known = self.progress.parts  # of what follows
        for start, piece, parts in cut:
            if known >= len(parts):
                known -= len(parts)
                continue
            if timed and self._chat.has_ctc_head:
                yield self._spelled(piece, parts, is_whole=len(cut) == 1)
            elif timed:
                yield self._add("<|0.00|>", [tokenizer.convert_tokens_to_ids("<|0.00|>")])
                yield from self._written(parts, known)
            else:
                if start and not known:
                    yield self._add("\n", encode_text(tokenizer, "\n"))
                yield from self._written(parts, known)
            known = 0
            if self.finish_reason == "cancelled":
                return

    def _spelled(self, piece: np.ndarray, parts: Sequence[np.ndarray], is_whole: bool) -> str:
        """Transcribe a piece and give its words the times at which they are spelled; at once, for they come at last."""
        tokenizer = self._chat.tokenizer
        said = " ".join(part.finish().text for part in self._listen(parts, without_times(self._task)))
        words = self._chat.time_words(said, piece, self._session)
        if is_whole and not words:  # silence, or what is spelled nowhere
            told = self._add(said, encode_text(tokenizer, said))
        else:
            begin = tokenizer.convert_tokens_to_ids("<|0.00|>")
            told = self._add("<|0.00|>" + write_words(words), [begin, *encode_timed_words(tokenizer, words)])
        if self.finish_reason != "cancelled":
            self._note_progress(len(parts))
        return told

    def _written(self, parts: Sequence[np.ndarray], known: int) -> Iterator[str]:
        """What the model writes about the parts of a piece but the first `known`, one after the other."""
        for number, part in enumerate(self._listen(parts[known:], self._task), known):
            if number:
                yield self._add(" ", encode_text(self._chat.tokenizer, " "))
            before = len(self.token_ids)
            for text in part:
                self.token_ids[before:] = part.token_ids
                yield self._add(text)
            self.token_ids[before:] = part.token_ids
            if part.finish_reason != "cancelled":
                self._note_progress(1)

    def _note_progress(self, parts: int) -> None:
        characters, tokens = self._before.characters + len(self.text), self._before.tokens + len(self.token_ids)
        self.progress = Progress(self.progress.parts + parts, characters, tokens)

    def _listen(self, parts: Sequence[np.ndarray], task: TaskPrompt) -> Iterator[Reply]:
        """The answers about the parts, each to be read to its end before the next; a cancelled one is the last."""
        for part in parts:
            reply = self._chat.stream(
                [task_message(task, part)], self._options, session=self._session, cancel=self._cancel
            )
            yield reply
            first_token = self.stats.ttft_s
            self.stats, self.finish_reason = reply.stats, reply.finish_reason
            self.stats.ttft_s = reply.stats.ttft_s if first_token is None else first_token
            if self.finish_reason == "cancelled":
                return

    def _add(self, text: str, ids: Sequence[int] = ()) -> str:
        self.text += text
        self.token_ids += ids
        return text
