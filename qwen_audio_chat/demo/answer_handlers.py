"""The model's answer: streamed, stopped, kept."""

import logging
import time
from collections.abc import Iterator

import gradio as gr

from ..answering import answer
from ..audio.decoding import AudioError
from ..chat import ChatError
from ..engine.sampling import GenerationOptions
from ..prompts.conversation import Conversation
from ..reply import Reply
from . import render
from .error_texts import explain
from .page_state import PageContext
from .texts import duration, text
from .visitors import Visitor

FRAME_SECONDS = 0.06  # the page is redrawn at most so often

log = logging.getLogger(__name__)


class Answers:
    """Handlers of the model's line."""

    def __init__(self, context: PageContext):
        self.context = context

    def answer(self, request: gr.Request, *settings) -> Iterator[tuple]:
        """Stream the answer that is due. Runs in the lane of the model, one visitor at a time."""
        visitor, lang = self.context.visitor(request)
        with visitor.lock:
            if not visitor.answering or visitor.started:
                return
            visitor.started, cancel = True, visitor.cancel
            conversation = Conversation(visitor.conversation)
        reply = None
        try:
            yield self.context.view(visitor, lang, partial="", activity=text("listening", lang) + " …")
            *_, (_, _, meant) = render.walk(conversation)
            reply = answer(
                self.context.chat, conversation, generation_options(*settings), session=visitor.session, cancel=cancel,
                meant=meant and meant[1].wav,
            )  # fmt: skip
            drawn = 0.0
            for _ in reply:
                if visitor.cancel is not cancel:
                    return
                if time.monotonic() - drawn >= FRAME_SECONDS:
                    drawn = time.monotonic()
                    yield self.context.view(visitor, lang, partial=reply.text)
        except (ChatError, AudioError, ValueError) as error:
            visitor.note = explain(error, lang) if visitor.cancel is cancel else visitor.note
        except Exception:
            log.exception("An answer failed")
            visitor.note = text("failed", lang) if visitor.cancel is cancel else visitor.note
        finally:
            with visitor.lock:
                if visitor.cancel is cancel:
                    self._keep(visitor, reply, lang)
        yield self.context.view(visitor, lang, box={})

    def _keep(self, visitor: Visitor, reply: Reply | None, lang: str) -> None:
        """Add what was said to the conversation, whether or not the model came to an end."""
        visitor.answering = visitor.started = False
        if reply is None or (not reply.text and not reply.token_ids):
            key = "silent" if reply is not None and reply.finish_reason == "stop" else "no_answer"
            visitor.note = visitor.note or text(key, lang)
            return
        message = {"role": "assistant", "content": reply.text, "token_ids": list(reply.token_ids)}
        said = {notice for earlier in visitor.conversation for notice in earlier.get("notices", [])}
        last = visitor.conversation[-1]
        message["notices"] = [notice for notice in notices(visitor, reply, lang) if notice not in said]
        if last["role"] == "assistant":
            visitor.conversation.pop()
            message["notices"] = last.get("notices", []) + message["notices"]
            message["content"] = last["content"] + message["content"]
            if last.get("token_ids") is None:
                del message["token_ids"]
            else:
                message["token_ids"] = last["token_ids"] + message["token_ids"]
        message["finish_reason"] = reply.finish_reason or "cancelled"
        if reply.progress is not None and message["finish_reason"] == "cancelled":
            message["progress"] = reply.progress
        visitor.conversation.append(message)
        visitor.status = render.reply_figures(reply.stats, len(reply.token_ids), lang)

    def settle(self, request: gr.Request) -> tuple:
        """After the queue: an answer that never began (a full queue, a broken line) leaves a usable page."""
        visitor, lang = self.context.visitor(request)
        with visitor.lock:
            if visitor.answering and not visitor.started:
                visitor.interrupt()
                visitor.note = text("queue_full", lang)
            return self.context.view(visitor, lang, box={})

    def stop(self, request: gr.Request) -> tuple:
        """End the answer and keep what was said."""
        visitor, lang = self.context.visitor(request)
        with visitor.lock:
            visitor.cancel.set()
            if visitor.answering and not visitor.started:
                visitor.interrupt()
                visitor.note = text("no_answer", lang)
                return self.context.view(visitor, lang, box={})
        return gr.skip(), gr.skip(), gr.skip()


def generation_options(
    do_sample: bool, temperature: float, top_p: float, top_k: float, repetition_penalty: float, max_new_tokens, seed
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


def _seed(words: str) -> int | None:
    """A number as it is, any other words as the number that their bytes make; none without words."""
    return None if not words else int(words) if words.isdecimal() else int.from_bytes(words.encode()[:7])


def notices(visitor: Visitor, reply: Reply, lang: str) -> list[str]:
    """What was done to the conversation to answer it: audios heard in pieces, turns that left the context."""
    said = [
        text("split", lang, number=number, seconds=duration(clip.seconds), pieces=len(clip.starts))
        for _, new, _ in render.walk(visitor.conversation)
        for number, clip in new
        if len(clip.starts) > 1
    ]
    return [*said, text("dropped", lang, turns=reply.dropped_turns)] if reply.dropped_turns else said
