"""`TaskReply`: one question about one audio of any length, asked in parts where the model needs that.

The only place that asks long audio in parts; the page, the commands and `transcribe` all come here.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from ..audio.audio import Audio
from ..audio.cutting import MAX_CLIP_SECONDS
from ..chat import AudioChat
from ..engine.sampling import GenerationOptions
from ..engine.sessions import Session
from ..prompts.chatml import encode_text, encode_timed_words
from ..prompts.messages import Message, Progress, user_message
from ..prompts.tags import TIMES_BEGIN, TaskPrompt, TimedWord, strip_tags, write_words
from ..prompts.tokenizer import token_ids
from ..reply import Reply


def task_message(task: TaskPrompt, audio: Any) -> Message:
    """The message that asks a model for a task in tags."""
    return {**user_message("", [audio]), "task": task}


def without_times(task: TaskPrompt) -> TaskPrompt:
    """The transcript alone that a task with word times asks for."""
    return replace(task, timestamps=False, instruction="wo_itn")


class TaskReply(Reply):
    """The answer to a task about one audio, read like that to a conversation.

    The audio is cut into pieces of at most 30 s, on which times restart, and a piece into parts of at most
    `chat.transcript_seconds` where speech is transcribed. With a CTC head the times of words come from alignment; any
    other model writes them. In a transcript with times each piece begins with `<|0.00|>`, which tells where the times
    restart; otherwise each piece is a line.

    Args:
        task: what to ask about each part.
        audio: what to ask about.
        progress: what an earlier reply that was stopped has finished; the finished parts are not repeated.
        request: makes the message for a part, `task_message` by default.

    Attributes:
        segments: each finished part as (start, end, text) in seconds of the whole audio, tags removed.
        progress: finished parts, counted from the value passed in.
    """

    def __init__(
        self,
        chat: AudioChat,
        task: TaskPrompt,
        audio: Audio,
        options: GenerationOptions = GenerationOptions(),  # noqa: B008 - frozen
        session: Session | None = None,
        cancel: threading.Event | None = None,
        progress: Progress = Progress(),  # noqa: B008 - frozen
        request: Callable[[TaskPrompt, Audio], Message] = task_message,
    ):
        super().__init__(chat.info.context_limit, lambda _: self._answer(audio))
        self.segments: list[TimedWord] = []
        self.progress: Progress = progress
        self._before = progress
        self._chat, self._task, self._options, self._cancel = chat, task, options, cancel
        self._session = session or Session()  # of the whole audio
        self._part_session = Session()  # never opened: the parts leave the visitor's conversation as it is
        self._request = request

    def _answer(self, audio: Audio) -> Iterator[str]:
        tokenizer, timed = self._chat.tokenizer, self._task.timestamps
        longest = self._chat.transcript_seconds if self._task.task == "transcribe" else MAX_CLIP_SECONDS
        pieces = audio.pieces()
        parts_of_pieces = [piece.pieces(longest) for piece in pieces]
        if (count := sum(map(len, parts_of_pieces))) > 1:
            self.notices.append(f"The audio is {audio.seconds:.0f} s long and was heard in {count} pieces.")
        finished = self.progress.parts
        for piece, parts in zip(pieces, parts_of_pieces, strict=True):
            if finished >= len(parts):
                finished -= len(parts)
                continue
            if timed and self._chat.has_ctc_head:
                yield self._aligned(piece, parts, is_whole=len(pieces) == 1)
            elif timed:
                yield self._add(TIMES_BEGIN, token_ids(tokenizer, TIMES_BEGIN))
                yield from self._written(parts, finished)
            else:
                if piece is not pieces[0] and not finished:
                    yield self._add("\n", encode_text(tokenizer, "\n"))
                yield from self._written(parts, finished)
            finished = 0
            if self.finish_reason == "cancelled":
                return

    def _aligned(self, piece: Audio, parts: Sequence[Audio], is_whole: bool) -> str:
        """Transcribe a piece and align its words with the sound; in one go, since times need the whole transcript."""
        tokenizer = self._chat.tokenizer
        transcript = " ".join(reply.finish().text for _, reply in self._ask(parts, without_times(self._task)))
        # A piece of one part was encoded when that was asked about.
        session = self._part_session if len(parts) == 1 else self._session
        words = self._chat.time_words(transcript, piece, session)
        if is_whole and not words:  # silence, or text without any character of the alphabet
            added = self._add(transcript, encode_text(tokenizer, transcript))
        else:
            ids = token_ids(tokenizer, TIMES_BEGIN) + encode_timed_words(tokenizer, words)
            added = self._add(TIMES_BEGIN + write_words(words), ids)
        if self.finish_reason != "cancelled":
            self._note_progress(len(parts))
        return added

    def _written(self, parts: Sequence[Audio], finished: int) -> Iterator[str]:
        """What the model writes about the parts of a piece, one after the other, without the first `finished`."""
        for number, (part, reply) in enumerate(self._ask(parts[finished:], self._task), finished):
            if number:
                yield self._add(" ", encode_text(self._chat.tokenizer, " "))
            before = len(self.token_ids)
            for text in reply:
                self.token_ids[before:] = reply.token_ids
                yield self._add(text)
            self.token_ids[before:] = reply.token_ids
            if reply.finish_reason != "cancelled":
                self.segments.append(
                    TimedWord(round(part.start, 3), round(part.start + part.seconds, 3), strip_tags(reply.text))
                )
                self._note_progress(1)

    def _note_progress(self, parts: int) -> None:
        characters, tokens = self._before.characters + len(self.text), self._before.tokens + len(self.token_ids)
        self.progress = Progress(self.progress.parts + parts, characters, tokens)

    def _ask(self, parts: Sequence[Audio], task: TaskPrompt) -> Iterator[tuple[Audio, Reply]]:
        """Each part with the answer about it, to be read to its end before the next; a cancelled one is the last."""
        for part in parts:
            message = self._request(task, part)
            reply = self._chat.stream([message], self._options, session=self._part_session, cancel=self._cancel)
            yield part, reply
            first_token = self.stats.ttft_s
            self.stats, self.finish_reason = reply.stats, reply.finish_reason
            self.stats.ttft_s = reply.stats.ttft_s if first_token is None else first_token
            if self.finish_reason == "cancelled":
                return

    def _add(self, text: str, ids: Sequence[int] = ()) -> str:
        self.text += text
        self.token_ids += ids
        return text
