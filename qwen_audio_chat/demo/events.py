"""What happens when a visitor does something. The conversation lives on the server; the page only shows it.

Every action ends in the same three outputs, (chatbot, box, status), and where an answer is due also in a new `turn`,
whose change starts `answer` in the queue of the model.
"""

import logging
import time
from collections.abc import Iterator
from pathlib import Path

import gradio as gr

from ..audio import AudioError, load_audio, num_audio_tokens, split_audio
from ..chatml import Conversation
from ..generation import GenerationOptions
from ..pipeline import AudioChat, ChatError, Reply
from . import conversation_files, presets, render
from .state import Clip, Visitor, Visitors
from .texts import duration, language, text

MAX_AUDIOS = 20  # in one message
MAX_CHARACTERS = 20_000
FRAME_SECONDS = 0.06  # the page is redrawn at most so often

log = logging.getLogger(__name__)


class Events:
    """Handlers of one page, over one model."""

    def __init__(self, chat: AudioChat, examples: list[dict]):
        self.chat = chat
        self.examples = examples
        self.visitors = Visitors(chat)
        self.draining = False
        self._turns = 0

    # Views

    def _visitor(self, request: gr.Request) -> tuple[Visitor, str]:
        return self.visitors.get(request.session_hash or "anonymous"), language(request)

    def _view(self, visitor: Visitor, lang: str, *, box=None, partial: str | None = None, activity: str = ""):
        chatbot = render.chat_messages(visitor, lang, partial)
        buttons = {"submit_btn": not visitor.answering, "stop_btn": visitor.answering}
        box = gr.skip() if box is None else gr.update(**buttons, **box)
        return chatbot, box, self._status(visitor, activity)

    def _status(self, visitor: Visitor, activity: str = "") -> str:
        return render.status_line(self.chat.info, [activity] if activity else visitor.status)

    def idle_status(self) -> str:
        """The status line of a page just opened."""
        return render.status_line(self.chat.info)

    def _due(self, visitor: Visitor, lang: str, box_value=None):
        """The view after an action that wants an answer, and a new turn."""
        with visitor.lock:
            visitor.interrupt()
            visitor.answering, visitor.note = True, ""
            self._turns += 1
            box = {} if box_value is None else {"value": box_value}
            return *self._view(visitor, lang, box=box, activity=text("waiting", lang)), self._turns

    def _shown(self, visitor: Visitor, lang: str, box_value=None):
        """The view after an action that wants no answer."""
        box = {} if box_value is None else {"value": box_value}
        return *self._view(visitor, lang, box=box), gr.skip()

    def _refused(self, message: str):
        """Nothing changes; one sentence says why."""
        gr.Warning(message, title="")
        return gr.skip(), gr.skip(), gr.skip(), gr.skip()

    # A message comes in

    def submit(self, message: dict, request: gr.Request) -> Iterator[tuple]:
        """Take what is in the box. What can't be used stays there, with a sentence that says why."""
        visitor, lang = self._visitor(request)
        words, files = (message["text"] or "").strip(), [Path(file) for file in message["files"] or []]
        if self.draining:
            yield self._refused(text("draining", lang))
        elif visitor.answering:
            yield self._refused(text("busy", lang))
        elif not words and not files:
            yield self._refused(text("empty", lang))
        elif len(files) > MAX_AUDIOS:
            yield self._refused(text("many_files", lang, limit=MAX_AUDIOS))
        elif len(words) > MAX_CHARACTERS:
            yield self._refused(text("long_text", lang, limit=f"{MAX_CHARACTERS:,}"))
        else:
            yield from self._take(visitor, lang, words, files)

    def _take(self, visitor: Visitor, lang: str, words: str, files: list[Path]) -> Iterator[tuple]:
        waveforms = []
        for file in files:
            visitor.remember_upload(file)
            reading = text("decoding", lang, name=file.name) + " …"
            yield gr.skip(), gr.skip(), self._status(visitor, reading), gr.skip()
            try:
                waveforms.append(load_audio(file))
                self._check_length(waveforms, lang)
            except AudioError as error:
                yield self._refused(text("bad_file", lang, name=file.name, error=error))
                yield gr.skip(), gr.skip(), self._status(visitor), gr.skip()
                return
        clips = [visitor.add_clip(file.name, waveform) for file, waveform in zip(files, waveforms, strict=True)]
        words = words or text("default_question" if len(clips) == 1 else "default_questions", self._spoken(lang))
        with visitor.lock:
            visitor.conversation.append(user_message(words, clips))
            view = self._due(visitor, lang, {"text": "", "files": []})
        yield view  # never within the lock: Gradio goes on with a generator in another thread

    def _check_length(self, waveforms: list, lang: str) -> None:
        """Refuse what can never fit before the encoder works on it."""
        tokens = sum(num_audio_tokens(len(piece)) for waveform in waveforms for piece in split_audio(waveform))
        if tokens > self.chat.info.context_limit:
            seconds = sum(map(len, waveforms)) / 16_000
            limit = self.chat.info.context_limit / 25
            raise AudioError(text("long_audio", lang, seconds=duration(seconds), limit=duration(limit)))

    def _spoken(self, lang: str) -> str:
        """The language to ask the model in: the pocket model knows English questions only."""
        return "en" if self.chat.info.is_pocket else lang

    def example(self, event: gr.SelectData, request: gr.Request) -> Iterator[tuple]:
        """Ask a ready example."""
        visitor, lang = self._visitor(request)
        if visitor.answering or self.draining:
            yield self._refused(text("draining" if self.draining else "busy", lang))
            return
        chosen = self.examples[event.index]
        question = chosen["question"][self._spoken(lang)]
        yield from self._take(visitor, lang, question, [Path(file) for file in chosen["files"]])

    def fill_in(self, preset: presets.Preset):
        """Make the handler that puts a task's question into the box, for the visitor to send or to change."""

        def fill(message: dict, target: str, request: gr.Request):
            visitor, lang = self._visitor(request)
            if not message["files"] and not any(map(render.message_clips, visitor.conversation)):
                gr.Info(text("add_audio", lang), title="")
            question = presets.question(preset, self._spoken(lang), target)
            return gr.update(value={"text": question, "files": message["files"]})

        return fill

    # The answer

    def answer(self, request: gr.Request, *settings) -> Iterator[tuple]:
        """Stream the answer that is due. Runs in the lane of the model, one visitor at a time."""
        visitor, lang = self._visitor(request)
        with visitor.lock:
            if not visitor.answering or visitor.started:
                return
            visitor.started, cancel = True, visitor.cancel
            conversation = Conversation(visitor.conversation)
        reply = None
        try:
            yield self._view(visitor, lang, partial="", activity=text("listening", lang) + " …")
            options = generation_options(*settings)
            reply = self.chat.stream(conversation, options, session=visitor.session, cancel=cancel)
            drawn = 0.0
            for _ in reply:
                if visitor.cancel is not cancel:
                    return
                if time.monotonic() - drawn >= FRAME_SECONDS:
                    drawn = time.monotonic()
                    yield self._view(visitor, lang, partial=reply.text)
        except (ChatError, AudioError, ValueError) as error:
            visitor.note = str(error) if visitor.cancel is cancel else visitor.note
        except Exception:
            log.exception("An answer failed")
            visitor.note = text("failed", lang) if visitor.cancel is cancel else visitor.note
        finally:
            with visitor.lock:
                if visitor.cancel is cancel:
                    self._keep(visitor, reply, lang)
        yield self._view(visitor, lang, box={})

    def _keep(self, visitor: Visitor, reply: Reply | None, lang: str) -> None:
        """Add what was said to the conversation, whether or not the model came to an end."""
        visitor.answering = visitor.started = False
        if reply is None or (not reply.text and not reply.token_ids):
            key = "silent" if reply is not None and reply.finish_reason == "stop" else "no_answer"
            visitor.note = visitor.note or text(key, lang)
            return
        message = {"role": "assistant", "content": reply.text, "token_ids": list(reply.token_ids)}
        last = visitor.conversation[-1]
        if last["role"] == "assistant":
            visitor.conversation.pop()
            message["content"] = last["content"] + message["content"]
            if last.get("token_ids") is None:
                del message["token_ids"]
            else:
                message["token_ids"] = last["token_ids"] + message["token_ids"]
        message["finish_reason"] = reply.finish_reason or "cancelled"
        said = {notice for earlier in visitor.conversation for notice in earlier.get("notices", [])}
        message["notices"] = [notice for notice in notices(reply, lang) if notice not in said]
        visitor.conversation.append(message)
        visitor.status = render.reply_figures(reply.stats, len(reply.token_ids), lang)

    def settle(self, request: gr.Request) -> tuple:
        """After the queue: an answer that never began (a full queue, a broken line) leaves a usable page."""
        visitor, lang = self._visitor(request)
        with visitor.lock:
            if visitor.answering and not visitor.started:
                visitor.interrupt()
                visitor.note = text("queue_full", lang)
            return self._view(visitor, lang, box={})

    def stop(self, request: gr.Request) -> tuple:
        """End the answer and keep what was said."""
        visitor, lang = self._visitor(request)
        with visitor.lock:
            visitor.cancel.set()
            if visitor.answering and not visitor.started:
                visitor.interrupt()
                visitor.note = text("no_answer", lang)
                return self._view(visitor, lang, box={})
        return gr.skip(), gr.skip(), gr.skip()

    # Second thoughts

    def retry(self, request: gr.Request) -> tuple:
        """Answer the last question again."""
        visitor, lang = self._visitor(request)
        with visitor.lock:
            visitor.interrupt()
            while visitor.conversation and visitor.conversation[-1]["role"] == "assistant":
                visitor.conversation.pop()
            if not visitor.conversation:
                return self._shown(visitor, lang)
            return self._due(visitor, lang)

    def undo(self, request: gr.Request) -> tuple:
        """Take the last question back into the box, with its audios."""
        visitor, lang = self._visitor(request)
        with visitor.lock:
            visitor.interrupt()
            while visitor.conversation and visitor.conversation[-1]["role"] == "assistant":
                visitor.conversation.pop()
            box = None
            if visitor.conversation:
                message = visitor.conversation.pop()
                clips = render.message_clips(message)
                box = {"text": render.message_text(message), "files": [str(clip.wav) for clip in clips]}
            visitor.note = ""
            return self._shown(visitor, lang, box)

    def edit(self, event: gr.EditData, request: gr.Request) -> tuple:
        """Change an earlier question; what followed it goes, and it is answered anew."""
        visitor, lang = self._visitor(request)
        index = event.index[0] if isinstance(event.index, list | tuple) else event.index
        words = render.unguard(str(event.value)).strip()[:MAX_CHARACTERS]
        with visitor.lock:
            if not 0 <= index < len(visitor.conversation) or visitor.conversation[index]["role"] != "user" or not words:
                return self._shown(visitor, lang)
            visitor.interrupt()
            clips = render.message_clips(visitor.conversation[index])
            del visitor.conversation[index:]
            visitor.conversation.append(user_message(words, clips))
            return self._due(visitor, lang)

    def go_on(self, request: gr.Request) -> tuple:
        """Continue an answer that hit its limit or was stopped."""
        visitor, lang = self._visitor(request)
        with visitor.lock:
            if visitor.answering or not visitor.conversation or visitor.conversation[-1]["role"] != "assistant":
                return self._shown(visitor, lang)
            return self._due(visitor, lang)

    def clear(self, request: gr.Request) -> tuple:
        """Begin anew; conversation, audios and the model's memory of them are deleted."""
        visitor, lang = self._visitor(request)
        visitor.forget()
        return self._shown(visitor, lang, {"text": "", "files": []})

    def delete(self, request: gr.Request) -> tuple:
        """`clear`, and say so."""
        gr.Info(text("deleted", language(request)), title="")
        return self.clear(request)

    def leave(self, request: gr.Request) -> None:
        """The page was closed."""
        self.visitors.leave(request.session_hash)

    # Conversations as files

    def export(self, kind: str):
        """Make the handler that writes the conversation as "markdown", or "json" with the audios."""

        def write(request: gr.Request):
            visitor, lang = self._visitor(request)
            if not visitor.conversation:
                gr.Info(text("nothing_to_export", lang), title="")
                return gr.skip()
            return gr.update(value=str(conversation_files.write(visitor, kind, lang)))

        return write

    def load(self, file: str, request: gr.Request) -> tuple:
        """Go on with an exported conversation; one that can't be read changes nothing."""
        visitor, lang = self._visitor(request)
        visitor.remember_upload(Path(file))
        try:
            conversation = conversation_files.read(Path(file), visitor)
        except ValueError as error:
            return self._refused(text("bad_import", lang, error=error))
        with visitor.lock:
            visitor.interrupt()
            visitor.conversation, visitor.note, visitor.status = conversation, "", []
        gr.Info(text("imported", lang), title="")
        return self._shown(visitor, lang)

    # For programs

    def ask(self, files: list[str] | None, question: str) -> str:
        """Ask one question about one or several audio files, without memory of earlier questions.

        Args:
            files: audio files; the question may name them "Audio 1", "Audio 2" in their order.
            question: what to ask; empty asks what is heard.

        Returns:
            The answer.
        """
        question = (question or "").strip() or text("default_question", "en")
        try:
            if len(files or []) > MAX_AUDIOS:
                raise ChatError(text("many_files", "en", limit=MAX_AUDIOS))
            waveforms = [load_audio(file) for file in files or []]
            self._check_length(waveforms, "en")
            return self.chat.stream(Conversation().ask(question, waveforms)).finish().text
        except (ChatError, AudioError) as error:
            raise gr.Error(str(error), print_exception=False) from error


def user_message(words: str, clips: list[Clip]) -> dict:
    """A user's message whose audio parts also carry their `Clip`."""
    audios = [{"type": "audio", "audio": str(clip.wav), "clip": clip} for clip in clips]
    return {"role": "user", "content": [*audios, {"type": "text", "text": words}]}


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
        seed=int(seed) if str(seed).strip() else None,
    )


def notices(reply: Reply, lang: str) -> list[str]:
    """What the pipeline has to say of an answer, in the visitor's language."""
    if lang == "en":
        return list(reply.notices)
    return [text("dropped", lang, turns=reply.dropped_turns)] if reply.dropped_turns else list(reply.notices)
