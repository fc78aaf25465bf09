"""The page: its layout, and which handler serves which event."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from ..chat import AudioChat
from ..engine.sampling import GenerationOptions
from ..prompts.questions import LANGUAGE_NAMES
from ..resources import EXAMPLES
from .answer_handlers import AnswerHandlers
from .api_handlers import MCP_TOOL, ApiHandlers, has_mcp
from .ask_handlers import AskHandlers
from .edit_handlers import EditHandlers
from .examples import Example, load_examples
from .gradio_internals import forget_page, keep_files, upload_folder, use_own_upload_folder
from .page_state import PageState
from .presets import PRESETS
from .texts import label, language, text

LOGO = (
    '<svg viewBox="0 0 32 32" aria-hidden="true"><defs><linearGradient id="qa-logo" x2="1" y2="1"><stop stop-color='
    '"#6366f1"/><stop offset="1" stop-color="#d946ef"/></linearGradient></defs><rect width="32" height="32" rx="10" '
    'fill="url(#qa-logo)"/><path d="M9 13v6M13.7 9v14M18.3 11.5v9M23 14v4" stroke="#fff" stroke-width="2.4" '
    'stroke-linecap="round"/></svg>'
)
MODEL_QUEUE: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "model"}  # shared by all that runs the model
DELETE_UPLOADS_SECONDS = (600, 3600)  # how often Gradio deletes old uploads, and the age at which it does

# Options of events. Only an event that goes through Gradio's queue can pop up a message or change a `gr.State`.
PRIVATE: dict[str, Any] = {"api_visibility": "private"}
QUEUED: dict[str, Any] = {**PRIVATE, "show_progress": "hidden"}
IMMEDIATE: dict[str, Any] = {**QUEUED, "queue": False}
READING: dict[str, Any] = {**QUEUED, "concurrency_limit": 4, "concurrency_id": "reading"}  # never behind an answer

FOCUS_BOX = "() => qaPage.focusBox()"  # JavaScript's functions are in page.js


class Page(gr.Blocks):
    """The page with what its handlers share."""

    page_state: PageState


def build_demo(chat: AudioChat, *, examples: Path = EXAMPLES) -> Page:
    """The page for a model. Launch it with `launch.launch`, which adds style, scripts, translations and limits."""
    use_own_upload_folder()
    state = PageState(chat)
    gallery = load_examples(examples, upload_folder() / "examples")
    asking, answering, editing = AskHandlers(state, gallery), AnswerHandlers(state), EditHandlers(state)
    with Page(
        title="Qwen-Audio-Chat", analytics_enabled=False, fill_height=True, delete_cache=DELETE_UPLOADS_SECONDS
    ) as demo:
        demo.page_state = state
        settings, target, files = _sidebar("en" if chat.info.is_pocket else "zh")
        with gr.Row(elem_id="qa-head", equal_height=True):
            gr.HTML(f"<h1>{LOGO}Qwen-Audio-Chat</h1>", padding=False)
            new_chat = gr.Button(label("new_chat"), size="sm", variant="secondary", min_width=80, elem_id="qa-new")
        chatbot = gr.Chatbot(
            label=label("conversation"),
            show_label=False,
            elem_id="qa-chat",
            scale=1,
            min_height=240,
            height=None,
            layout="bubble",
            render_markdown=False,
            sanitize_html=True,
            allow_tags=False,
            latex_delimiters=[],
            group_consecutive_messages=False,
            editable="user",
            buttons=["copy"],
            **_welcome(gallery, "en"),
        )
        keep_files(chatbot, [example["picture"] for example in gallery])
        with gr.Row(elem_id="qa-tasks"):
            tasks = [
                gr.Button(label(f"task_{task}"), size="sm", min_width=40, scale=0, elem_classes="qa-task")
                for task in PRESETS
            ]
        box = gr.MultimodalTextbox(
            sources=["upload", "microphone"],
            file_count="multiple",
            file_types=["audio", "video"],
            placeholder=label("box"),
            label=label("box_label"),
            show_label=False,
            elem_id="qa-box",
            autofocus=True,
            max_plain_text_length=100_000,
        )
        status = gr.HTML(state.status(), elem_id="qa-status", padding=False)
        turn = gr.State(0)
        outputs = [chatbot, box, status, turn]
        _connect_page(demo, editing, gallery, outputs)
        _connect_conversation(asking, answering, editing, outputs, settings)
        for task, button in zip(PRESETS, tasks, strict=True):
            button.click(asking.fill_in(task), [box, target], box, **QUEUED).then(js=FOCUS_BOX)
        new_chat.click(editing.clear, box, outputs, **IMMEDIATE).then(js=FOCUS_BOX)
        _connect_files(editing, files, outputs)
        _add_api(ApiHandlers(state))
    return demo


def _sidebar(translate_to: str) -> tuple[list, gr.Dropdown, dict[str, Any]]:
    """The sidebar, folded at first: (settings of answers, target language, buttons for files)."""
    default = GenerationOptions()
    with gr.Sidebar(position="right", open=False, elem_id="qa-side", width=330):
        gr.Markdown(label("settings"), elem_classes="qa-title")
        target = gr.Dropdown(
            [(" · ".join(names), key) for key, names in LANGUAGE_NAMES.items()],
            value=translate_to,
            label=label("translate_to"),
        )
        do_sample = gr.Checkbox(default.do_sample, label=label("do_sample"), info=label("do_sample_info"))
        with gr.Group():
            temperature = gr.Slider(0.1, 2.0, default.temperature, step=0.1, label=label("temperature"))
            top_p = gr.Slider(0.05, 1.0, default.top_p, step=0.05, label=label("top_p"))
            top_k = gr.Slider(0, 200, default.top_k, step=1, label=label("top_k"))
            seed = gr.Textbox("", max_length=10, label=label("seed"))
        penalty = gr.Slider(1.0, 2.0, default.repetition_penalty, step=0.05, label=label("repetition_penalty"))
        max_tokens = gr.Slider(8, 2048, default.max_new_tokens, step=8, label=label("max_new_tokens"))
        gr.Markdown(label("keep"), elem_classes="qa-title")
        files = {
            "markdown": gr.Button(label("export_markdown"), size="sm"),
            "json": gr.Button(label("export_json"), size="sm"),
            "import": gr.UploadButton(label("import"), file_types=[".json"], size="sm", elem_id="qa-import"),
            "download": gr.DownloadButton(visible="hidden", elem_id="qa-download"),
        }
        gr.Markdown(label("privacy"), elem_classes="qa-title")
        gr.Markdown(label("privacy_note"), elem_classes="qa-small")
        files["delete"] = gr.Button(label("delete"), size="sm", variant="stop", elem_id="qa-delete")
    return [do_sample, temperature, top_p, top_k, penalty, max_tokens, seed], target, files


def _welcome(gallery: Sequence[Example], lang: str) -> dict[str, Any]:
    """What an empty conversation shows: a greeting and the gallery."""
    greeting = text("welcome", lang).replace("\n", "<br>")
    cards = [
        {"text": example["question"][lang], "display_text": example["title"][lang], "icon": example["picture"]}
        for example in gallery
    ]
    placeholder = f'<div class="qa-welcome"><h2>{text("tagline", lang)}</h2><p>{greeting}</p></div>'
    return {"placeholder": placeholder, "examples": cards or None}


def _connect_page(demo: Page, editing: EditHandlers, gallery: Sequence[Example], outputs: list) -> None:
    """Opening and closing the page."""
    chatbot, box, status, _ = outputs

    def opened(tab: str, request: gr.Request):
        lang = language(request)
        view = editing.open(tab, request)
        welcome = {} if lang == "en" else _welcome(gallery, lang)
        if view is None:  # no earlier conversation; the visitor may have typed something by now, so the box is kept
            return (gr.update(**welcome) if welcome else gr.skip()), gr.skip(), gr.skip()
        return gr.update(value=view[0], **welcome), *view[1:]

    def closed(request: gr.Request):
        editing.leave(request)
        forget_page(demo, request.session_hash or "")

    demo.load(opened, gr.Textbox(visible=False), [chatbot, box, status], js="() => qaPage.tabKey()", **IMMEDIATE)
    demo.load(None, None, box, js="() => qaPage.draft()", **IMMEDIATE)
    demo.unload(closed)


def _connect_conversation(
    asking: AskHandlers, answering: AnswerHandlers, editing: EditHandlers, outputs: list, settings: list
) -> None:
    """The events of the conversation. Actions that ask for an answer change `turn`, which joins the model's queue."""
    chatbot, box, status, turn = outputs
    view = [chatbot, box, status]
    box.change(None, box, js="(message) => qaPage.boxChanged(message)", **IMMEDIATE)
    box.submit(
        asking.submit,
        [box, gr.Checkbox(visible=False)],
        outputs,
        js="(message) => qaPage.withConversationShown(message)",
        **READING,
    )
    chatbot.example_select(asking.example, None, outputs, **READING)
    for listener, handler in (
        (chatbot.retry, editing.retry),
        (chatbot.undo, editing.undo),
        (chatbot.edit, editing.edit),
        (chatbot.option_select, editing.continue_answer),
    ):
        listener(handler, None, outputs, **READING)
    box.stop(answering.stop, None, view, **IMMEDIATE)
    turn.change(
        answering.answer,
        settings,
        view,
        **PRIVATE,
        **MODEL_QUEUE,
        show_progress="full",  # which shows the place in the queue
        show_progress_on=chatbot,
    ).then(answering.after_queue, None, view, **IMMEDIATE)


def _connect_files(editing: EditHandlers, files: dict[str, Any], outputs: list) -> None:
    """Export, import and deletion."""
    for kind in ("markdown", "json"):
        exported = files[kind].click(editing.export(kind), None, files["download"], **QUEUED)
        exported.success(js="() => qaPage.download()")
    files["import"].upload(editing.load, files["import"], outputs, **QUEUED)
    files["delete"].click(editing.delete, outputs[1], outputs, **QUEUED)


def _add_api(handlers: ApiHandlers) -> None:
    """`ask`, and `listen` for MCP. Hidden components give `ask` real file inputs, which refuse paths of the server."""
    with gr.Row(visible=False):
        files = gr.File(file_count="multiple", label="files")
        question = gr.Textbox(label="question")
        answer = gr.Textbox(label="answer")
        gr.Button().click(handlers.ask, [files, question], answer, api_name="ask", **MODEL_QUEUE)
        if has_mcp():
            audios = gr.Textbox(label="audios")
            gr.Button().click(handlers.listen, [audios, question], answer, api_name=MCP_TOOL, **MODEL_QUEUE)
