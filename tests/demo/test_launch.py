"""The page from the command line and in a notebook, with a tiny model in a folder."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import nbclient
import nbformat
import pytest
from gradio_client import Client, handle_file

from qwen_audio_chat.demo.launch import drain, launch
from qwen_audio_chat.demo.page import build_demo

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(page_chat, tmp_path_factory) -> Path:
    """The tiny model, saved."""
    folder = tmp_path_factory.mktemp("model")
    page_chat.model.save_pretrained(folder)
    page_chat.processor.save_pretrained(folder)
    return folder


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.slow
def test_serves_and_stops_on_sigterm(folder):
    port = free_port()
    command = [sys.executable, "web_demo.py", "--model", str(folder), "--device", "cpu", "--port", str(port)]
    environment = os.environ | {"QWEN_AUDIO_CHAT_AUTH": "me:secret"}
    environment.pop("GRADIO_TEMP_DIR", None)
    server = subprocess.Popen(
        command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        end = time.monotonic() + 300
        while time.monotonic() < end and server.poll() is None:
            try:
                if httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(0.5)
        assert httpx.get(f"http://127.0.0.1:{port}/config").status_code == 401, "a login is asked for"
        server.send_signal(signal.SIGTERM)
        assert server.wait(90) == 0, server.stdout.read().decode()
    finally:
        server.kill()
    assert "Traceback" not in server.stdout.read().decode()


@pytest.mark.slow
def test_an_answer_under_way_may_end_before_the_server_does(page_chat, clips, monkeypatch):
    demo = launch(build_demo(page_chat, examples=clips["low"].parent), quiet=True, inline=False)
    client = Client(demo.local_url, verbose=False)
    monkeypatch.setattr(page_chat, "pause", 0.005)
    asked = client.submit([handle_file(str(clips["low"]))], "What is it?", api_name="/ask")
    while not demo.page_state.num_answering():
        time.sleep(0.01)
    drained = threading.Thread(target=drain, args=[demo])
    drained.start()
    while not demo.page_state.draining:
        time.sleep(0.01)
    health = httpx.get(f"{demo.local_url}health")
    assert (health.status_code, health.json()["answering"]) == (503, 1)
    drained.join(60)
    assert asked.result(10) and not drained.is_alive()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--port", "{busy}"], r"Port \d+ is in use"),
        (["--port", "70000"], "There is no port 70000"),
        (["--auth", "me"], 'A login is written as "user:password"'),
    ],
)
def test_wrong_arguments_are_one_sentence(arguments, sentence):
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        arguments = [argument.format(busy=busy.getsockname()[1]) for argument in arguments]
        done = subprocess.run(
            [sys.executable, "web_demo.py", *arguments], cwd=REPOSITORY, capture_output=True, text=True
        )
    assert done.returncode == 2 and done.stdout == ""
    assert re.fullmatch(rf"Error: {sentence}.*\n", done.stderr)


SHARED = """
import httpx, gradio.networking, web_demo
gradio.networking.setup_tunnel = lambda **_: "https://stub.gradio.live"  # the real one needs the internet
demo = web_demo.launch(model={model!r}, device="cpu", share=True, auth={auth!r})
print(demo.share_url, httpx.get(demo.local_url + "config").status_code)
demo.close()
"""


@pytest.mark.slow
@pytest.mark.parametrize("auth", [None, "me:secret", ("me", "secret")])
def test_a_public_link_without_a_login_is_warned_about(folder, auth):
    environment = {k: v for k, v in os.environ.items() if k not in ("GRADIO_TEMP_DIR", "QWEN_AUDIO_CHAT_AUTH")}
    script = SHARED.format(model=str(folder), auth=auth)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=300
    )
    assert f"https://stub.gradio.live {200 if auth is None else 401}" in done.stdout, done.stderr
    assert ("makes a PUBLIC link" in done.stderr) == (auth is None)


@pytest.mark.slow
def test_notebook(folder, monkeypatch):
    # The notebook's server deletes its own folder, not that of the other tests.
    monkeypatch.delenv("GRADIO_TEMP_DIR", raising=False)
    notebook = nbformat.read(REPOSITORY / "assets" / "demo.ipynb", as_version=4)
    for cell in notebook.cells:
        cell.source = cell.source.replace("web_demo.launch()", f"web_demo.launch(model={str(folder)!r}, device='cpu')")
    nbclient.NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(REPOSITORY / "assets")}}
    ).execute()
    outputs = json.dumps([cell.get("outputs", []) for cell in notebook.cells])
    assert "<iframe" in outputs
    assert notebook.cells[-3].outputs[0].text.strip()
