"""A visitor's conversation as the Chatbot's messages, one for one.

Text of visitors and of the model is shown as it is and never parsed. All HTML is made here, and what others wrote
(names of files, words of an answer) is escaped on its way into it.
"""

import base64
import re
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

import gradio as gr

from ..chat import ModelInfo
from ..prompts.messages import content_parts
from ..transcripts import subtitles
from ..transcripts import timed_words as transcripts
from .texts import duration, text
from .visitors import Clip, Visitor

# The Chatbot sanitizes text but still takes it for HTML. A zero-width space where a tag or an entity would begin makes
# it plain; `unguard` takes it away from what comes back edited.
_GUARD = "\u200b"


def guard(words: str) -> str:
    """Text that no browser takes for HTML, and looks the same."""
    return re.sub(r"[<&](?=[A-Za-z/!?#])", lambda match: match.group() + _GUARD, words)


def unguard(words: str) -> str:
    """Undo `guard`."""
    return re.sub(f"([<&]){_GUARD}", r"\1", words)


def message_text(message: dict) -> str:
    """The text parts of a message, joined."""
    return "".join(part["text"] for part in content_parts(message) if part["type"] == "text")


def message_clips(message: dict) -> list[Clip]:
    """The audios of a message."""
    return [part["clip"] for part in content_parts(message) if part["type"] == "audio"]


def walk(conversation: Sequence[dict]) -> Iterator[tuple[dict, list[tuple[int, Clip]], tuple[int, Clip] | None]]:
    """Each message with its (number, audio) pairs, and the one that the message or the answer is about."""
    clips, meant = [], None
    for message in conversation:
        new = list(enumerate(message_clips(message), start=len(clips) + 1))
        clips += new
        if message["role"] == "user":
            number = transcripts.meant_audio(message_text(message), [number for number, _ in new], len(clips))
            meant = None if number is None else clips[number - 1]
        yield message, new, meant


def chat_messages(visitor: Visitor, lang: str, partial: str | None = None) -> list[dict]:
    """The Chatbot's value: message i is message i of the conversation.

    Args:
        partial: the answer so far, while it is being written; it goes on with the last message where that is the
            assistant's.
    """
    shown, meant = [], None
    for index, (message, new, meant) in enumerate(walk(visitor.conversation)):
        is_last = index == len(visitor.conversation) - 1
        if message["role"] == "user":
            cards = [_html(clip_card(clip, number, lang)) for number, clip in new]
            shown.append({"role": "user", "content": [*cards, guard(message_text(message))]})
        else:
            words = message_text(message) + (partial if partial and is_last else "")
            shown.append(_answer(words, message, meant, lang, is_last and partial is None))
    if partial is not None and (not shown or shown[-1]["role"] == "user"):
        shown.append({"role": "assistant", "content": guard(transcripts.readable(partial, _starts(meant))) or "…"})
    elif visitor.note and partial is None:
        shown.append({"role": "assistant", "content": _html(f'<p class="qa-note">{escape(visitor.note)}</p>')})
    return shown


def _starts(meant: tuple[int, Clip] | None) -> tuple[float, ...]:
    return (0.0,) if meant is None else meant[1].starts


def _answer(words: str, message: dict, meant: tuple[int, Clip] | None, lang: str, is_last: bool) -> dict:
    """An assistant's message: what it says, what can be played of it, how it ended."""
    content = [guard(transcripts.readable(words, _starts(meant))) or "…"]
    if meant is not None:
        content += [_html(html) for html in times_card(words, *meant, lang)]
    ending = message.get("finish_reason")
    endings = {"cancelled": "stopped", "length": "length", "repetition": "repetition"}
    notices = [text(endings[ending], lang)] if ending in endings else []
    notices += message.get("notices", [])
    if notices:
        lines = "".join(f'<p class="qa-note">{escape(notice)}</p>' for notice in notices)
        content.append(_html(f'<div class="qa-notices">{lines}</div>'))
    shown = {"role": "assistant", "content": content}
    if is_last and ending in ("length", "cancelled"):
        shown["options"] = [{"value": "continue", "label": text("continue", lang)}]
    return shown


def _html(html: str) -> gr.HTML:
    return gr.HTML(html, padding=False, apply_default_css=False, js_on_load=None, render=False)


def file_url(path) -> str:
    """The address of a file in Gradio's upload folder, relative to the page."""
    return escape(f"gradio_api/file={quote(str(path))}")


def clip_card(clip: Clip, number: int, lang: str) -> str:
    """A player: number, name, length, and the log-mel picture to seek in."""
    name, start = text("audio", lang, number=number), "0:00" if clip.seconds >= 9.95 else "0.0"
    return (
        f'<figure class="qa-clip" data-src="{file_url(clip.wav)}" data-seconds="{clip.seconds:.3f}">'
        f'<figcaption><b>{name}</b><span class="qa-name" title="{escape(clip.name)}">{escape(clip.name)}</span>'
        f'<span class="qa-time"><span class="qa-now">{start}</span> / {duration(clip.seconds)}</span></figcaption>'
        '<div class="qa-row">'
        f'<button type="button" class="qa-play" aria-label="{text("play", lang, what=name)}"></button>'
        f'<div class="qa-seek" role="slider" tabindex="0" aria-label="{text("position", lang, what=name)}"'
        f' aria-valuemin="0" aria-valuemax="{clip.seconds:.1f}" aria-valuenow="0">'
        f'<img src="{file_url(clip.picture)}" alt="{text("picture", lang, what=name)}" draggable="false">'
        '<i class="qa-span"></i><i class="qa-head"></i></div></div></figure>'
    )


def times_card(words: str, number: int, clip: Clip, lang: str) -> list[str]:
    """Buttons that play exactly what an answer's times name, and subtitles to download; nothing without times."""
    spans = [span for span in transcripts.spans(words, clip.starts) if span.start < clip.seconds]
    if not spans:
        return []
    spoken = subtitles.cues(transcripts.timed_words(words, clip.starts))
    title = text("transcript", lang) if spoken else text("spans", lang, what=text("audio", lang, number=number))
    src = file_url(clip.wav)
    buttons = "".join(
        f'<button type="button" class="qa-piece" data-src="{src}" data-start="{span.start:.2f}"'
        f' data-end="{min(span.end, clip.seconds):.2f}">'
        f"{f'<b>{escape(span.word)}</b>' if span.word else ''}<small>{span.start:.2f}–{span.end:.2f}</small></button>"
        for span in spans
    )
    links = ""
    if spoken:
        stem = re.sub(r"\.\w{1,5}$", "", clip.name)
        links = "".join(
            f'<a class="qa-download" download="{escape(stem)}.{suffix}" href="data:{kind};base64,{_base64(content)}">'
            f"{suffix.upper()}</a>"
            for suffix, kind, content in (
                ("srt", "application/x-subrip", subtitles.to_srt(spoken)),
                ("vtt", "text/vtt", subtitles.to_vtt(spoken)),
            )
        )
    return [f'<div class="qa-times"><div class="qa-times-head">{escape(title)}{links}</div>{buttons}</div>']


def _base64(content: str) -> str:
    return base64.b64encode(content.encode()).decode()


def model_name(info: ModelInfo) -> str:
    """The model's name for visitors: of a folder its last part, for where it lies is not their business."""
    return Path(info.name).name if Path(info.name).is_absolute() else info.name


def status_line(info: ModelInfo, figures: Sequence[str] = ()) -> str:
    """Model, device and precision, then what is going on or the last answer's figures."""
    facts = [model_name(info), info.device, info.precision, *figures]
    spans = "".join(f"<span>{escape(fact)}</span>" for fact in facts)
    return f'<div class="qa-status" role="status">{spans}</div>'


def reply_figures(stats, answer_tokens: int, lang: str) -> list[str]:
    """An answer's figures for the status line."""
    used = stats.prompt_tokens + answer_tokens
    figures = [text("context", lang, used=f"{used:,}", limit=f"{stats.context_limit:,}")]
    if stats.ttft_s is not None:
        figures.append(text("first_token", lang, seconds=f"{stats.ttft_s:.2f}"))
    if stats.tokens_per_s is not None:
        figures.append(text("speed", lang, speed=f"{stats.tokens_per_s:.0f}"))
    if stats.reused_tokens:
        figures.append(text("reused", lang, tokens=f"{stats.reused_tokens:,}"))
    return figures
