"""Dialogues written by a language model behind an endpoint, here a small server on loopback."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import soundfile

from qwen_audio_chat.__main__ import main
from qwen_audio_chat.training import written_dialogues as written
from qwen_audio_chat.training.manifest import read_manifests

PAIRS = [{"question": "Which animal is it?", "answer": "A dog."}, {"question": "Is it a cat?", "answer": "No, a dog."}]


@pytest.fixture
def endpoint(monkeypatch):
    """A server that replies with `replies`, one after the other, and keeps what it was asked.

    A reply is the text of a chat completion, or its whole body (a dictionary), or a status with headers (a tuple).
    """

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append(request | {"path": self.path, "headers": {k.title(): v for k, v in self.headers.items()}})
            reply = replies.pop(0)
            if reply == "silence":  # until the client has gone
                return time.sleep(1)
            status, headers = reply if isinstance(reply, tuple) else (200, {})
            body = reply if isinstance(reply, dict) else {"choices": [{"message": {"content": reply}}]}
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_):
            pass

    asked, replies = [], []
    monkeypatch.setattr(written, "MAX_RETRIES", 2)
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1", replies, asked
    server.shutdown()
    server.server_close()


@pytest.fixture
def fails(command, endpoint, capsys):
    """Run the command, changed by some options, which must end with one sentence; the sentence."""

    def run(*options):
        assert main([*command[0], *map(str, options)]) == 2
        error = capsys.readouterr().err
        assert error.startswith("Error: ") and error.count("\n") == 1
        return error

    return run


@pytest.fixture
def command(tmp_path, clip, endpoint):
    lines = []
    for name, text in (("a", "dog"), ("b", "bell"), ("c", "owl")):
        soundfile.write(tmp_path / f"{name}.wav", clip(0.5), 16000)
        sound = {"task": "keyword", "audio_language": "unknown", "instruction": "event"}
        lines.append(json.dumps({"audio": f"{name}.wav", "text": text} | sound))
    (tmp_path / "clips.jsonl").write_text("\n".join(lines))
    output = tmp_path / "out/written.jsonl"
    arguments = ["write-dialogues", "--manifest", tmp_path / "clips.jsonl", "--output", output]
    arguments += ["--base-url", endpoint[0], "--model", "m"]
    return list(map(str, arguments)), output


def answers(output):
    """The answers of the dialogues in a file."""
    return [talk.messages[-1]["content"][0]["text"] for talk in read_manifests([output])]


def test_replies_become_dialogues_and_bad_ones_are_left_out(command, endpoint, caplog, capsys):
    arguments, output = command
    _, replies, asked = endpoint
    replies += [f"Here you are:\n{json.dumps(PAIRS)}", "I'd rather not.", json.dumps(PAIRS[:1])]
    assert main(arguments) == 0
    talks = read_manifests([output])
    assert [talk.audios[0].name for talk in talks] == ["a.wav", "a.wav", "c.wav"]
    assert talks[1].messages[-1]["content"][0]["text"] == "No, a dog." and talks[0].seconds == 0.5
    assert "not a JSON list" in caplog.text and "clips.jsonl:2" in caplog.text
    assert capsys.readouterr().out == "3 dialogues about 2 clips; 1 replies were unusable.\n"
    assert asked[0]["path"] == "/v1/chat/completions" and asked[0]["model"] == "m"
    assert "The sound is: dog" in asked[0]["messages"][0]["content"]


@pytest.mark.parametrize("key", (None, "sk-1"))
def test_only_the_key_of_the_endpoint_is_sent(command, endpoint, monkeypatch, key):
    _, replies, asked = endpoint
    for name in ("HF_TOKEN", "OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, "hf_secret")
    if key:
        monkeypatch.setenv("OPENAI_API_KEY", key)
    else:
        monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    replies += [json.dumps(PAIRS)] * 3
    main(command[0])
    assert {request["headers"].get("Authorization") for request in asked} == {key and f"Bearer {key}"}
    assert len(asked) == 3 and "hf_secret" not in json.dumps(asked)


def test_a_stopped_run_continues_with_what_is_left(command, endpoint):
    arguments, output = command
    _, replies, asked = endpoint
    replies += [json.dumps(PAIRS)] * 3
    main(arguments)
    whole = output.read_text()
    output.write_text(whole[: whole.index("c.wav") + 20])  # killed while it wrote about the last clip
    replies += [json.dumps(PAIRS)]
    main(arguments)
    assert output.read_text() == whole and len(asked) == 4
    assert main(arguments) == 0 and len(asked) == 4  # nothing is left


def test_a_line_torn_within_a_character_is_written_again(command, endpoint):
    arguments, output = command
    endpoint[1].extend([json.dumps([{"question": "Où ?", "answer": "Là."}])] * 4)
    main(arguments)
    whole = output.read_bytes()
    output.write_bytes(whole[: whole.rindex("ù".encode()) + 1])
    main(arguments)
    assert output.read_bytes() == whole


def test_a_whole_last_line_without_its_end_stays(command, endpoint):
    arguments, output = command
    _, replies, asked = endpoint
    replies += [json.dumps(PAIRS)] * 3
    main(arguments)
    whole = output.read_text()
    output.write_text(whole.removesuffix("\n"))
    main(arguments)
    assert output.read_text() == whole and len(asked) == 3


@pytest.mark.parametrize(
    "text", ('{"audio": "a.wav", "text": "dog"}\n', "a diary", '{"messages": 5}', "[1]\n{", "\xff")
)
def test_a_file_of_anything_else_stays_as_it_is(fails, tmp_path, endpoint, text):
    other = tmp_path / "other.jsonl"
    other.write_text(text, encoding="latin-1")
    assert "something other than dialogues" in fails("--output", other)
    assert other.read_text(encoding="latin-1") == text and not endpoint[2]


def test_wrong_arguments_are_found_before_anything_is_asked(fails, tmp_path, endpoint):
    assert "is a folder" in fails("--output", tmp_path)
    assert "can't be written" in fails("--output", tmp_path / "clips.jsonl" / "written.jsonl")
    assert "something other than dialogues" in fails("--output", tmp_path / "clips.jsonl")
    assert "--base-url must begin with http://" in fails("--base-url", "localhost:8000/v1")
    assert "Invalid port" in fails("--base-url", "http://localhost:port/v1")
    assert "cannot be read" in fails("--manifest", tmp_path / "none.jsonl")
    assert not endpoint[2]


def test_an_endpoint_that_is_busy_is_asked_again(command, endpoint, monkeypatch):
    arguments, output = command
    _, replies, asked = endpoint
    pauses = []
    monkeypatch.setattr(written, "MAX_RETRIES", 3)
    monkeypatch.setattr("openai._base_client.time.sleep", pauses.append)
    replies += [(429, {"Retry-After": "7"}), (503, {"Retry-After": "soon"}), (500, {}), json.dumps(PAIRS[:1])]
    replies += [json.dumps(PAIRS[:1])] * 2
    assert main(arguments) == 0
    assert pauses == [7, 0, 0] and len(asked) == 6 and len(answers(output)) == 3


def test_a_clip_without_a_reply_is_left_out(command, endpoint, monkeypatch, caplog):
    arguments, output = command
    monkeypatch.setattr(written, "TIMEOUT", 0.3)
    endpoint[1].extend([*["silence"] * 3, (400, {}), json.dumps(PAIRS)])
    assert main(arguments) == 0
    assert [talk.audios[0].name for talk in read_manifests([output])] == ["c.wav", "c.wav"]
    assert "clips.jsonl:1: ReadTimeout" in caplog.text and "clips.jsonl:2: status 400" in caplog.text


def test_an_endpoint_that_fails_again_and_again_ends_the_run(fails, endpoint):
    _, replies, asked = endpoint
    replies += [(500, {})] * 9
    assert "3 clips in a row failed (status 500)" in fails() and len(asked) == 9


@pytest.mark.parametrize("status", (401, 403, 404))
def test_an_endpoint_that_refuses_ends_the_run_at_once(fails, endpoint, status):
    _, replies, asked = endpoint
    replies.append((status, {}))
    assert f"refuses with status {status}" in fails() and len(asked) == 1


def test_an_endpoint_that_is_not_there_is_reported_in_one_sentence(fails):
    assert "can't be used" in fails("--base-url", "http://127.0.0.1:9/v1")


BODIES = ({"choices": []}, {"choices": None}, {"choices": [{"message": {"content": None}}]}, {"error": "no"})


@pytest.mark.parametrize("body", BODIES)
def test_what_is_no_chat_completion_is_an_unusable_reply(command, endpoint, caplog, body):
    arguments, output = command
    endpoint[1].extend([body, json.dumps(PAIRS), json.dumps(PAIRS)])
    assert main(arguments) == 0
    assert len(answers(output)) == 4 and "not a chat completion" in caplog.text


def test_a_run_without_a_single_dialogue_fails(fails, endpoint, command):
    endpoint[1].extend(["No.", {"choices": []}, "[]"])
    assert "Not a single dialogue" in fails() and not command[1].exists()


@pytest.mark.parametrize("value", (None, ["x"], {"x": "y"}, 5, "", " ", "half \ud83d"))
def test_only_text_becomes_a_question_or_an_answer(command, endpoint, value):
    arguments, output = command
    odd = [{"question": "What?", "answer": value}, {"question": value, "answer": "That."}, {"question": "Why?"}, value]
    endpoint[1].extend([json.dumps(odd), json.dumps(odd + PAIRS), json.dumps(PAIRS[1:])])
    assert main(arguments) == 0
    assert answers(output) == ["A dog.", "No, a dog.", "No, a dog."]


def test_other_ends_of_lines_in_a_reply_are_text(command, endpoint):
    arguments, output = command
    _, replies, asked = endpoint
    strange = "One\u2028two\u2029three\x85four."
    replies += [json.dumps([{"question": "What?", "answer": strange}])] * 3
    assert main(arguments) == 0 and answers(output) == [strange] * 3
    assert main(arguments) == 0 and len(asked) == 3


GOOD = json.dumps(PAIRS)


@pytest.mark.parametrize(
    "reply",
    (
        f"<think>[first] a list [1, 2] of {json.dumps(PAIRS[:1])}?</think>{GOOD}",
        f"```json\n{GOOD}\n```\nNote: [1] these are short. [",
        json.dumps({"dialogues": PAIRS}),
        "[" * 5000 + GOOD,
    ),
)
def test_the_list_is_found_in_what_is_around_it(reply):
    assert written.parse_reply(reply) == [("Which animal is it?", "A dog."), ("Is it a cat?", "No, a dog.")]


def test_an_endpoint_that_asks_for_an_hour_costs_one_clip(command, endpoint, monkeypatch):
    arguments, output = command
    pauses = []
    monkeypatch.setattr("openai._base_client.time.sleep", pauses.append)
    endpoint[1].extend([(503, {"Retry-After": "3600"}), json.dumps(PAIRS[:1]), json.dumps(PAIRS[:1])])
    assert main(arguments) == 0
    assert not pauses and len(answers(output)) == 2
