"""Dialogues written by a language model behind an endpoint, here a small server on loopback."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import soundfile

from qwen_audio_chat.training import written_dialogues as written
from qwen_audio_chat.training.manifest import read_manifests

PAIRS = [{"question": "Which animal is it?", "answer": "A dog."}, {"question": "Is it a cat?", "answer": "No, a dog."}]


@pytest.fixture
def endpoint():
    """A server that replies to chat completions with `replies`, one after the other, and keeps what it was asked."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))) | {"path": self.path})
            message = {"role": "assistant", "content": replies.pop(0)}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            body = json.dumps({"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]})
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_):
            pass

    asked, replies = [], []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1", replies, asked
    server.shutdown()
    server.server_close()


@pytest.fixture
def command(tmp_path, clip, endpoint):
    lines = []
    for name, text in (("a", "dog"), ("b", "bell"), ("c", "owl")):
        soundfile.write(tmp_path / f"{name}.wav", clip(0.5), 16000)
        sound = {"task": "keyword", "audio_language": "unknown", "instruction": "event"}
        lines.append(json.dumps({"audio": f"{name}.wav", "text": text} | sound))
    (tmp_path / "clips.jsonl").write_text("\n".join(lines))
    output = tmp_path / "out/written.jsonl"
    words = ["--manifest", tmp_path / "clips.jsonl", "--output", output, "--base-url", endpoint[0], "--model", "m"]
    return list(map(str, words)), output


def test_replies_become_dialogues_and_bad_ones_are_left_out(command, endpoint, caplog):
    words, output = command
    _, replies, asked = endpoint
    replies += [f"Here you are:\n{json.dumps(PAIRS)}", "I'd rather not.", json.dumps(PAIRS[:1])]
    written.main(words)
    talks = read_manifests([output])
    assert [talk.audios[0].name for talk in talks] == ["a.wav", "a.wav", "c.wav"]
    assert talks[1].messages[-1]["content"][0]["text"] == "No, a dog." and talks[0].seconds == 0.5
    assert "not a JSON list" in caplog.text and "clips.jsonl:2" in caplog.text
    assert asked[0]["path"] == "/v1/chat/completions" and asked[0]["model"] == "m"
    assert "The sound is: dog" in asked[0]["messages"][0]["content"]


def test_a_stopped_run_goes_on_with_what_is_left(command, endpoint):
    words, output = command
    _, replies, asked = endpoint
    replies += [json.dumps(PAIRS)] * 3
    written.main(words)
    whole = output.read_text()
    output.write_text(whole[: whole.index("c.wav") + 20])  # killed while it wrote about the last clip
    replies += [json.dumps(PAIRS)]
    written.main(words)
    assert output.read_text() == whole and len(asked) == 4


def test_an_endpoint_that_is_not_there_is_told_in_one_sentence(command, capsys):
    words, _ = command
    words[words.index("--base-url") + 1] = "http://127.0.0.1:9/v1"
    with pytest.raises(SystemExit) as stopped:
        written.main(words)
    assert stopped.value.code == 2 and "can't be used" in capsys.readouterr().err
