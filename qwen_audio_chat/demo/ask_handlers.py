"""A visitor asks something: what is in the box, an example of the gallery, or a task put into the box."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import gradio as gr

from ..audio.audio import Audio
from ..errors import UserError
from ..prompts.questions import question as task_question
from .error_texts import explain
from .examples import Example
from .page_audio import audio_parts, load_fitting, question_message
from .page_state import PageState
from .texts import text
from .visitors import Job, Visitor

MAX_AUDIOS = 20  # in one message
MAX_CHARACTERS = 20_000


class AskHandlers:
    """Handlers of new questions."""

    def __init__(self, page: PageState, examples: Sequence[Example]):
        self.page = page
        self.examples = examples

    def submit(self, message: dict, shows_conversation: bool, request: gr.Request) -> Iterator[tuple]:
        """Take what is in the box. What can't be used stays there, with a sentence that says why.

        Args:
            shows_conversation: whether the page shows a conversation.
        """
        visitor, lang = self.page.visitor(request)
        question, files = (message["text"] or "").strip(), [Path(file) for file in message["files"] or []]
        if reason := self._refusal(visitor, shows_conversation):
            yield self.page.refuse(text(reason, lang))
        elif not question and not files:
            yield self.page.refuse(text("empty", lang))
        elif len(files) > MAX_AUDIOS:
            yield self.page.refuse(text("many_files", lang, limit=MAX_AUDIOS))
        elif len(question) > MAX_CHARACTERS:
            yield self.page.refuse(text("long_text", lang, limit=f"{MAX_CHARACTERS:,}"))
        else:
            yield from self._ask(visitor, lang, question, files)

    def _refusal(self, visitor: Visitor, shows_conversation: bool = False) -> str | None:
        """Why no new question is taken now: one at a time, once the last one is answered."""
        return "busy" if visitor.is_answering else self.page.refusal(visitor, shows_conversation=shows_conversation)

    def _ask(self, visitor: Visitor, lang: str, question: str, files: list[Path]) -> Iterator[tuple]:
        job = visitor.begin_reading()
        if job is None:
            yield self.page.refuse(text("busy", lang))
            return
        visitor.in_sync = True  # an empty page stays usable after a restart of the server
        try:
            yield from self._read(visitor, job, lang, question, files)
        finally:
            visitor.end_job(job)

    def _read(self, visitor: Visitor, job: Job, lang: str, question: str, files: list[Path]) -> Iterator[tuple]:
        """Read the files and request an answer; end silently if the job was dropped: the page is gone, or is empty.

        Nothing is yielded while the visitor's lock is held, because Gradio resumes a generator in another thread.
        """
        names = [visitor.names.get(file, file.name) for file in files]
        audios: list[Audio] = []
        loading = load_fitting(files, self.page.chat.info.context_limit)
        for file, name in zip(files, names, strict=True):
            with visitor.lock:
                if visitor.job is not job:
                    return
                visitor.remember_upload(file)
            activity = text("decoding", lang, name=name) + " …"
            yield gr.skip(), gr.skip(), self.page.status(activity=activity), gr.skip()
            try:
                audios.append(next(loading))
            except UserError as error:
                with visitor.lock:
                    if visitor.job is not job:  # the file was deleted with everything else
                        return
                    refusal = self.page.refuse(text("bad_file", lang, name=name, error=explain(error, lang)))
                yield refusal
                yield gr.skip(), gr.skip(), self.page.status(visitor), gr.skip()
                return
        parts = []
        for name, audio in zip(names, audios, strict=True):
            part = visitor.add_audio(name, audio, job)
            if part is None:
                return
            parts.append(part)
        question = question or task_question("hear" if len(parts) == 1 else "hear_each", self._question_language(lang))
        with visitor.lock:
            if visitor.job is not job:
                return
            visitor.conversation.append(question_message(question, parts))
            view = self.page.request_answer(visitor, lang, {"text": "", "files": []})
        yield view

    def _question_language(self, lang: str) -> str:
        """The language to ask the model in: the pocket model understands only English questions."""
        return "en" if self.page.chat.info.is_pocket else lang

    def example(self, event: gr.SelectData, request: gr.Request) -> Iterator[tuple]:
        """Ask the question of a gallery card."""
        visitor, lang = self.page.visitor(request)
        if reason := self._refusal(visitor):
            yield self.page.refuse(text(reason, lang))
            return
        example = self.examples[event.index]
        question = example["question"][self._question_language(lang)]
        yield from self._ask(visitor, lang, question, [Path(file) for file in example["files"]])

    def fill_in(self, task: str) -> Callable:
        """Make the handler that puts a task's question into the box, for the visitor to send or to change."""

        def fill(message: dict, target: str, request: gr.Request):
            visitor, lang = self.page.visitor(request)
            if not message["files"] and not any(map(audio_parts, visitor.conversation)):
                gr.Info(text("add_audio", lang), title="")
            question = task_question(task, self._question_language(lang), target)
            return gr.update(value={"text": question, "files": message["files"]})

        return fill
