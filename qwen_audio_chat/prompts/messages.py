"""The messages of a conversation, as everywhere in the transformers ecosystem, with every key that this project knows.

    {"role": "user", "content": [{"type": "audio", "audio": "a.wav"}, {"type": "text", "text": "What is said?"}]}
    {"role": "assistant", "content": "...", "token_ids": [...]}

Text is always plain text: it never becomes a special token, and never opens a file.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

from ..errors import UserError
from .tags import TaskPrompt

ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Progress:
    """How much of an audio that is answered in parts is done: finished parts, and what was said about them."""

    parts: int = 0
    characters: int = 0
    tokens: int = 0


class TextPart(TypedDict):
    """A piece of plain text."""

    type: Literal["text"]
    text: str


class AudioPart(TypedDict):
    """An audio: an `Audio`, or a source that `Audio.load` takes. `name` and `picture` are the page's."""

    type: Literal["audio"]
    audio: Any
    name: NotRequired[str]  # what the visitor calls it
    picture: NotRequired[Path]  # its spectrogram


Part = TextPart | AudioPart


class Message(TypedDict):
    """One message.

    Keys beyond role and content:
        token_ids: of an assistant's message, the ids as the model generated them.
        task: of a user's message, asks in the format of pretraining instead: its audio, then these tags.
        finish_reason, notices: of an assistant's message, how it ended and what was done to answer it.
        progress: of an assistant's message that was stopped between the parts of a long audio, how far it came.
    """

    role: Literal["system", "user", "assistant"]
    content: str | list[Part]
    token_ids: NotRequired[list[int]]
    task: NotRequired[TaskPrompt]
    finish_reason: NotRequired[str]
    notices: NotRequired[list[str]]
    progress: NotRequired[Progress]


def user_message(text: str = "", audios: Sequence[Any] = ()) -> Message:
    """A user's message: `audios`, then `text` where there is any."""
    content: list[Part] = [{"type": "audio", "audio": audio} for audio in audios]
    if text:
        content.append({"type": "text", "text": text})
    return {"role": "user", "content": content}


def assistant_message(text: str, token_ids: Sequence[int] | None = None) -> Message:
    """An assistant's message, with the ids as generated where they are known."""
    message: Message = {"role": "assistant", "content": text}
    if token_ids is not None:
        message["token_ids"] = list(token_ids)
    return message


def content_parts(message: Message) -> list[Part]:
    """The parts of a message's content; a plain string is one text part.

    Raises:
        UserError: the message has an unknown role, or a part that is neither audio nor text.
    """
    if message.get("role") not in ROLES:
        raise UserError(
            'A message needs a role of "system", "user" or "assistant", not {role!r}.', role=message.get("role")
        )
    content = message.get("content", "")
    parts: list[Part] = [{"type": "text", "text": content}] if isinstance(content, str) else content
    for part in parts:
        kind = part.get("type") if isinstance(part, dict) else part
        if kind not in ("audio", "text") or kind not in part or not isinstance(part.get("text", ""), str):
            raise UserError('A message\'s content takes parts of type "audio" and "text", not {kind!r}.', kind=kind)
        if kind == "audio" and message["role"] != "user":
            raise UserError("Only a user's message can hold audio.")
    return parts


def message_text(message: Message) -> str:
    """The text parts of a message, joined."""
    return "".join(part["text"] for part in content_parts(message) if part["type"] == "text")


def conversation_audios(messages: Sequence[Message]) -> list[Any]:
    """The audios of a conversation, in the order of their numbers."""
    return [part["audio"] for message in messages for part in content_parts(message) if part["type"] == "audio"]
