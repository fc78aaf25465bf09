"""The model for programs: one question about some audios, without memory. `ask` over HTTP, `listen` as an MCP tool."""

import base64
import importlib.util
from collections.abc import Sequence
from pathlib import Path

import gradio as gr

from ..answering import answer
from ..audio.decoding import AudioSource
from ..errors import UserError
from ..prompts.messages import user_message
from ..prompts.questions import question as task_question
from .ask_handlers import MAX_AUDIOS
from .gradio_internals import is_upload, path_in_address
from .page_audio import load_fitting
from .page_state import PageState
from .texts import text

MCP_TOOL = "listen"  # the only tool: others could name any file of this machine (see `gradio_internals.keep_only_tool`)


def has_mcp() -> bool:
    """Whether Gradio's extra for MCP is installed."""
    return importlib.util.find_spec("mcp") is not None


class ApiHandlers:
    """Handlers for programs. Names, arguments and docstrings of `ask` and `listen` are their public interface."""

    def __init__(self, page: PageState):
        self.page = page

    def ask(self, files: list[str] | None, question: str) -> str:
        """Ask one question about one or several audio files, without memory of earlier questions.

        Args:
            files: audio files; the question may name them "Audio 1", "Audio 2" in their order.
            question: what to ask; if empty, what is heard.

        Returns:
            The answer.
        """
        try:
            return self._answer(files or [], question or "")
        except UserError as error:
            raise gr.Error(str(error), print_exception=False) from error

    def listen(self, audios: str, question: str) -> str:
        """Ask one question about one or several audios: what is said, which sounds there are, how they differ.

        Args:
            audios: the audios, separated by spaces: each a data URI ("data:audio/wav;base64,...") or the address of a
                file that was uploaded to this server. The question may name them "Audio 1", "Audio 2" in their order.
            question: what to ask; if empty, what is heard.

        Returns:
            The answer.
        """
        try:
            return self._answer([_source(address) for address in audios.split()], question)
        except UserError as error:
            raise gr.Error(str(error), print_exception=False) from error

    def _answer(self, sources: Sequence[AudioSource], question: str) -> str:
        question = question.strip()
        if not sources and not question:
            raise UserError(text("empty", "en"))
        if len(sources) > MAX_AUDIOS:
            raise UserError(text("many_files", "en", limit=MAX_AUDIOS))
        if self.page.draining:
            raise UserError(text("draining", "en"))
        with self.page.api_request():
            audios = list(load_fitting(sources, self.page.chat.info.context_limit))
            question = question or task_question("hear" if len(audios) == 1 else "hear_each")
            return answer(self.page.chat, [user_message(question, audios)]).finish().text


def _source(address: str) -> bytes | Path:
    """The audio in a data URI, or at the address of an upload; nothing else is opened.

    Raises:
        UserError: the address is neither of them.
    """
    if address.startswith("data:"):
        try:
            return base64.b64decode(address.partition(",")[2], validate=True)
        except ValueError as error:
            raise UserError("An audio's data URI isn't in base64.") from error
    path = path_in_address(address)
    if is_upload(path) and path.is_file():
        return path
    raise UserError("Give each audio as a data URI, or upload it to this server and give its address.")
