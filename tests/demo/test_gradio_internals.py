"""What `gradio_internals` relies on: after an upgrade of Gradio, a failure here names the function to look at."""

import inspect

import gradio as gr
import httpx
import pytest
from gradio import blocks, processing_utils
from gradio.route_utils import delete_files_created_by_app

from qwen_audio_chat.demo import gradio_internals
from qwen_audio_chat.demo.api_handlers import MCP_TOOL, has_mcp


def look_at(function: str) -> str:
    return f"Gradio {gr.__version__} works differently: look at gradio_internals.{function}"


@pytest.fixture
def uploaded(demo, clips):
    """The path of an upload, as the server names it."""
    with clips["low"].open("rb") as file:
        return httpx.post(f"{demo.local_url}gradio_api/upload", files={"files": file}).json()[0]


def test_upload_folder(uploaded):
    path = gradio_internals.Path(uploaded)
    assert path.is_relative_to(gradio_internals.upload_folder()), look_at("upload_folder")
    assert gradio_internals.is_upload(path), look_at("is_upload")
    assert not gradio_internals.is_upload(path.parent.with_name("visitor-x") / "a.wav")


def test_own_upload_folder(monkeypatch):
    monkeypatch.delenv("GRADIO_TEMP_DIR", raising=False)
    before = gradio_internals.upload_folder()
    gradio_internals.use_own_upload_folder()
    folder = gradio_internals.upload_folder()
    assert folder != before and folder.is_dir(), look_at("use_own_upload_folder")
    assert folder.stat().st_mode & 0o077 == 0, "other users of this machine can read it"
    gradio_internals.use_own_upload_folder()
    assert gradio_internals.upload_folder() == folder, "a folder that is set already stays"


def test_file_address(demo):
    path = gradio_internals.upload_folder() / "visitor-x" / "a b&c.txt"
    path.parent.mkdir(exist_ok=True)
    path.write_text("x")
    address = gradio_internals.file_address(path)
    answer = httpx.get(f"{demo.local_url}{address}")
    assert (answer.status_code, answer.text) == (200, "x"), look_at("file_address")
    assert gradio_internals.path_in_address(f"{demo.local_url}{address}") == path


def test_keep_files(tmp_path):
    kept, other = tmp_path / "kept.png", tmp_path / "other.png"
    with gr.Blocks() as page:
        chatbot = gr.Chatbot()
    for path in (kept, other):
        path.touch()
        chatbot.temp_files.add(str(path))
        page.temp_file_sets.append({str(path)})
    gradio_internals.keep_files(chatbot, [str(kept)])
    delete_files_created_by_app(page, age=None)
    assert kept.exists(), look_at("keep_files")
    assert not other.exists()


def test_forget_page(demo):
    demo.state_holder["somebody"]
    assert "somebody" in demo.state_holder, look_at("forget_page")
    gradio_internals.forget_page(demo, "somebody")
    assert "somebody" not in demo.state_holder and "somebody" not in demo.state_holder.time_last_used


def test_fetch_no_addresses(monkeypatch):
    monkeypatch.setattr(
        processing_utils, "async_ssrf_protected_download", processing_utils.async_ssrf_protected_download
    )
    gradio_internals.fetch_no_addresses()
    callers = inspect.getsource(blocks)
    assert "processing_utils.async_ssrf_protected_download(" in callers, look_at("fetch_no_addresses")
    with pytest.raises(gr.Error, match="not fetched"):
        processing_utils.async_ssrf_protected_download("http://127.0.0.1:9/x.wav", "").send(None)


@pytest.mark.skipif(not has_mcp(), reason="Gradio's extra for MCP isn't installed")
def test_keep_only_tool(demo):
    assert list(demo.mcp_server_obj.tool_to_endpoint) == [MCP_TOOL], look_at("keep_only_tool")


def test_is_zero_gpu_space(monkeypatch):
    assert not gradio_internals.is_zero_gpu_space()
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    assert gradio_internals.is_zero_gpu_space(), look_at("is_zero_gpu_space")


def test_browser_texts():
    texts = gradio_internals.browser_texts({"hello": ("Hello", "你好")}).translations_dict
    assert [texts[tag]["hello"] for tag in ("en", "zh", "zh-CN", "zh-TW")] == ["Hello", "你好", "你好", "你好"], (
        look_at("browser_texts")
    )
