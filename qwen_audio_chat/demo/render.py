"""A visitor's conversation as the Chatbot's messages, one for one.

Text of visitors and of the model is shown as it is and never parsed. All HTML is made here, and what others wrote
(names of files, words of an answer) is escaped on its way into it.
"""

import base64
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from ..chat import ModelInfo
from ..prompts.messages import Message, message_text
from ..reply import ReplyStats
from ..transcripts import subtitles, timed_words
from .gradio_internals import file_address
from .page_audio import PageAudio, number_audios
from .texts import duration, text
from .visitors import Visitor

# The Chatbot sanitizes text but still takes it for HTML. A zero-width space where a tag or an entity would begin keeps
# it plain; `unguard` removes it from edited text.
_GUARD = "\u200b"


def guard(plain: str) -> str:
    """Text that looks the same and that no browser takes for HTML."""
    return re.sub(r"[<&](?=[A-Za-z/!?#])", lambda match: match.group() + _GUARD, plain)


def unguard(guarded: str) -> str:
    """Undo `guard`."""
    return re.sub(f"([<&]){_GUARD}", r"\1", guarded)


def chat_messages(visitor: Visitor, lang: str, partial: str | None = None) -> list[dict[str, Any]]:
    """The Chatbot's value: message i is message i of the conversation.

    Args:
        partial: the answer so far, while it is being written; it continues the last message if that is the assistant's.
    """
    rendered: list[dict[str, Any]] = []
    subject = None
    for index, (message, audios, subject) in enumerate(number_audios(visitor.conversation)):
        is_last = index == len(visitor.conversation) - 1
        if message["role"] == "user":
            cards = [_html(audio_card(audio, lang)) for audio in audios]
            rendered.append({"role": "user", "content": [*cards, guard(message_text(message))]})
        else:
            answer = message_text(message) + (partial if partial and is_last else "")
            rendered.append(_answer(answer, message, subject, lang, is_last and partial is None))
    if partial is not None and (not rendered or rendered[-1]["role"] == "user"):
        rendered.append({"role": "assistant", "content": _readable(partial, subject)})
    elif visitor.note and partial is None:
        rendered.append({"role": "assistant", "content": _html(f'<p class="qa-note">{escape(visitor.note)}</p>')})
    return rendered


def _readable(answer: str, subject: PageAudio | None) -> str:
    """What stands in the bubble of an answer."""
    starts = (0.0,) if subject is None else subject.piece_starts
    return guard(timed_words.readable(answer, starts)) or "…"


def _answer(answer: str, message: Message, subject: PageAudio | None, lang: str, is_last: bool) -> dict[str, Any]:
    """An assistant's message: its text, what of it can be played, how it ended."""
    content: list[Any] = [_readable(answer, subject)]
    if subject is not None:
        content += [_html(html) for html in times_card(answer, subject, lang)]
    ending = message.get("finish_reason")
    endings = {"cancelled": "stopped", "length": "length", "repetition": "repetition"}
    notices = [text(endings[ending], lang)] if ending in endings else []
    notices += message.get("notices", [])
    if notices:
        lines = "".join(f'<p class="qa-note">{escape(notice)}</p>' for notice in notices)
        content.append(_html(f'<div class="qa-notices">{lines}</div>'))
    rendered: dict[str, Any] = {"role": "assistant", "content": content}
    if is_last and ending in ("length", "cancelled"):
        rendered["options"] = [{"value": "continue", "label": text("continue", lang)}]
    return rendered


def _html(html: str) -> gr.HTML:
    return gr.HTML(html, padding=False, apply_default_css=False, js_on_load=None, render=False)


def audio_card(audio: PageAudio, lang: str) -> str:
    """A player: number, name, length, and the log-mel picture to seek in."""
    name, start = text("audio", lang, number=audio.number), "0:00" if audio.seconds >= 9.95 else "0.0"
    source, picture = escape(file_address(audio.file)), escape(file_address(audio.picture))
    return (
        f'<figure class="qa-clip" data-src="{source}" data-seconds="{audio.seconds:.3f}">'
        f'<figcaption><b>{name}</b><span class="qa-name" title="{escape(audio.name)}">{escape(audio.name)}</span>'
        f'<span class="qa-time"><span class="qa-now">{start}</span> / {duration(audio.seconds)}</span></figcaption>'
        '<div class="qa-row">'
        f'<button type="button" class="qa-play" aria-label="{text("play", lang, what=name)}"></button>'
        f'<div class="qa-seek" role="slider" tabindex="0" aria-label="{text("position", lang, what=name)}"'
        f' aria-valuemin="0" aria-valuemax="{audio.seconds:.1f}" aria-valuenow="0">'
        f'<img src="{picture}" alt="{text("picture", lang, what=name)}" draggable="false">'
        '<i class="qa-span"></i><i class="qa-head"></i></div></div></figure>'
    )


def times_card(answer: str, audio: PageAudio, lang: str) -> list[str]:
    """Buttons that play exactly the spans that an answer names, and subtitles to download; empty without times."""
    spans = [span for span in timed_words.spans(answer, audio.piece_starts) if span.start < audio.seconds]
    if not spans:
        return []
    cues = subtitles.cues(timed_words.timed_words(answer, audio.piece_starts))
    title = text("transcript", lang) if cues else text("spans", lang, what=text("audio", lang, number=audio.number))
    source = escape(file_address(audio.file))
    buttons = "".join(
        f'<button type="button" class="qa-piece" data-src="{source}" data-start="{span.start:.2f}"'
        f' data-end="{min(span.end, audio.seconds):.2f}">'
        f"{f'<b>{escape(span.word)}</b>' if span.word else ''}<small>{span.start:.2f}–{span.end:.2f}</small></button>"
        for span in spans
    )
    links = ""
    if cues:
        stem = re.sub(r"\.\w{1,5}$", "", audio.name)
        links = "".join(
            f'<a class="qa-download" download="{escape(stem)}.{suffix}" href="data:{kind};base64,{_base64(content)}">'
            f"{suffix.upper()}</a>"
            for suffix, kind, content in (
                ("srt", "application/x-subrip", subtitles.to_srt(cues)),
                ("vtt", "text/vtt", subtitles.to_vtt(cues)),
            )
        )
    return [f'<div class="qa-times"><div class="qa-times-head">{escape(title)}{links}</div>{buttons}</div>']


def _base64(content: str) -> str:
    return base64.b64encode(content.encode()).decode()


def model_name(info: ModelInfo) -> str:
    """The model's name for visitors: of a folder only the last part, since its path is private."""
    return Path(info.name).name if Path(info.name).is_absolute() else info.name


def status_line(info: ModelInfo, figures: Sequence[str] = ()) -> str:
    """Model, device and precision, then what is going on or the figures of the last answer."""
    facts = [model_name(info), info.device, info.precision, *figures]
    spans = "".join(f"<span>{escape(fact)}</span>" for fact in facts)
    return f'<div class="qa-status" role="status">{spans}</div>'


def reply_figures(stats: ReplyStats, answer_tokens: int, lang: str) -> list[str]:
    """The figures of an answer for the status line."""
    used = stats.prompt_tokens + answer_tokens
    figures = [text("context", lang, used=f"{used:,}", limit=f"{stats.context_limit:,}")]
    if stats.ttft_s is not None:
        figures.append(text("first_token", lang, seconds=f"{stats.ttft_s:.2f}"))
    if stats.tokens_per_s is not None:
        figures.append(text("speed", lang, speed=f"{stats.tokens_per_s:.0f}"))
    if stats.reused_tokens:
        figures.append(text("reused", lang, tokens=f"{stats.reused_tokens:,}"))
    return figures
