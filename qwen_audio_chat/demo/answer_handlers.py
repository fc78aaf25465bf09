"""The model's answer: streamed, stopped, kept."""

import logging
import time
from collections.abc import Iterator

import gradio as gr

from ..answering import answer
from ..engine.sampling import GenerationOptions
from ..errors import UserError
from ..prompts.conversation import Conversation
from ..prompts.messages import Message, message_text
from ..reply import Reply
from . import render
from .error_texts import explain
from .page_audio import number_audios
from .page_state import PageState
from .texts import duration, text
from .visitors import Visitor

FRAME_SECONDS = 0.06  # the shortest time between two redraws of the page

log = logging.getLogger(__name__)


class AnswerHandlers:
    """Handlers of the model's queue."""

    def __init__(self, page: PageState):
        self.page = page

    def answer(self, request: gr.Request, *settings) -> Iterator[tuple]:
        """Stream the answer that waits. Runs in the queue of the model, one visitor at a time."""
        visitor, lang = self.page.visitor(request)
        with visitor.lock:
            job = visitor.begin_answer()
            conversation = Conversation(visitor.conversation)
        if job is None:
            return
        reply, failure = None, ""
        try:
            yield self.page.view(visitor, lang, partial="", activity=text("listening", lang) + " …")
            options = generation_options(*settings)
            reply = answer(self.page.chat, conversation, options, session=visitor.session, cancel=job.cancel)
            drawn = 0.0
            for _ in reply:
                if visitor.job is not job:
                    return
                if time.monotonic() - drawn >= FRAME_SECONDS:
                    drawn = time.monotonic()
                    yield self.page.view(visitor, lang, partial=reply.text)
        except UserError as error:
            failure = explain(error, lang)
        except Exception:
            log.exception("An answer failed")
            failure = text("failed", lang)
        finally:
            if reply is not None:
                reply.close()  # in the thread that reads it, so that the visitor's cache is free at once
            with visitor.lock:
                if visitor.job is job:
                    visitor.end_job(job)
                    visitor.note = failure
                    self._keep(visitor, reply, lang)
        yield self.page.view(visitor, lang, box={})

    def _keep(self, visitor: Visitor, reply: Reply | None, lang: str) -> None:
        """Add the answer to the conversation, whether or not the model came to an end."""
        if reply is None or (not reply.text and not reply.token_ids):
            key = "silent" if reply is not None and reply.finish_reason == "stop" else "no_answer"
            visitor.note = visitor.note or text(key, lang)
            return
        message: Message = {"role": "assistant", "content": reply.text, "token_ids": list(reply.token_ids)}
        known = {notice for earlier in visitor.conversation for notice in earlier.get("notices", [])}
        message["notices"] = [notice for notice in notices(visitor, reply, lang) if notice not in known]
        last = visitor.conversation[-1]
        if last["role"] == "assistant":
            visitor.conversation.pop()
            message["notices"] = last.get("notices", []) + message["notices"]
            message["content"] = message_text(last) + reply.text
            if (earlier_ids := last.get("token_ids")) is None:
                del message["token_ids"]
            else:
                message["token_ids"] = earlier_ids + reply.token_ids
        message["finish_reason"] = reply.finish_reason or "cancelled"
        if reply.progress is not None and message["finish_reason"] == "cancelled":
            message["progress"] = reply.progress
        visitor.conversation.append(message)
        visitor.status = render.reply_figures(reply.stats, len(reply.token_ids), lang)

    def after_queue(self, request: gr.Request) -> tuple:
        """Leave a usable page where an answer never began: the queue was full, or the connection broke."""
        visitor, lang = self.page.visitor(request)
        with visitor.lock:
            visitor.drop_waiting_answer(text("queue_full", lang))
            return self.page.view(visitor, lang, box={})

    def stop(self, request: gr.Request) -> tuple:
        """End the answer and keep its text so far."""
        visitor, lang = self.page.visitor(request)
        with visitor.lock:
            if visitor.drop_waiting_answer(text("no_answer", lang)):
                return self.page.view(visitor, lang, box={})
            if visitor.job is not None and visitor.is_answering:
                visitor.job.cancel.set()
        return gr.skip(), gr.skip(), gr.skip()


def generation_options(
    do_sample: bool,
    temperature: float,
    top_p: float,
    top_k: float,
    repetition_penalty: float,
    max_new_tokens: float,
    seed: str,
) -> GenerationOptions:
    """The settings of the page, in the order of the page."""
    return GenerationOptions(
        max_new_tokens=int(max_new_tokens),
        do_sample=bool(do_sample),
        temperature=float(temperature),
        top_p=float(top_p),
        top_k=int(top_k),
        repetition_penalty=float(repetition_penalty),
        seed=_seed(str(seed).strip()),
    )


def _seed(written: str) -> int | None:
    """A number as it is, other text as the number that its first bytes form, None if empty."""
    return None if not written else int(written) if written.isdecimal() else int.from_bytes(written.encode()[:7])


def notices(visitor: Visitor, reply: Reply, lang: str) -> list[str]:
    """What was done to the conversation to answer it: audios split into pieces, turns that left the context."""
    split = [
        text("split", lang, number=audio.number, seconds=duration(audio.seconds), pieces=len(audio.piece_starts))
        for _, audios, _ in number_audios(visitor.conversation)
        for audio in audios
        if len(audio.piece_starts) > 1
    ]
    return [*split, text("dropped", lang, turns=reply.dropped_turns)] if reply.dropped_turns else split
