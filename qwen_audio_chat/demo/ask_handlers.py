"""A visitor says something: what is in the box, an example of the gallery, or a task put into the box."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from ..audio.cutting import split_audio
from ..audio.decoding import SAMPLE_RATE, AudioError, load_audio
from ..audio.features import TOKENS_PER_SECOND, num_audio_tokens
from ..chat import ModelInfo
from ..prompts.questions import question
from . import render
from .error_texts import explain
from .page_state import PageContext
from .texts import duration, text
from .visitors import Clip, Forgotten, Visitor

MAX_AUDIOS = 20  # in one message
MAX_CHARACTERS = 20_000


class Messages:
    """Handlers of what comes in."""

    def __init__(self, context: PageContext, examples: list[dict]):
        self.context = context
        self.examples = examples

    def submit(self, message: dict, shows_talk: bool, request: gr.Request) -> Iterator[tuple]:
        """Take what is in the box. What can't be used stays there, with a sentence that says why.

        Args:
            shows_talk: whether the page shows a conversation.
        """
        visitor, lang = self.context.visitor(request)
        words, files = (message["text"] or "").strip(), [Path(file) for file in message["files"] or []]
        if reason := self._not_now(visitor, shows_talk):
            yield self.context.refused(text(reason, lang))
        elif not words and not files:
            yield self.context.refused(text("empty", lang))
        elif len(files) > MAX_AUDIOS:
            yield self.context.refused(text("many_files", lang, limit=MAX_AUDIOS))
        elif len(words) > MAX_CHARACTERS:
            yield self.context.refused(text("long_text", lang, limit=f"{MAX_CHARACTERS:,}"))
        else:
            yield from self._take(visitor, lang, words, files)

    def _not_now(self, visitor: Visitor, shows_talk: bool = False) -> str | None:
        """Why no new question is taken at the moment."""
        return "busy" if visitor.answering else self.context.not_now(visitor, shows_talk=shows_talk)

    def _take(self, visitor: Visitor, lang: str, words: str, files: list[Path]) -> Iterator[tuple]:
        dropped = visitor.begin_reading()
        if dropped is None:
            yield self.context.refused(text("busy", lang))
            return
        visitor.is_open = True  # an empty page may go on after the server began anew
        try:
            yield from self._read(visitor, dropped, lang, words, files)
        except Forgotten:
            return  # the page is gone, or shows already that everything is deleted
        finally:
            if visitor.dropped == dropped:
                visitor.reading = False

    def _read(self, visitor: Visitor, dropped: int, lang: str, words: str, files: list[Path]) -> Iterator[tuple]:
        """Nothing is yielded within the visitor's lock: Gradio goes on with a generator in another thread."""
        names = [visitor.names.get(file, file.name) for file in files]
        waveforms, loading = [], load_fitting(files, self.context.chat.info, lang)
        for file, name in zip(files, names, strict=True):
            with visitor.keeping(dropped):
                visitor.remember_upload(file)
            reading = text("decoding", lang, name=name) + " …"
            yield gr.skip(), gr.skip(), self.context.status(activity=reading), gr.skip()
            try:
                waveforms.append(next(loading))
            except AudioError as error:
                with visitor.keeping(dropped):  # a file is gone with everything else
                    refused = self.context.refused(text("bad_file", lang, name=name, error=explain(error, lang)))
                yield refused
                yield gr.skip(), gr.skip(), self.context.status(visitor), gr.skip()
                return
        clips = []
        for name, waveform in zip(names, waveforms, strict=True):
            with visitor.keeping(dropped):
                clips.append(visitor.add_clip(name, waveform))
        words = words or question("hear" if len(clips) == 1 else "hear_each", self._spoken(lang))
        with visitor.keeping(dropped):
            visitor.conversation.append(user_message(words, clips))
            view = self.context.due(visitor, lang, {"text": "", "files": []})
        yield view

    def _spoken(self, lang: str) -> str:
        """The language to ask the model in: the pocket model knows English questions only."""
        return "en" if self.context.chat.info.is_pocket else lang

    def example(self, event: gr.SelectData, request: gr.Request) -> Iterator[tuple]:
        """Ask a ready example."""
        visitor, lang = self.context.visitor(request)
        if reason := self._not_now(visitor):
            yield self.context.refused(text(reason, lang))
            return
        chosen = self.examples[event.index]
        words = chosen["question"][self._spoken(lang)]
        yield from self._take(visitor, lang, words, [Path(file) for file in chosen["files"]])

    def fill_in(self, task: str):
        """Make the handler that puts a task's question into the box, for the visitor to send or to change."""

        def fill(message: dict, target: str, request: gr.Request):
            visitor, lang = self.context.visitor(request)
            if not message["files"] and not any(map(render.message_clips, visitor.conversation)):
                gr.Info(text("add_audio", lang), title="")
            return gr.update(value={"text": question(task, self._spoken(lang), target), "files": message["files"]})

        return fill


def user_message(words: str, clips: list[Clip]) -> dict:
    """A user's message whose audio parts also carry their `Clip`."""
    audios = [{"type": "audio", "audio": str(clip.wav), "clip": clip} for clip in clips]
    return {"role": "user", "content": [*audios, {"type": "text", "text": words}]}


def load_fitting(sources: Iterable[Any], info: ModelInfo, lang: str) -> Iterator[np.ndarray]:
    """Waveforms of the audios of one message, one after the other, while there may be room for them in the model.

    So nobody fills the memory with what would be refused at last: a small file can hold hours of silence.

    Raises:
        AudioError: an audio can't be used, or together they need more tokens than the model holds.
    """
    tokens = seconds = 0
    for source in sources:
        waveform = load_audio(source)
        tokens += sum(num_audio_tokens(len(piece)) for piece in split_audio(waveform))
        seconds += len(waveform) / SAMPLE_RATE
        if tokens > info.context_limit:
            limit = info.context_limit / TOKENS_PER_SECOND
            raise AudioError(text("long_audio", lang, seconds=duration(seconds), limit=duration(limit)))
        yield waveform
