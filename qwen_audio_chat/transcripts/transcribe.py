"""The transcript of an audio of any length, segment by segment."""

from collections.abc import Iterator
from typing import Any

from ..audio.audio import Audio
from ..chat import AudioChat
from ..prompts.messages import Message, user_message
from ..prompts.questions import QUESTIONS, question
from ..prompts.tags import TaskPrompt, TimedWord
from .task_reply import TaskReply, task_message


def transcribe(chat: AudioChat, source: Any) -> Iterator[TimedWord]:
    """What is said in an audio, in segments of at most `chat.transcript_seconds`.

    Args:
        source: an `Audio`, or anything that `Audio.load` takes.

    Raises:
        AudioError: the audio can't be used.
    """
    task = QUESTIONS["transcribe"].tags
    assert task is not None
    request = task_message if chat.info.is_pretrained else _ask_in_words
    reply = TaskReply(chat, task, Audio.load(source), request=request)
    done = 0
    for _ in reply:
        yield from reply.segments[done:]
        done = len(reply.segments)
    yield from reply.segments[done:]


def _ask_in_words(_task: TaskPrompt, audio: Audio) -> Message:
    return user_message(question("transcribe"), [audio])
