"""Conversations as files: Markdown to read, JSON with the audios to go on with."""

import base64
import binascii
import json
import secrets
from pathlib import Path

from ..prompts.conversation import Conversation
from ..transcripts.timed_words import readable
from .ask_handlers import MAX_CHARACTERS, load_fitting, user_message
from .render import message_clips, message_text, walk
from .texts import duration, text
from .visitors import Visitor

FORMAT = "qwen-audio-chat conversation"
VERSION = 1
MAX_MESSAGES = 1000
MAX_AUDIOS = 100
_DAMAGED = (
    KeyError,
    TypeError,
    AttributeError,
    RecursionError,
    UnicodeDecodeError,
    UnicodeEncodeError,
    json.JSONDecodeError,
    binascii.Error,
)
_SUFFIX = {"markdown": "md", "json": "json"}


def write(visitor: Visitor, kind: str, lang: str) -> Path:
    """Write the conversation as "markdown" or "json" into the visitor's folder and return the path."""
    with visitor.lock:  # nothing is written once everything is deleted
        content = to_markdown(visitor.conversation, lang) if kind == "markdown" else to_json(visitor.conversation)
        folder = visitor.folder / secrets.token_hex(8)
        folder.mkdir(parents=True)
        path = folder / f"conversation.{_SUFFIX[kind]}"
        path.write_text(content, encoding="utf-8")
    return path


def to_markdown(conversation: Conversation, lang: str) -> str:
    """The conversation to read; audios are named, not contained."""
    lines = ["# Qwen-Audio-Chat", ""]
    for message, clips, meant in walk(conversation):
        lines += [f"**{text('you' if message['role'] == 'user' else 'assistant', lang)}**", ""]
        for number, clip in clips:
            lines.append(f"- {text('audio', lang, number=number)}: {clip.name} ({duration(clip.seconds)})")
        if clips:
            lines.append("")
        starts = (0.0,) if meant is None else meant[1].starts
        lines += [readable(message_text(message), starts), ""]
    return "\n".join(lines)


def to_json(conversation: Conversation) -> str:
    """The conversation with its audios as base64 of 16 kHz WAV files."""
    messages = []
    for message in conversation:
        audios = [
            {"type": "audio", "name": clip.name, "wav": base64.b64encode(clip.wav.read_bytes()).decode()}
            for clip in message_clips(message)
        ]
        content = [*audios, {"type": "text", "text": message_text(message)}]
        messages.append({"role": message["role"], "content": content})
    return json.dumps({"format": FORMAT, "version": VERSION, "messages": messages}, ensure_ascii=False, indent=1)


def read(path: Path, visitor: Visitor, lang: str) -> Conversation:
    """Read what `to_json` wrote, with the audios into the visitor's folder. Every text in it is plain text.

    Raises:
        ValueError: the file is something else, damaged, or holds too much; the conversation stays.
        state.Forgotten: the visitor left, or had everything deleted, meanwhile.
    """
    dropped = visitor.dropped
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"), parse_int=float)  # no number is too long for it
        if document["format"] != FORMAT:
            raise ValueError("it is of another format.")
        waiting = [_parse(message) for message in document["messages"]]
    except _DAMAGED as error:
        raise ValueError("a part of it is missing or damaged.") from error
    if not waiting:
        raise ValueError("it holds no messages.")
    if len(waiting) > MAX_MESSAGES:
        raise ValueError(f"it holds more than {MAX_MESSAGES} messages.")
    if sum(len(audios) for _, audios, _ in waiting) > MAX_AUDIOS:
        raise ValueError(f"it holds more than {MAX_AUDIOS} audios.")
    if any(role == "user" and len(words) > MAX_CHARACTERS for role, _, words in waiting):
        raise ValueError(f"a question in it has more than {MAX_CHARACTERS} characters.")
    conversation = Conversation()
    for role, audios, words in waiting:
        if role == "assistant":
            conversation.append({"role": role, "content": words})
        else:
            loading = load_fitting((data for _, data in audios), visitor.chat.info, lang)
            clips = []
            for (name, _), waveform in zip(audios, loading, strict=True):
                with visitor.keeping(dropped):
                    clips.append(visitor.add_clip(name, waveform))
            conversation.append(user_message(words, clips))
    return conversation


def _parse(message: dict) -> tuple[str, list[tuple[str, bytes]], str]:
    """(role, [(name, encoded audio)], text) of one message in a file."""
    role, content = message["role"], message["content"]
    if role not in ("user", "assistant"):
        raise ValueError('a role must be "user" or "assistant".')
    audios = [part for part in content if part["type"] == "audio"]
    if audios and role == "assistant":
        raise ValueError("only a user's message can hold audio.")
    words = "".join(str(part["text"]) for part in content if part["type"] == "text")
    names = [str(part["name"])[:200] for part in audios]
    for each in (words, *names):
        each.encode()  # a lone surrogate can't be shown
    sounds = [base64.b64decode(part["wav"].encode(), validate=True) for part in audios]
    return role, list(zip(names, sounds, strict=True)), words
