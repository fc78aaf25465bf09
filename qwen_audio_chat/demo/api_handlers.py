"""The model for programs: one question about some audios, without memory. `ask` by HTTP, `listen` as an MCP tool."""

import base64
import binascii
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import gradio as gr

from ..answering import answer
from ..audio.decoding import AudioError
from ..chat import ChatError
from ..prompts.conversation import Conversation
from ..prompts.questions import question as question_for
from .ask_handlers import MAX_AUDIOS, load_fitting
from .page_state import PageContext
from .texts import text
from .visitors import is_upload

MCP_TOOL = "listen"  # the only one: Gradio's own way of giving files to a tool lets its caller name any file here


def has_mcp() -> bool:
    """Whether Gradio's extra for MCP is installed."""
    return importlib.util.find_spec("mcp") is not None


class Programs:
    """Handlers for programs. Names, arguments and docstrings of `ask` and `listen` are their public interface."""

    def __init__(self, context: PageContext):
        self.context = context

    def ask(self, files: list[str] | None, question: str) -> str:
        """Ask one question about one or several audio files, without memory of earlier questions.

        Args:
            files: audio files; the question may name them "Audio 1", "Audio 2" in their order.
            question: what to ask; empty asks what is heard.

        Returns:
            The answer.
        """
        return self._answer(files or [], question or "")

    def listen(self, audios: str, question: str) -> str:
        """Ask one question about one or several audios: what is said, which sounds there are, how they differ.

        Args:
            audios: the audios, separated by spaces: each a data URI ("data:audio/wav;base64,...") or the address of a
                file that was uploaded to this server. The question may name them "Audio 1", "Audio 2" in their order.
            question: what to ask; empty asks what is heard.

        Returns:
            The answer.
        """
        try:
            sources = [_source(address) for address in audios.split()]
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from error
        return self._answer(sources, question)

    def _answer(self, sources: Sequence[Any], question: str) -> str:
        question = question.strip()
        try:
            if not sources and not question:
                raise ChatError(text("empty", "en"))
            if len(sources) > MAX_AUDIOS:
                raise ChatError(text("many_files", "en", limit=MAX_AUDIOS))
            if self.context.draining:
                raise ChatError(text("draining", "en"))
            with self.context.program():
                waveforms = list(load_fitting(sources, self.context.chat.info, "en"))
                question = question or question_for("hear" if len(waveforms) == 1 else "hear_each")
                return answer(self.context.chat, Conversation().ask(question, waveforms)).finish().text
        except (ChatError, AudioError) as error:
            raise gr.Error(str(error), print_exception=False) from error


def _source(address: str) -> bytes | Path:
    """The audio behind a data URI, or behind the address of an upload; nothing else is opened."""
    if address.startswith("data:"):
        try:
            return base64.b64decode(address.partition(",")[2], validate=True)
        except binascii.Error as error:
            raise ValueError("An audio's data URI isn't in base64.") from error
    path = Path(unquote(address.rpartition("/file=")[2]))
    if is_upload(path) and path.is_file():
        return path
    raise ValueError("Give each audio as a data URI, or upload it to this server and give its address.")
