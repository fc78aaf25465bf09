"""Dialogues say what the labels say, about the right audio."""

import json
import re

import numpy as np
import pytest

from qwen_audio_chat.__main__ import main
from qwen_audio_chat.prompts.questions import DECLINE, UNKNOWN
from qwen_audio_chat.prompts.tags import TaskPrompt
from qwen_audio_chat.training import dialogues as make
from qwen_audio_chat.training.manifest import Clip, read_manifests


@pytest.fixture
def clips(tmp_path, clip):
    import soundfile

    def one(name, prompt, text, seconds=2.0):
        soundfile.write(tmp_path / f"{name}.wav", clip(0.1), 16000)
        return Clip(name, tmp_path / f"{name}.wav", prompt, text, seconds=seconds)

    speech = TaskPrompt("transcribe", instruction="wo_itn")
    sound = TaskPrompt("keyword", "unknown", instruction="event")
    return [
        one("a", speech, "the weather is fine today"), one("b", speech, "a piano plays a quiet melody"),
        one("c", sound, "dog"), one("d", sound, "bell"), one("e", sound, "dog"),
        one("f", TaskPrompt("translate", "fr", "en"), "a house"),
        one("g", TaskPrompt("transcribe", "es", "es"), "hola"), one("h", sound, UNKNOWN),
        one("i", TaskPrompt("keyword", "unknown", instruction="note_analysis"),
            "<|pitch|><|midi_pitch_60|><|velocity|><|midi_velocity_20|><|instrument|>organ"),
        one("j", TaskPrompt("question", "unknown", question="Which language is spoken?"), "Greek"),
        one("k", TaskPrompt("translate", "unknown", "en"), "a boat"),
    ]  # fmt: skip


def test_facts(clips):
    assert [(f.kind, f.answer) for f in make.facts(clips[0])] == [
        ("transcribe", clips[0].text),
        ("language", "English"),
    ]
    assert [(f.kind, f.answer) for f in make.facts(clips[2])] == [("sound", "dog")]
    assert [(f.kind, f.answer) for f in make.facts(clips[7])] == [("nothing", DECLINE)]
    assert [(f.kind, f.answer) for f in make.facts(clips[8])] == [("note", "organ, C4, soft")]
    assert [(f.kind, f.answer) for f in make.facts(clips[5])] == [("translate", "a house"), ("language", "French")]
    assert [(f.kind, f.answer) for f in make.facts(clips[9])] == [("language", "Greek")]


def test_many_dialogues_are_well_formed_and_true(clips):
    talks = make.dialogues(clips, 400, seed=2)
    said = {clip.audio: {fact.answer for fact in make.facts(clip)} for clip in clips}
    found = declined = 0
    for talk in talks:
        assert [m["role"] for m in talk.messages] == ["user", "assistant"] * (len(talk.messages) // 2)
        assert talk.seconds == 2 * len(talk.audios) <= 8
        question = talk.messages[-2]["content"][-1]["text"]
        answer = talk.messages[-1]["content"]
        if match := re.fullmatch(r"There is no audio (here|\d)\.", answer):
            assert not talk.audios if match[1] == "here" else len(talk.audios) < int(match[1])
            declined += 1
        if match := re.fullmatch(r"Audio (\d)\.", answer):
            wanted = re.search(r'"(.+)"|(?:is in|is) ([\w ]+)\?$', question)
            wanted = wanted.group(1) or wanted.group(2)
            holders = [
                n
                for n, a in enumerate(talk.audios, 1)
                if any(wanted in text.split() or wanted == text for text in said[a])
            ]
            assert holders == [int(match.group(1))]
            found += 1
    assert found > 20 and declined > 5


def test_the_same_seed_gives_the_same_dialogues(clips):
    assert make.dialogues(clips, 30, seed=5) == make.dialogues(clips, 30, seed=5)
    assert make.dialogues(clips, 30, seed=5) != make.dialogues(clips, 30, seed=6)


def test_compare_tells_same_from_different(clips):
    dog, bell, other_dog = (make.facts(clips[n])[0] for n in (2, 3, 4))
    rng = np.random.default_rng(0)
    assert make.compare((dog, other_dog), rng)[-1]["content"] == "Yes, both are dog."
    assert make.compare((dog, bell), rng)[-1]["content"].startswith("No, audio 1 is dog and audio 2 is bell")


def test_written_dialogues_are_read_back(clips, tmp_path):
    talks = make.dialogues(clips, 20)
    (tmp_path / "sub").mkdir()
    make.write_dialogues(talks, tmp_path / "sub/dialogues.jsonl")
    read = read_manifests([tmp_path / "sub/dialogues.jsonl"])
    assert [[a.resolve() for a in talk.audios] for talk in read] == [talk.audios for talk in talks]


@pytest.fixture
def manifest(clips, tmp_path):
    lines = [{"audio": f"{name}.wav", "text": "dog", "task": "keyword", "instruction": "event"} for name in "cde"]
    path = tmp_path / "clips.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_the_command_writes_dialogues(manifest, tmp_path, capsys):
    outputs = [tmp_path / "new" / name for name in ("1.jsonl", "2.jsonl", "3.jsonl")]
    for output, seed in zip(outputs, ("5", "5", "6"), strict=True):
        arguments = ["--manifest", str(manifest), "--count", "8", "--seed", seed, "--output", str(output)]
        assert main(["dialogues", *arguments]) == 0
    assert len(read_manifests(outputs[:1])) == 8 and "8 dialogues" in capsys.readouterr().out
    assert outputs[0].read_text() == outputs[1].read_text() != outputs[2].read_text()


def test_the_command_says_what_is_wrong_in_one_sentence(manifest, tmp_path, capsys):
    (tmp_path / "none.jsonl").write_text('{"audio": "a.wav", "text": "x", "task": "question", "question": "Why?"}\n')
    before = manifest.read_text()
    for options, sentence in (
        (("--manifest", tmp_path / "missing.jsonl"), "cannot be read"),
        (("--manifest", tmp_path / "none.jsonl"), "no clip whose label"),
        (("--output", manifest), "is there already"),
        (("--output", tmp_path), "is there already"),
    ):
        arguments = ["--manifest", manifest, "--count", 3, "--output", tmp_path / "out.jsonl", *options]
        assert main(["dialogues", *map(str, arguments)]) == 2
        error = capsys.readouterr().err
        assert error.startswith("Error: ") and sentence in error and error.count("\n") == 1
    with pytest.raises(SystemExit):
        main(["dialogues", *map(str, arguments), "--count", "0"])
    assert "argument --count: must be at least 1" in capsys.readouterr().err
    assert manifest.read_text() == before and not (tmp_path / "out.jsonl").exists()
