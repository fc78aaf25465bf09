"""A real server over a tiny random model, and a real browser to visit it with."""

import importlib.util
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from qwen_audio_chat.chat import AudioChat
from qwen_audio_chat.demo.launch import launch
from qwen_audio_chat.demo.page import build_demo
from qwen_audio_chat.prompts.chatml import encode_text
from tests.conftest import build_tiny_model

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
BROWSER_ARGUMENTS = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
WAIT = int(os.environ.get("BROWSER_WAIT", 60_000))  # ms; a busy machine is slow, and no test measures time


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium. Without one the tests are skipped; on a test server they fail."""
    found = CHROMIUM and importlib.util.find_spec("playwright")
    if not found:
        message = "The browser tests need Chromium and playwright: apt install chromium; pip install playwright."
        pytest.fail(message) if os.environ.get("CI") == "true" else pytest.skip(message)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=BROWSER_ARGUMENTS)
        yield browser
        browser.close()


class SlowChat(AudioChat):
    """The tiny model as a test wants it: with a `pause` before each token, or with a `scripted_answer`."""

    pause = 0.0
    scripted_answer: str | None = None

    def _write(self, reply, *arguments):
        if self.scripted_answer is not None:
            reply.token_ids = encode_text(self.tokenizer, self.scripted_answer)
            reply.text, reply.finish_reason = self.scripted_answer, "stop"
            yield self.scripted_answer
            return
        for piece in super()._write(reply, *arguments):
            time.sleep(self.pause)
            yield piece


@pytest.fixture(scope="session")
def page_chat(tiny_tokenizer, tiny_processor) -> SlowChat:
    model = build_tiny_model(tiny_tokenizer)
    return SlowChat(model, tiny_processor, name="tiny", precision="float32", is_pocket=True)


@pytest.fixture(scope="session")
def clips(tmp_path_factory) -> dict[str, Path]:
    """Audio files: two tones, a gallery of one, a text called .wav."""
    folder = tmp_path_factory.mktemp("clips")
    paths = {}
    for name, pitch, seconds in (("low", 220, 2.0), ("high", 880, 1.2)):
        paths[name] = folder / f"{name}.wav"
        tone = 0.3 * np.sin(2 * np.pi * pitch * np.arange(int(seconds * 16000)) / 16000)
        soundfile.write(paths[name], tone.astype(np.float32), 16000)
    paths["text"] = folder / "text.wav"
    paths["text"].write_text("This is no sound at all.")
    (folder / "examples.json").write_text(
        '[{"files": ["low.wav", "high.wav"], "title": {"en": "Two tones", "zh": "两个音"},'
        ' "question": {"en": "Which one is higher?", "zh": "哪个更高？"}}]'
    )
    return paths


@pytest.fixture(scope="session")
def demo(page_chat, clips):
    """The page, served on loopback."""
    demo = launch(build_demo(page_chat, examples=clips["low"].parent), quiet=True, inline=False)
    yield demo
    demo.close(verbose=False)
    demo.page_state.visitors.forget_all()


class Visit:
    """One browser window on the page, with what a test does there."""

    def __init__(self, page, visitors, errors):
        self.page = page
        self.errors = errors  # of the browser's console
        self.visitors = visitors

    def say(self, text: str, *files: Path) -> None:
        """Attach files, type and send."""
        if files:
            self.attach(*files)
        self.page.fill("#qa-box textarea", text)
        self.page.press("#qa-box textarea", "Enter")

    def attach(self, *files: Path) -> None:
        self.page.set_input_files("#qa-box input[type=file]", [str(file) for file in files])
        self.page.wait_for_selector(f"#qa-box .thumbnail-item >> nth={len(files) - 1}")

    def wait_answer(self, number: int = 1) -> str:
        """Wait until answer `number` is complete, and return its text."""
        for _ in range(2):  # the page may still show the state before the server began, so look twice
            self.page.wait_for_function(
                "n => document.querySelectorAll('#qa-chat .bot:not(.pending) .message-content').length >= n"
                " && !document.querySelector('#qa-box .stop-button, #qa-chat .pending')",
                arg=number,
            )
            end = time.monotonic() + WAIT / 1000
            while self.visitors.num_answering() and time.monotonic() < end:
                self.page.wait_for_timeout(50)
        return self.answers()[number - 1]

    def answers(self) -> list[str]:
        return self.page.locator("#qa-chat .bot:not(.pending) .message-content").all_inner_texts()

    def last_message(self) -> dict:
        """The end of the conversation that the server holds, of the page opened last."""
        return list(self.visitors._visitors.values())[-1].conversation[-1]

    def questions(self) -> list[str]:
        texts = self.page.locator("#qa-chat .user .message-content").all_inner_texts()
        return [text.replace("\u200b", "") for text in texts]

    def press(self, selector: str) -> None:
        """Press a button by keyboard. (A click would wait for the page to stand still, which a busy machine delays.)"""
        button = self.page.locator(selector).first
        button.wait_for()
        button.focus()
        self.page.keyboard.press("Enter")

    def toast(self) -> str:
        """The next message that pops up, closed again."""
        toast = self.page.locator(".toast-message-text").first
        toast.wait_for()
        text = toast.inner_text()
        self.press(".toast-close")
        self.page.wait_for_selector(".toast-message-text", state="detached")
        return text

    def open_sidebar(self) -> None:
        if "open" not in (self.page.get_attribute("#qa-side", "class") or ""):
            self.press("#qa-side .toggle-button")


@pytest.fixture
def visit(browser, demo, page_chat):
    """Opens pages: `visit(locale="zh-CN", viewport=...)`. A page with an error in its console fails the test."""
    page_chat.pause = 0.0
    contexts, errors = [], []

    def note(text: str) -> None:
        if "signal is aborted without reason" not in text:  # Gradio's recorder, when it is closed while it loads
            errors.append(text)

    def open_page(**options) -> Visit:
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(WAIT)
        page.on("console", lambda m: note(f"{m.text} {m.location.get('url')}") if m.type == "error" else None)
        page.on("pageerror", lambda error: note(str(error)))
        page.goto(demo.local_url)
        page.wait_for_selector("#qa-box textarea")
        return Visit(page, demo.page_state.visitors, errors)

    yield open_page
    page_chat.pause, page_chat.scripted_answer = 0.0, None
    for context in contexts:
        context.close()
    assert not errors, errors
