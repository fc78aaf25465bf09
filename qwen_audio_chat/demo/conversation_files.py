"""Conversations as files: Markdown to read, JSON with the audios to import again."""

import base64
import codecs
import json
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Discriminator, Tag, TypeAdapter, ValidationError

from ..errors import UserError
from ..prompts.conversation import Conversation
from ..prompts.messages import AudioPart, Message, assistant_message, message_text
from ..transcripts.timed_words import readable
from .ask_handlers import MAX_CHARACTERS
from .page_audio import load_fitting, number_audios, page_audios, question_message
from .texts import duration, text
from .visitors import Job, Visitor

FORMAT = "qwen-audio-chat conversation"
VERSION = 1
MAX_MESSAGES = 1000
MAX_AUDIOS = 100
MAX_NAME_CHARACTERS = 200
_SUFFIX = {"markdown": "md", "json": "json"}


class _File(BaseModel):
    format: str
    messages: Any = None


class _Audio(BaseModel):
    type: Literal["audio"]
    name: str
    wav: str  # an audio file in base64


class _Text(BaseModel):
    type: Literal["text"]
    text: str


class _Unknown(BaseModel):
    """A part of a later version; it is left out."""

    type: str


def _kind(part: Any) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    return kind if kind in ("audio", "text") else "unknown"


class _Message(BaseModel):
    role: str
    content: list[
        Annotated[
            Annotated[_Audio, Tag("audio")] | Annotated[_Text, Tag("text")] | Annotated[_Unknown, Tag("unknown")],
            Discriminator(_kind),
        ]
    ]

    @property
    def audios(self) -> list[_Audio]:
        return [part for part in self.content if isinstance(part, _Audio)]

    @property
    def text(self) -> str:
        return "".join(part.text for part in self.content if isinstance(part, _Text))


_MESSAGES = TypeAdapter(list[_Message])


def write(visitor: Visitor, kind: str, lang: str) -> Path:
    """Write the conversation as "markdown" or "json" into the visitor's folder and return the path."""
    with visitor.lock:  # so that nothing is written after everything was deleted
        content = to_markdown(visitor.conversation, lang) if kind == "markdown" else to_json(visitor.conversation)
        folder = visitor.folder / secrets.token_hex(8)
        folder.mkdir(parents=True)
        path = folder / f"conversation.{_SUFFIX[kind]}"
        path.write_text(content, encoding="utf-8")
    return path


def to_markdown(conversation: Sequence[Message], lang: str) -> str:
    """The conversation to read; audios are named, not contained."""
    lines = ["# Qwen-Audio-Chat", ""]
    for message, audios, subject in number_audios(conversation):
        lines += [f"**{text('you' if message['role'] == 'user' else 'assistant', lang)}**", ""]
        for audio in audios:
            lines.append(f"- {text('audio', lang, number=audio.number)}: {audio.name} ({duration(audio.seconds)})")
        if audios:
            lines.append("")
        starts = (0.0,) if subject is None else subject.piece_starts
        lines += [readable(message_text(message), starts), ""]
    return "\n".join(lines)


def to_json(conversation: Sequence[Message]) -> str:
    """The conversation with its audios, as 16 kHz WAV files in base64."""
    messages = []
    for message in conversation:
        audios = [
            {"type": "audio", "name": audio.name, "wav": base64.b64encode(audio.file.read_bytes()).decode()}
            for audio in page_audios(message)
        ]
        content = [*audios, {"type": "text", "text": message_text(message)}]
        messages.append({"role": message["role"], "content": content})
    return json.dumps({"format": FORMAT, "version": VERSION, "messages": messages}, ensure_ascii=False, indent=1)


def read(path: Path, visitor: Visitor, job: Job) -> Conversation | None:
    """Read what `to_json` wrote, and store the audios in the visitor's folder. Every text in it is plain text.

    Returns:
        The conversation; None if the visitor's job was dropped meanwhile.

    Raises:
        UserError: the file is something else, is damaged, or holds too much.
    """
    try:
        data = path.read_bytes()
    except OSError as error:  # deleted as soon as it was uploaded
        raise UserError("a part of it is missing or damaged.") from error
    messages = _parse(data)
    conversation = Conversation()
    for message in messages:
        if message.role == "assistant":
            conversation.append(assistant_message(message.text))
            continue
        parts: list[AudioPart] = []
        loading = load_fitting(map(_decode, message.audios), visitor.chat.info.context_limit)
        for entry, audio in zip(message.audios, loading, strict=True):
            part = visitor.add_audio(entry.name[:MAX_NAME_CHARACTERS], audio, job)
            audio.release()  # nothing is asked about it yet
            if part is None:
                return None
            parts.append(part)
        conversation.append(question_message(message.text, parts))
    return conversation


def _parse(data: bytes) -> list[_Message]:
    """The messages in a file, checked against the limits."""
    try:
        file = _File.model_validate_json(data.removeprefix(codecs.BOM_UTF8))
        if file.format != FORMAT:
            raise UserError("it is of another format.")
        messages = _MESSAGES.validate_python(file.messages)
    except ValidationError as error:
        raise UserError("a part of it is missing or damaged.") from error
    if any(message.role not in ("user", "assistant") for message in messages):
        raise UserError('a role must be "user" or "assistant".')
    if any(message.audios and message.role == "assistant" for message in messages):
        raise UserError("only a user's message can hold audio.")
    if not messages:
        raise UserError("it holds no messages.")
    if len(messages) > MAX_MESSAGES:
        raise UserError("it holds more than {limit} messages.", limit=MAX_MESSAGES)
    if sum(len(message.audios) for message in messages) > MAX_AUDIOS:
        raise UserError("it holds more than {limit} audios.", limit=MAX_AUDIOS)
    if any(message.role == "user" and len(message.text) > MAX_CHARACTERS for message in messages):
        raise UserError("a question in it has more than {limit} characters.", limit=MAX_CHARACTERS)
    return messages


def _decode(audio: _Audio) -> bytes:
    try:
        return base64.b64decode(audio.wav, validate=True)
    except ValueError as error:
        raise UserError("a part of it is missing or damaged.") from error
