"""What the handlers of one page share: the model, its visitors, and the outputs that a handler returns.

The conversation lives on the server; the page only shows it. Every action returns the same three outputs: (chatbot,
box, status). An action that asks for an answer also returns a new `turn`, whose change starts `AnswerHandlers.answer`
in the queue of the model.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import gradio as gr

from ..chat import AudioChat
from . import render
from .texts import language, text
from .visitors import Visitor, Visitors

MAX_WAITING = 40  # visitors in the queue of the model; the next one is asked to come back


class PageState:
    """One page over one model. While `draining`, it takes no more questions."""

    def __init__(self, chat: AudioChat):
        self.chat = chat
        self.visitors = Visitors(chat)
        self.draining = False
        self._turns = count(1)
        self._num_api_requests = 0
        self._lock = threading.Lock()

    def visitor(self, request: gr.Request) -> tuple[Visitor, str]:
        """The visitor who sent a request, and the language to reply in."""
        return self.visitors.get(request.session_hash or "anonymous"), language(request)

    @contextmanager
    def api_request(self) -> Iterator[None]:
        """Counts a program's question as long as it is answered."""
        with self._lock:
            self._num_api_requests += 1
        try:
            yield
        finally:
            with self._lock:
                self._num_api_requests -= 1

    def num_answering(self) -> int:
        """How many visitors and programs get or wait for an answer."""
        return self.visitors.num_answering() + self._num_api_requests

    def refusal(self, visitor: Visitor, *, shows_conversation: bool = False) -> str | None:
        """Why the visitor can't ask for an answer now, as a key of `texts`; None if they can.

        A visitor who waits already keeps the place in the queue.

        Args:
            shows_conversation: whether the page shows a conversation; a restarted server doesn't know it.
        """
        if shows_conversation and not visitor.in_sync:
            return "gone"
        if self.draining:
            return "draining"
        if self.visitors.num_answering() - visitor.is_answering >= MAX_WAITING:
            return "queue_full"
        return "busy" if visitor.is_reading else None

    def view(
        self,
        visitor: Visitor,
        lang: str,
        *,
        box: dict[str, Any] | None = None,
        partial: str | None = None,
        activity: str = "",
    ) -> tuple:
        """A visitor's page as it is now: (chatbot, box, status).

        Args:
            box: changes of the box beside its buttons; None leaves it alone.
            partial: the answer so far, while it is being written.
            activity: what is going on.
        """
        chatbot = render.chat_messages(visitor, lang, partial)
        buttons = {"submit_btn": not visitor.is_answering, "stop_btn": visitor.is_answering}
        box_update = gr.skip() if box is None else gr.update(**buttons, **box)
        return chatbot, box_update, self.status(visitor, activity)

    def status(self, visitor: Visitor | None = None, activity: str = "") -> str:
        """The status line: what is going on, or the figures of the last answer."""
        if activity:
            return render.status_line(self.chat.info, [activity])
        return render.status_line(self.chat.info, visitor.status if visitor is not None else ())

    def request_answer(self, visitor: Visitor, lang: str, box_value: dict | None = None) -> tuple:
        """Queue an answer to the conversation: the view, and a new turn."""
        with visitor.lock:
            visitor.queue_answer()
            box = {} if box_value is None else {"value": box_value}
            return *self.view(visitor, lang, box=box, activity=text("waiting", lang)), next(self._turns)

    def redraw(self, visitor: Visitor, lang: str, box_value: dict | None = None) -> tuple:
        """The view after an action that asks for no answer."""
        box = {} if box_value is None else {"value": box_value}
        return *self.view(visitor, lang, box=box), gr.skip()

    def refuse(self, message: str) -> tuple:
        """Change nothing, and pop up a sentence that says why."""
        gr.Warning(message, title="")
        return gr.skip(), gr.skip(), gr.skip(), gr.skip()
