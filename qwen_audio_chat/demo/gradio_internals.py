"""Everything on this page that relies on how Gradio works inside, written for Gradio 6.31.0.

None of it is documented by Gradio, so an upgrade may break it silently. Each function says why it is needed, and
`tests/demo/test_gradio_internals.py` fails with the name of the function that has to be looked at.
"""

import atexit
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import quote, unquote

import gradio as gr
from gradio import processing_utils
from gradio.utils import get_upload_folder
from gradio.utils import is_zero_gpu_space as gradio_is_zero_gpu_space

DIGEST = "[0-9a-f]{64}"  # the name of an upload's folder: a hash of the file's content


def use_own_upload_folder() -> None:
    """Keep uploads apart from those of other Gradio programs, readable by this user only, and delete them at exit.

    Gradio (6.31.0) reads the variable each time it needs the folder, so it has to be set before the first page is made.
    """
    if "GRADIO_TEMP_DIR" not in os.environ:
        folder = tempfile.mkdtemp(prefix="qwen-audio-chat-")
        os.environ["GRADIO_TEMP_DIR"] = folder
        atexit.register(shutil.rmtree, folder, ignore_errors=True)


def upload_folder() -> Path:
    """The folder whose files Gradio (6.31.0) serves to anybody who knows their address, without `allowed_paths`."""
    return Path(get_upload_folder())


def is_upload(path: Path) -> bool:
    """Whether a path is `<upload folder>/<digest>/<name>`, as Gradio (6.31.0) stores uploads.

    Other paths in the folder may be a visitor's own files, which nobody else may name.
    """
    return path.parent.parent == upload_folder() and re.fullmatch(DIGEST, path.parent.name) is not None


def file_address(path: Path | None) -> str:
    """The address of a file in the upload folder, relative to the page; the route is that of Gradio 6.31.0."""
    return f"gradio_api/file={quote(str(path))}"


def path_in_address(address: str) -> Path:
    """The path that an address as in `file_address` names."""
    return Path(unquote(address.rpartition("/file=")[2]))


def keep_files(component: gr.Chatbot, paths: Iterable[str]) -> None:
    """Exempt files that a component shows from `delete_cache`.

    Gradio (6.31.0) exempts only files of a component's value, not the pictures of a Chatbot's examples.
    """
    component.keep_in_cache |= set(paths)


def forget_page(demo: gr.Blocks, session_hash: str) -> None:
    """Free what Gradio keeps of a closed page.

    Gradio (6.31.0) keeps a copy of every component for up to 10,000 closed pages. A page that comes back gets new
    copies; its conversation is kept by the visitor.
    """
    demo.state_holder.session_data.pop(session_hash, None)
    demo.state_holder.time_last_used.pop(session_hash, None)


def fetch_no_addresses() -> None:
    """Refuse web addresses in place of uploaded files.

    Gradio (6.31.0) downloads any public address that a request names as a file, and has no setting against it.
    """
    processing_utils.async_ssrf_protected_download = _refuse_address


async def _refuse_address(*_args, **_options):
    raise gr.Error("Upload a file; web addresses are not fetched.", print_exception=False)


def keep_only_tool(demo: gr.Blocks, name: str) -> None:
    """Offer a single function as an MCP tool.

    Gradio (6.31.0) offers every function of the API, and lets a tool's caller name any file of this machine for a file
    input.
    """
    if demo.mcp_server_obj is not None:
        tools = demo.mcp_server_obj.tool_to_endpoint
        for other in set(tools) - {name}:
            del tools[other]


def is_zero_gpu_space() -> bool:
    """Whether this process runs on Hugging Face ZeroGPU, by the same sign that Gradio (6.31.0) goes by."""
    return gradio_is_zero_gpu_space()


def browser_texts(texts: Mapping[str, tuple[str, str]]) -> gr.I18n:
    """Texts in (English, Chinese), translated in the browser.

    Browsers have several names for Chinese, and Gradio (6.31.0) looks for exactly the browser's name.
    """
    english = {key: text for key, (text, _) in texts.items()}
    chinese = {key: text for key, (_, text) in texts.items()}
    return gr.I18n(en=english, zh=chinese, **{"zh-CN": chinese, "zh-TW": chinese})
