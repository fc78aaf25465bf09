"""Second thoughts: retry, undo, edit, continue, begin anew; a conversation to a file and back; leaving."""

from pathlib import Path

import gradio as gr
from gradio.data_classes import FileData

from . import conversation_files, render
from .ask_handlers import MAX_CHARACTERS, user_message
from .error_texts import explain
from .page_state import PageContext
from .texts import language, text
from .visitors import Forgotten, Visitor


class Changes:
    """Handlers of what was said already."""

    def __init__(self, context: PageContext):
        self.context = context

    def open(self, tab: str, request: gr.Request) -> tuple | None:
        """The page was loaded; a tab that was here before finds its conversation again. None if there is none."""
        key = f"{request.username or ''}:{tab}" if tab else ""
        visitor = self.context.visitors.rejoin(request.session_hash or "anonymous", key)
        if not visitor.conversation or visitor.answering:  # the latter began on the new page
            return None
        return self.context.view(visitor, language(request), box={})

    def retry(self, request: gr.Request) -> tuple:
        """Answer the last question again."""
        visitor, lang = self.context.visitor(request)
        if reason := self.context.not_now(visitor, shows_talk=True):
            return self.context.refused(text(reason, lang))
        with visitor.lock:
            _take_back_answer(visitor)
            if not visitor.conversation:
                return self.context.shown(visitor, lang)
            return self.context.due(visitor, lang)

    def undo(self, request: gr.Request) -> tuple:
        """Take the last question back into the box, with its audios."""
        visitor, lang = self.context.visitor(request)
        if not visitor.is_open:
            return self.context.refused(text("gone", lang))
        with visitor.lock:
            _take_back_answer(visitor)
            box = None
            if visitor.conversation:
                message = visitor.conversation.pop()
                clips = render.message_clips(message)
                files = [FileData(path=str(clip.wav), orig_name=clip.name, mime_type="audio/wav") for clip in clips]
                box = {"text": render.message_text(message), "files": files}
            visitor.note = ""
            return self.context.shown(visitor, lang, box)

    def edit(self, event: gr.EditData, request: gr.Request) -> tuple:
        """Change an earlier question; what followed it goes, and it is answered anew."""
        visitor, lang = self.context.visitor(request)
        if reason := self.context.not_now(visitor, shows_talk=True):
            gr.Warning(text(reason, lang), title="")
            return self.context.shown(visitor, lang)  # the page takes its own change of the message back
        index = event.index[0] if isinstance(event.index, list | tuple) else event.index
        words = render.unguard(str(event.value)).strip()[:MAX_CHARACTERS]
        with visitor.lock:
            if not 0 <= index < len(visitor.conversation) or visitor.conversation[index]["role"] != "user" or not words:
                return self.context.shown(visitor, lang)
            visitor.interrupt()
            clips = render.message_clips(visitor.conversation[index])
            del visitor.conversation[index:]
            visitor.conversation.append(user_message(words, clips))
            return self.context.due(visitor, lang)

    def go_on(self, request: gr.Request) -> tuple:
        """Continue an answer that hit its limit or was stopped; within a part of a long audio, from its beginning."""
        visitor, lang = self.context.visitor(request)
        if reason := self.context.not_now(visitor, shows_talk=True):
            return self.context.refused(text(reason, lang))
        with visitor.lock:
            if visitor.answering or not visitor.conversation or visitor.conversation[-1]["role"] != "assistant":
                return self.context.shown(visitor, lang)
            last = visitor.conversation[-1]
            if progress := last.get("progress"):
                text_heard = last["content"][: progress.characters]
                ids_heard = last["token_ids"][: progress.tokens]
                visitor.conversation[-1] = last | {"content": text_heard, "token_ids": ids_heard}
            return self.context.due(visitor, lang)

    def clear(self, waiting: dict | None, request: gr.Request) -> tuple:
        """Begin anew; conversation, audios and the model's memory of them are deleted, and what waits in the box."""
        visitor, lang = self.context.visitor(request)
        for file in (waiting or {}).get("files", ()):
            visitor.remember_upload(Path(file))
        visitor.forget()
        return self.context.shown(visitor, lang, {"text": "", "files": []})

    def delete(self, waiting: dict | None, request: gr.Request) -> tuple:
        """`clear`, and say so."""
        gr.Info(text("deleted", language(request)), title="")
        return self.clear(waiting, request)

    def leave(self, request: gr.Request) -> None:
        """The page was closed."""
        self.context.visitors.leave(request.session_hash, text("no_answer", language(request)))

    def export(self, kind: str):
        """Make the handler that writes the conversation as "markdown", or "json" with the audios."""

        def write(request: gr.Request):
            visitor, lang = self.context.visitor(request)
            if not visitor.conversation:
                gr.Info(text("nothing_to_export", lang), title="")
                return gr.update(value=None)
            return gr.update(value=str(conversation_files.write(visitor, kind, lang)))

        return write

    def load(self, file: str, request: gr.Request) -> tuple:
        """Go on with an exported conversation; one that can't be read changes nothing."""
        visitor, lang = self.context.visitor(request)
        visitor.remember_upload(Path(file))
        dropped = visitor.dropped
        try:
            conversation = conversation_files.read(Path(file), visitor, lang)
            with visitor.keeping(dropped):
                visitor.interrupt()
                visitor.conversation, visitor.note, visitor.status = conversation, "", []
        except Forgotten:
            return gr.skip(), gr.skip(), gr.skip(), gr.skip()
        except ValueError as error:
            return self.context.refused(text("bad_import", lang, error=explain(error, lang)))
        visitor.is_open = True
        gr.Info(text("imported", lang), title="")
        return self.context.shown(visitor, lang)


def _take_back_answer(visitor: Visitor) -> None:
    """Stop the answer under way, and remove the last one."""
    visitor.interrupt()
    while visitor.conversation and visitor.conversation[-1]["role"] == "assistant":
        visitor.conversation.pop()
