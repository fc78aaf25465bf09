"""The commands, with a tiny random model in place of the loaded one."""

import argparse
import importlib
import io
import json
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from qwen_audio_chat.__main__ import COMMANDS, main
from qwen_audio_chat.commands import chat_command, transcribe_command
from qwen_audio_chat.engine.sampling import GenerationOptions
from qwen_audio_chat.prompts.tags import TimedWord
from qwen_audio_chat.transcripts.subtitles import to_srt


@pytest.fixture
def wav(tmp_path, clip):
    path = tmp_path / "clips" / "tone.wav"
    path.parent.mkdir()
    soundfile.write(path, clip(1.2), 16000)
    return path


@pytest.fixture(autouse=True)
def loaded(monkeypatch, tiny_chat):
    monkeypatch.setattr(chat_command, "load_from", lambda args: tiny_chat)
    monkeypatch.setattr(transcribe_command, "load_from", lambda args: tiny_chat)
    return tiny_chat


def help_text(*arguments, capsys) -> str:
    with pytest.raises(SystemExit) as exit:
        main([*arguments, "--help"])
    assert exit.value.code == 0
    return capsys.readouterr().out


def test_help_lists_every_command_with_its_description(capsys):
    text = help_text(capsys=capsys)
    for command in COMMANDS:
        [line] = [line for line in text.splitlines() if line.startswith(f"  {command} ")]
        description = line.removeprefix(f"  {command} ").strip()
        assert description.endswith(".") and len(line) <= 120


@pytest.mark.slow
@pytest.mark.parametrize("command", ["", *(name for name in COMMANDS if name != "benchmark")])
def test_a_help_text_needs_no_pytorch(command):
    program = """
import sys
from qwen_audio_chat.__main__ import main
try:
    main([*sys.argv[1:], "--help"])
finally:
    assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program, *command.split()], check=True)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_describes_it_and_shows_an_example(command, capsys):
    usage, description, *rest = help_text(command, capsys=capsys).split("\n\n")
    assert usage.startswith(f"usage: python -m qwen_audio_chat {command}")
    assert not description.startswith("options:") and rest[-1].startswith("examples:")
    assert f"  python -m qwen_audio_chat {command} " in rest[-1]


def test_a_command_that_is_none_is_refused(capsys):
    with pytest.raises(SystemExit) as exit:
        main(["sing"])
    assert exit.value.code == 2 and "invalid choice" in capsys.readouterr().err


def test_chat_prints_only_the_answer(wav, capsys, loaded):
    assert main(["chat", "--audio", str(wav), "--text", "What is it?", "--max-new-tokens", "8"]) == 0
    printed = capsys.readouterr()
    conversation = [
        {"role": "user", "content": [{"type": "audio", "audio": str(wav)}, {"type": "text", "text": "What is it?"}]}
    ]
    expected = loaded.stream(conversation, GenerationOptions(max_new_tokens=8)).finish()
    assert printed.out == expected.text + "\n" and printed.err == ""


def test_interactive_chat_keeps_going_after_an_error(wav, capsys, monkeypatch):
    lines = f"/audio {wav}\nWhat is it?\n/audio missing.wav\nAnd this?\nStill there?\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(lines))
    assert main(["chat", "--max-new-tokens", "4"]) == 0
    printed = capsys.readouterr()
    assert printed.out.count("\n") >= 3
    assert "Error:" in printed.err and "missing.wav" in printed.err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_has_a_help(command):
    parser = argparse.ArgumentParser()
    importlib.import_module(f"qwen_audio_chat.commands.{command.replace('-', '_')}_command").add_arguments(parser)
    assert [action.option_strings or action.dest for action in parser._actions if not action.help] == []


def test_wrong_file_is_one_sentence_and_exit_code_2(capsys):
    assert main(["chat", "--audio", "nowhere.wav", "--text", "?"]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith("Error:") and printed.err.count("\n") == 1


def test_transcribe_writes_three_files_and_skips_the_broken(wav, capsys):
    (wav.parent / "broken.mp3").write_bytes(b"not audio")
    assert main(["transcribe", str(wav.parent)]) == 2
    assert {path.name for path in wav.parent.iterdir()} == {
        "tone.wav", "broken.mp3", "tone.wav.txt", "tone.wav.json", "tone.wav.srt"
    }  # fmt: skip
    data = json.loads((wav.parent / "tone.wav.json").read_text())
    assert data["audio"] == "tone.wav"
    assert [(s["start"], s["end"]) for s in data["segments"]] == [(0.0, 1.2)]
    assert (wav.parent / "tone.wav.txt").read_text().strip() == data["segments"][0]["text"]
    assert "broken.mp3" in capsys.readouterr().err


def test_transcripts_of_files_of_one_name_lie_apart(wav, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / "talks" / folder).mkdir(parents=True)
        (tmp_path / "talks" / folder / "x.wav").write_bytes(wav.read_bytes())
    assert main(["transcribe", str(tmp_path / "talks"), "--output", str(tmp_path / "out")]) == 0
    assert sorted(path.parent.name for path in (tmp_path / "out").rglob("x.wav.txt")) == ["a", "b"]


@pytest.mark.slow
def test_transcribe_long_audio_piece_by_piece(tmp_path, clip, loaded):
    soundfile.write(tmp_path / "long.wav", np.concatenate([clip(29), 0 * clip(1), clip(12, 880)]), 16000)
    assert main(["transcribe", str(tmp_path), "--output", str(tmp_path / "out")]) == 0
    segments = json.loads((tmp_path / "out" / "long.wav.json").read_text())["segments"]
    starts, ends = ([segment[name] for segment in segments] for name in ("start", "end"))
    assert starts == pytest.approx([0, *ends[:-1]], abs=0.002) and ends[-1] == 42
    assert any(29 < end < 30 for end in ends)  # in the pause
    assert all(1 <= end - start <= loaded.transcript_seconds for start, end in zip(starts, ends, strict=True))


def test_transcribe_needs_audio(tmp_path, capsys):
    assert main(["transcribe", str(tmp_path)]) == 2
    assert "no audio files" in capsys.readouterr().err


def test_srt():
    assert to_srt([TimedWord(0, 29.5, "one"), TimedWord(29.5, 3723.456, "two")]) == (
        "1\n00:00:00,000 --> 00:00:29,500\none\n\n2\n00:00:29,500 --> 01:02:03,456\ntwo\n\n"
    )
