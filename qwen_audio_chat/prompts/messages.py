"""Messages."""

from collections.abc import Sequence
from typing import Any

ROLES = ("system", "user", "assistant")


class Conversation(list):
    """A list of messages with shorthands to add turns. Audios are numbered from 1 through the whole conversation."""

    def ask(self, text: str = "", audios: Sequence[Any] = ()) -> "Conversation":
        """Append a user's turn: `audios` (anything that `audio.load_audio` takes), then `text`. Returns itself."""
        content = [{"type": "audio", "audio": audio} for audio in audios]
        if text:
            content.append({"type": "text", "text": text})
        self.append({"role": "user", "content": content})
        return self

    def answer(self, text: str, token_ids: Sequence[int] | None = None) -> "Conversation":
        """Append an assistant's turn, with the ids as generated where they are known. Returns itself."""
        message = {"role": "assistant", "content": text}
        if token_ids is not None:
            message["token_ids"] = list(token_ids)
        self.append(message)
        return self


def content_parts(message: dict) -> list[dict]:
    """The parts of a message's content; a plain string is one text part.

    Raises:
        ValueError: the message has an unknown role, or a part that is neither audio nor text.
    """
    if message.get("role") not in ROLES:
        raise ValueError(f'A message needs a role of "system", "user" or "assistant", not {message.get("role")!r}.')
    content = message.get("content", "")
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    for part in parts:
        kind = part.get("type") if isinstance(part, dict) else part
        if kind not in ("audio", "text") or kind not in part or not isinstance(part.get("text", ""), str):
            raise ValueError(f'A message\'s content takes parts of type "audio" and "text", not {kind!r}.')
        if kind == "audio" and message["role"] != "user":
            raise ValueError("Only a user's message can hold audio.")
    return parts


def conversation_audios(messages: Sequence[dict]) -> list[Any]:
    """The audio sources of a conversation, in the order of their numbers."""
    return [part["audio"] for message in messages for part in content_parts(message) if part["type"] == "audio"]
