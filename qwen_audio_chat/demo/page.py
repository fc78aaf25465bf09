"""The page: what stands where, and which handler serves what."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import gradio as gr
from gradio.utils import get_upload_folder

from ..chat import AudioChat
from ..engine.sampling import GenerationOptions
from ..prompts.questions import LANGUAGE_NAMES
from ..resources import EXAMPLES
from .answer_handlers import Answers
from .api_handlers import MCP_TOOL, Programs, has_mcp
from .ask_handlers import Messages
from .edit_handlers import Changes
from .examples import load_examples
from .page_state import PageContext
from .presets import PRESETS
from .texts import label, language, text

LOGO = (
    '<svg viewBox="0 0 32 32" aria-hidden="true"><defs><linearGradient id="qa-logo" x2="1" y2="1"><stop stop-color='
    '"#6366f1"/><stop offset="1" stop-color="#d946ef"/></linearGradient></defs><rect width="32" height="32" rx="10" '
    'fill="url(#qa-logo)"/><path d="M9 13v6M13.7 9v14M18.3 11.5v9M23 14v4" stroke="#fff" stroke-width="2.4" '
    'stroke-linecap="round"/></svg>'
)
LANE = "model"  # everything that runs the model waits in one line
DELETE_UPLOADS_SECONDS = (600, 3600)  # Gradio looks every ten minutes and deletes what is an hour old
PRIVATE = {"api_visibility": "private"}
SOON = {**PRIVATE, "show_progress": "hidden"}  # what comes through a queue can pop up a message
NOW = {**SOON, "queue": False}


def build_demo(chat: AudioChat, *, examples: Path = EXAMPLES) -> gr.Blocks:
    """The page for a model. Launch it with `launch.launch`, which brings style, translations and limits along."""
    _own_upload_folder()
    context = PageContext(chat)
    messages = Messages(context, load_examples(examples, Path(get_upload_folder()) / "examples"))
    changes = Changes(context)
    with gr.Blocks(
        title="Qwen-Audio-Chat", analytics_enabled=False, fill_height=True, delete_cache=DELETE_UPLOADS_SECONDS
    ) as demo:
        demo.page_context = context
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
            **_welcome(messages.examples, "en"),
        )
        chatbot.keep_in_cache |= {example["picture"] for example in messages.examples}  # uploads are deleted in time
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
        status = gr.HTML(context.status(), elem_id="qa-status", padding=False)
        turn = gr.State(0)
        _wire(demo, messages, Answers(context), changes, (chatbot, box, status, turn), settings)
        for task, button in zip(PRESETS, tasks, strict=True):
            button.click(messages.fill_in(task), [box, target], box, **SOON).then(js=_FOCUS)
        new_chat.click(changes.clear, box, [chatbot, box, status, turn], **NOW).then(js=_FOCUS)
        _wire_files(changes, files, [chatbot, box, status, turn])
        _api(Programs(context))
    return demo


def _own_upload_folder() -> None:
    """Keep uploads apart from those of other Gradio programs, for this user alone, and delete them at the end."""
    if "GRADIO_TEMP_DIR" not in os.environ:
        folder = tempfile.mkdtemp(prefix="qwen-audio-chat-")
        os.environ["GRADIO_TEMP_DIR"] = folder
        atexit.register(shutil.rmtree, folder, ignore_errors=True)


# A secret of this tab, which outlives a reload and not the tab.
_TAB = """() => {
    let key = sessionStorage.getItem("qa-tab");
    if (!key) {
        const bytes = crypto.getRandomValues(new Uint8Array(24));
        key = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
        sessionStorage.setItem("qa-tab", key);
    }
    return key;
}"""
# What was typed and not yet sent outlives a reload as well: Gradio reloads the page when the server comes back.
_DRAFT = """() => ({ text: sessionStorage.getItem("qa-draft") ?? "", files: [] })"""
# Gradio shows every audio that waits to be sent as the same note; the style sheet writes its name below. It also leaves
# the box once a file was chosen: who types goes on there.
_WAITING = """(message) => requestAnimationFrame(() => {
    sessionStorage.setItem("qa-draft", message?.text ?? "");
    const items = document.querySelectorAll("#qa-box .thumbnail-item");
    items.forEach((item, place) => {
        item.title = item.dataset.name = message?.files?.[place]?.orig_name ?? "";
    });
    if (items.length > (window.qaWaiting ?? 0) && matchMedia("(pointer: fine)").matches) {
        document.querySelector("#qa-box textarea")?.focus();
    }
    window.qaWaiting = items.length;
})"""
_SHOWS_TALK = "(message) => [message, document.querySelector('#qa-chat .user') !== null]"
_FOCUS = "() => { document.querySelector('#qa-box textarea')?.focus(); }"


def _sidebar(target: str) -> tuple[list, gr.Dropdown, dict]:
    """Settings and files, folded away; `target` is the language that is translated into at first."""
    default = GenerationOptions()
    with gr.Sidebar(position="right", open=False, elem_id="qa-side", width=330):
        gr.Markdown(label("settings"), elem_classes="qa-title")
        target = gr.Dropdown(
            [(" · ".join(names), key) for key, names in LANGUAGE_NAMES.items()],
            value=target,
            label=label("translate_to"),
        )
        do_sample = gr.Checkbox(default.do_sample, label=label("do_sample"), info=label("do_sample_info"))
        with gr.Group():
            temperature = gr.Slider(0.1, 2.0, default.temperature, step=0.1, label=label("temperature"))
            top_p = gr.Slider(0.05, 1.0, default.top_p, step=0.05, label=label("top_p"))
            top_k = gr.Slider(0, 200, default.top_k, step=1, label=label("top_k"))
            seed = gr.Textbox("", max_length=10, label=label("seed"))
        penalty = gr.Slider(1.0, 2.0, default.repetition_penalty, step=0.05, label=label("repetition_penalty"))
        longest = gr.Slider(8, 2048, default.max_new_tokens, step=8, label=label("max_new_tokens"))
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
    return [do_sample, temperature, top_p, top_k, penalty, longest, seed], target, files


def _wire(demo, messages: Messages, answers: Answers, changes: Changes, outputs, settings) -> None:
    """The conversation's events. An action that wants an answer changes `turn`; that joins the model's line."""
    chatbot, box, status, turn = outputs
    view, due = [chatbot, box, status], [chatbot, box, status, turn]
    # Through a queue of their own: Gradio tells a state's change to the page only on that way.
    taking = {**SOON, "concurrency_limit": 4, "concurrency_id": "reading"}

    def opened(tab: str, request: gr.Request):
        lang = language(request)
        view = changes.open(tab, request)
        welcome = {} if lang == "en" else _welcome(messages.examples, lang)
        if view is None:  # nothing to show again; what the visitor may have begun by now is left alone
            return (gr.update(**welcome) if welcome else gr.skip()), gr.skip(), gr.skip()
        return gr.update(value=view[0], **welcome), *view[1:]

    def left(request: gr.Request):
        changes.leave(request)
        # Gradio would keep a copy of every component for each page that was ever open; a page that comes back gets its
        # own anew, and its conversation is the visitor's.
        demo.state_holder.session_data.pop(request.session_hash, None)
        demo.state_holder.time_last_used.pop(request.session_hash, None)

    demo.load(opened, gr.Textbox(visible=False), view, js=_TAB, **NOW)
    demo.load(None, None, box, js=_DRAFT, **NOW)
    demo.unload(left)
    box.change(None, box, js=_WAITING, **NOW)
    box.submit(messages.submit, [box, gr.Checkbox(visible=False)], due, js=_SHOWS_TALK, **taking)
    chatbot.example_select(messages.example, None, due, **taking)
    for listener, handler in (
        (chatbot.retry, changes.retry),
        (chatbot.undo, changes.undo),
        (chatbot.edit, changes.edit),
        (chatbot.option_select, changes.go_on),
    ):
        listener(handler, None, due, **taking)
    box.stop(answers.stop, None, view, **NOW)
    turn.change(
        answers.answer,
        settings,
        view,
        **PRIVATE,
        concurrency_limit=1,
        concurrency_id=LANE,
        show_progress="full",  # the place in the line
        show_progress_on=chatbot,
    ).then(answers.settle, None, view, **NOW)


def _welcome(examples: list[dict], lang: str) -> dict:
    """What an empty conversation shows: a greeting and the gallery."""
    greeting = text("welcome", lang).replace("\n", "<br>")
    gallery = [
        {"text": example["question"][lang], "display_text": example["title"][lang], "icon": example["picture"]}
        for example in examples
    ]
    placeholder = f'<div class="qa-welcome"><h2>{text("tagline", lang)}</h2><p>{greeting}</p></div>'
    return {"placeholder": placeholder, "examples": gallery or None}


def _wire_files(changes: Changes, files: dict, due: list) -> None:
    for kind in ("markdown", "json"):
        files[kind].click(changes.export(kind), None, files["download"], **SOON).success(
            js="() => setTimeout(() => document.querySelector('#qa-download')?.click(), 300)"
        )
    files["import"].upload(changes.load, files["import"], due, **SOON)
    files["delete"].click(changes.delete, due[1], due, **SOON)


def _api(programs: Programs) -> None:
    """`ask`, and `listen` for MCP; hidden components give `ask` real file inputs, which refuse paths of the server."""
    line = {"concurrency_limit": 1, "concurrency_id": LANE}
    with gr.Row(visible=False):
        files = gr.File(file_count="multiple", label="files")
        question = gr.Textbox(label="question")
        answer = gr.Textbox(label="answer")
        gr.Button().click(programs.ask, [files, question], answer, api_name="ask", **line)
        if has_mcp():
            audios = gr.Textbox(label="audios")
            gr.Button().click(programs.listen, [audios, question], answer, api_name=MCP_TOOL, **line)
