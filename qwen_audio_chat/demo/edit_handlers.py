"""Second thoughts: retry, undo, edit, continue, a new chat; export and import of the conversation; leaving the page."""

from collections.abc import Callable
from pathlib import Path

import gradio as gr

from ..errors import UserError
from ..prompts.messages import Message, message_text
from . import conversation_files, render
from .ask_handlers import MAX_CHARACTERS
from .error_texts import explain
from .page_audio import audio_parts, page_audios, question_message
from .page_state import PageState
from .texts import language, text
from .visitors import Visitor


class EditHandlers:
    """Handlers that change the conversation so far."""

    def __init__(self, page: PageState):
        self.page = page

    def open(self, tab: str, request: gr.Request) -> tuple | None:
        """The page was loaded. The view of the tab's earlier conversation; None if there is none."""
        key = f"{request.username or ''}:{tab}" if tab else ""
        visitor = self.page.visitors.rejoin(request.session_hash or "anonymous", key)
        if not visitor.conversation or visitor.is_answering:  # an answer would belong to the new page already
            return None
        return self.page.view(visitor, language(request), box={})

    def retry(self, request: gr.Request) -> tuple:
        """Answer the last question again."""
        visitor, lang = self.page.visitor(request)
        if reason := self.page.refusal(visitor, shows_conversation=True):
            return self.page.refuse(text(reason, lang))
        with visitor.lock:
            _take_back_answer(visitor)
            if not visitor.conversation:
                return self.page.redraw(visitor, lang)
            return self.page.request_answer(visitor, lang)

    def undo(self, request: gr.Request) -> tuple:
        """Move the last question back into the box, with its audios."""
        visitor, lang = self.page.visitor(request)
        if not visitor.in_sync or visitor.is_reading:
            return self.page.refuse(text("busy" if visitor.in_sync else "gone", lang))
        with visitor.lock:
            _take_back_answer(visitor)
            box = None
            if visitor.conversation:
                message: Message = visitor.conversation.pop()
                files = [
                    gr.FileData(path=str(audio.file), orig_name=audio.name, mime_type="audio/wav")
                    for audio in page_audios(message)
                ]
                box = {"text": message_text(message), "files": files}
            visitor.note = ""
            return self.page.redraw(visitor, lang, box)

    def edit(self, event: gr.EditData, request: gr.Request) -> tuple:
        """Change an earlier question: what followed it is removed, and it is answered again."""
        visitor, lang = self.page.visitor(request)
        if reason := self.page.refusal(visitor, shows_conversation=True):
            gr.Warning(text(reason, lang), title="")
            return self.page.redraw(visitor, lang)  # the page shows the changed message already
        index = event.index[0] if isinstance(event.index, list | tuple) else event.index
        question = render.unguard(str(event.value)).strip()[:MAX_CHARACTERS]
        with visitor.lock:
            is_question = 0 <= index < len(visitor.conversation) and visitor.conversation[index]["role"] == "user"
            if not is_question or not question:
                return self.page.redraw(visitor, lang)
            parts = audio_parts(visitor.conversation[index])
            del visitor.conversation[index:]
            visitor.conversation.append(question_message(question, parts))
            return self.page.request_answer(visitor, lang)

    def continue_answer(self, request: gr.Request) -> tuple:
        """Continue an answer that reached its limit or was stopped; a long audio's unfinished part begins again."""
        visitor, lang = self.page.visitor(request)
        if reason := self.page.refusal(visitor, shows_conversation=True):
            return self.page.refuse(text(reason, lang))
        with visitor.lock:
            if visitor.is_answering or not visitor.conversation or visitor.conversation[-1]["role"] != "assistant":
                return self.page.redraw(visitor, lang)
            last: Message = visitor.conversation[-1]
            if progress := last.get("progress"):
                finished_text = message_text(last)[: progress.characters]
                finished_ids = last.get("token_ids", [])[: progress.tokens]
                visitor.conversation[-1] = last | {"content": finished_text, "token_ids": finished_ids}
            return self.page.request_answer(visitor, lang)

    def clear(self, box: dict | None, request: gr.Request) -> tuple:
        """Start a new chat: the conversation, its audios, all that is computed of them, and the box are deleted."""
        visitor, lang = self.page.visitor(request)
        for file in (box or {}).get("files", ()):
            visitor.remember_upload(Path(file))
        visitor.forget()
        return self.page.redraw(visitor, lang, {"text": "", "files": []})

    def delete(self, box: dict | None, request: gr.Request) -> tuple:
        """`clear`, and say so."""
        gr.Info(text("deleted", language(request)), title="")
        return self.clear(box, request)

    def leave(self, request: gr.Request) -> None:
        """The page was closed."""
        self.page.visitors.leave(request.session_hash or "anonymous", text("no_answer", language(request)))

    def export(self, kind: str) -> Callable:
        """Make the handler that writes the conversation as "markdown", or as "json" with the audios."""

        def write(request: gr.Request):
            visitor, lang = self.page.visitor(request)
            if not visitor.conversation:
                gr.Info(text("nothing_to_export", lang), title="")
                return gr.update(value=None)
            return gr.update(value=str(conversation_files.write(visitor, kind, lang)))

        return write

    def load(self, file: str, request: gr.Request) -> tuple:
        """Replace the conversation by an exported one; a file that can't be read changes nothing."""
        visitor, lang = self.page.visitor(request)
        visitor.remember_upload(Path(file))
        job = visitor.begin_reading()
        if job is None:
            return self.page.refuse(text("busy", lang))
        try:
            conversation = conversation_files.read(Path(file), visitor, job)
        except UserError as error:
            return self.page.refuse(text("bad_import", lang, error=explain(error, lang)))
        else:
            with visitor.lock:
                if conversation is None or visitor.job is not job:
                    return gr.skip(), gr.skip(), gr.skip(), gr.skip()
                visitor.conversation, visitor.note, visitor.status = conversation, "", []
                visitor.in_sync = True
        finally:
            visitor.end_job(job)
        gr.Info(text("imported", lang), title="")
        return self.page.redraw(visitor, lang)


def _take_back_answer(visitor: Visitor) -> None:
    """Drop the answer under way, and remove the last one."""
    visitor.drop_job()
    while visitor.conversation and visitor.conversation[-1]["role"] == "assistant":
        visitor.conversation.pop()
