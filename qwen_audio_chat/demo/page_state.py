"""What the handlers of one page share: the model, its visitors, and the outputs that a handler returns.

The conversation lives on the server; the page only shows it. Every action ends in the same three outputs, (chatbot,
box, status), and where an answer is due also in a new `turn`, whose change starts `answers.Answers.answer` in the queue
of the model.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

import gradio as gr

from ..chat import AudioChat
from . import render
from .texts import language, text
from .visitors import Visitor, Visitors

MAX_WAITING = 40  # visitors in the line; the next one is told to come back


class PageContext:
    """One page over one model. Once `draining`, it takes no more questions."""

    def __init__(self, chat: AudioChat):
        self.chat = chat
        self.visitors = Visitors(chat)
        self.draining = False
        self._turns = count(1)
        self._programs = 0
        self._lock = threading.Lock()

    def visitor(self, request: gr.Request) -> tuple[Visitor, str]:
        """Who asks, and in which language to reply."""
        return self.visitors.get(request.session_hash or "anonymous"), language(request)

    @contextmanager
    def program(self) -> Iterator[None]:
        """While a program is answered."""
        with self._lock:
            self._programs += 1
        try:
            yield
        finally:
            with self._lock:
                self._programs -= 1

    def answering(self) -> int:
        """How many visitors and programs get or wait for an answer."""
        return self.visitors.answering() + self._programs

    def not_now(self, visitor: Visitor, *, shows_talk: bool = False) -> str | None:
        """Why the visitor can't get in line at the moment, as a key of `texts`; who waits already keeps the place.

        Args:
            shows_talk: whether the page shows a conversation; a server that was started again knows nothing of it.
        """
        if shows_talk and not visitor.is_open:
            return "gone"
        if self.draining:
            return "draining"
        return "queue_full" if self.visitors.answering() - visitor.answering >= MAX_WAITING else None

    def view(self, visitor: Visitor, lang: str, *, box=None, partial: str | None = None, activity: str = "") -> tuple:
        """The page of a visitor as it is now."""
        chatbot = render.chat_messages(visitor, lang, partial)
        buttons = {"submit_btn": not visitor.answering, "stop_btn": visitor.answering}
        box = gr.skip() if box is None else gr.update(**buttons, **box)
        return chatbot, box, self.status(visitor, activity)

    def status(self, visitor: Visitor | None = None, activity: str = "") -> str:
        """The status line: what is going on, or the last answer's figures."""
        if activity:
            return render.status_line(self.chat.info, [activity])
        return render.status_line(self.chat.info, visitor.status if visitor is not None else ())

    def due(self, visitor: Visitor, lang: str, box_value=None) -> tuple:
        """The view after an action that wants an answer, and a new turn."""
        with visitor.lock:
            visitor.interrupt()
            visitor.answering, visitor.note = True, ""
            box = {} if box_value is None else {"value": box_value}
            return *self.view(visitor, lang, box=box, activity=text("waiting", lang)), next(self._turns)

    def shown(self, visitor: Visitor, lang: str, box_value=None) -> tuple:
        """The view after an action that wants no answer."""
        box = {} if box_value is None else {"value": box_value}
        return *self.view(visitor, lang, box=box), gr.skip()

    def refused(self, message: str) -> tuple:
        """Nothing changes; one sentence says why."""
        gr.Warning(message, title="")
        return gr.skip(), gr.skip(), gr.skip(), gr.skip()
