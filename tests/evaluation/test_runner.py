"""The runner: equal answers for all batch sizes and numbers of processes, resumption, broken clips."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from qwen_audio_chat.data.lines import DataError
from qwen_audio_chat.errors import UserError
from qwen_audio_chat.evaluation.predictions import (
    PARTS_FOLDER,
    RESULT_FILE,
    Prediction,
    PredictionFile,
    read_predictions,
)
from qwen_audio_chat.evaluation.predictor import ModelPredictor, StopLoops, weights_fingerprint
from qwen_audio_chat.evaluation.prompting import Request
from qwen_audio_chat.evaluation.runner import Runner
from qwen_audio_chat.evaluation.samples import read_jsonl
from qwen_audio_chat.evaluation.tasks import TASKS

EXAMPLES = Path(__file__).parents[2] / "assets/examples"
SECONDS = (0.5, 1.7, 0.9, 2.6, 1.1, 0.3, 3.2, 0.7, 1.4)


@pytest.fixture
def manifest(tmp_path, clip):
    """Nine clips of different length, with their lengths as references."""
    rows = []
    for number, seconds in enumerate(SECONDS):
        soundfile.write(tmp_path / f"{number}.wav", clip(seconds, 200 + 50 * number), 16000)
        rows.append({"audio": f"{number}.wav", "text": f"clip {number}"})
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


class Counting:
    """A stand-in for a model: answers with the number of samples it hears, and counts; may fail on purpose."""

    def __init__(self, fail_after: int | None = None, refuse: int | None = None):
        self.asked: list[int] = []
        self.fail_after, self.refuse = fail_after, refuse

    def __call__(self, requests: list[Request]) -> list[str]:
        lengths = [request.audios[0].num_samples for request in requests]
        if self.refuse in lengths:
            raise UserError("This clip can't be encoded.")
        if self.fail_after is not None and len(self.asked) >= self.fail_after:
            raise KeyboardInterrupt
        self.asked += lengths
        return [f"length {length}" for length in lengths]


def runner(manifest: Path, output: Path, task: str = "asr", **options) -> Runner:
    return Runner(TASKS[task], read_jsonl(manifest), output, model="m", **options)


def texts(predictions: list[Prediction]) -> list[str | None]:
    return [prediction.prediction for prediction in predictions]


@pytest.mark.slow
@pytest.mark.parametrize("prompt", ["tags", "chat"])
def test_batch_sizes_give_the_same_answers(tiny_chat, manifest, tmp_path, monkeypatch, prompt):
    monkeypatch.setattr("qwen_audio_chat.evaluation.prompting.CHAT_TOKENS", 24)
    results = {
        size: texts(runner(manifest, tmp_path / f"{size}", "mna", prompt=prompt).run(ModelPredictor(tiny_chat), size))
        for size in (1, 4, 8)
    }
    assert results[1] == results[4] == results[8]
    assert (
        len(set(results[1])) > len(SECONDS) / 2
    )  # the tiny model hears a difference, so that equality tells something


@pytest.mark.parametrize("task", ["asr", "aac"])
@pytest.mark.slow
def test_batch_sizes_give_the_same_answers_of_the_shipped_pocket_in_float32(float_pocket, tmp_path, monkeypatch, task):
    monkeypatch.setattr("qwen_audio_chat.evaluation.prompting.CHAT_TOKENS", 16)
    rows = [{"audio": str(clip), "text": clip.stem} for clip in sorted(EXAMPLES.glob("*.flac"))]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    results = [
        texts(
            runner(tmp_path / "data.jsonl", tmp_path / f"{size}", task, prompt="chat").run(
                ModelPredictor(float_pocket), size
            )
        )
        for size in (1, 4, 8)
    ]
    assert results[0] == results[1] == results[2]
    assert len(set(results[0])) > len(rows) / 2


def test_a_loop_that_was_ended_leaves_no_padding(tiny_chat, manifest, tmp_path, monkeypatch):
    monkeypatch.setattr("qwen_audio_chat.evaluation.prompting.CHAT_TOKENS", 8)
    whole = texts(runner(manifest, tmp_path / "whole", "mna", prompt="chat").run(ModelPredictor(tiny_chat), 9))
    monkeypatch.setattr(StopLoops, "__call__", lambda self, ids, scores, **kwargs: torch.arange(len(ids)) == 3)
    ended = texts(runner(manifest, tmp_path / "ended", "mna", prompt="chat").run(ModelPredictor(tiny_chat), 9))
    [(text, cut)] = [pair for pair in zip(whole, ended, strict=True) if pair[0] != pair[1]]
    assert text.startswith(cut) and 0 < len(cut) < len(text)


def test_answers_are_those_of_the_pipeline(tiny_chat, manifest, tmp_path, monkeypatch):
    from qwen_audio_chat.engine.sampling import GenerationOptions
    from qwen_audio_chat.prompts.conversation import Conversation

    monkeypatch.setattr("qwen_audio_chat.evaluation.prompting.CHAT_TOKENS", 12)
    answers = texts(runner(manifest, tmp_path / "out", prompt="chat").run(ModelPredictor(tiny_chat), 4))
    conversation = Conversation().ask(TASKS["asr"].question, [str(tmp_path / "3.wav")])
    assert answers[3] == tiny_chat.stream(conversation, GenerationOptions(max_new_tokens=12)).finish().text.strip()


def test_an_interrupted_run_continues_and_asks_nothing_twice(manifest, tmp_path):
    first, second, third = Counting(fail_after=4), Counting(), Counting()
    with pytest.raises(KeyboardInterrupt):
        runner(manifest, tmp_path / "out").run(first, 2)
    [part] = (tmp_path / "out" / PARTS_FOLDER).glob("*.jsonl")
    assert len(list(read_predictions(part))) == len(first.asked) == 4
    predictions = runner(manifest, tmp_path / "out").run(second, 3)
    assert sorted(first.asked + second.asked) == sorted(round(16000 * seconds) for seconds in SECONDS)
    assert texts(predictions) == [f"length {round(16000 * seconds)}" for seconds in SECONDS]
    assert runner(manifest, tmp_path / "out").run(third) == predictions
    assert third.asked == []
    assert list(read_predictions(tmp_path / "out" / RESULT_FILE)) == predictions


@pytest.mark.slow
def test_kill_leaves_every_answer_and_resumes(manifest, tmp_path):
    """kill -9 in the middle of a run in a process of its own."""
    script = (
        "import os, sys\n"
        "from tests.evaluation.test_runner import Counting, runner\n"
        "from pathlib import Path\n"
        "class Dying(Counting):\n"
        "    def __call__(self, requests):\n"
        "        if len(self.asked) >= 5: os.kill(os.getpid(), 9)\n"
        "        return super().__call__(requests)\n"
        "runner(Path(sys.argv[1]), Path(sys.argv[2])).run(Dying(), 1)\n"
    )
    process = subprocess.run([sys.executable, "-c", script, manifest, tmp_path / "out"], cwd=ROOT, env=environment())
    assert process.returncode == -9
    counting = Counting()
    assert len(runner(manifest, tmp_path / "out").run(counting)) == len(SECONDS)
    assert len(counting.asked) == len(SECONDS) - 5


def test_a_half_written_line_is_asked_again(manifest, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        runner(manifest, tmp_path / "out").run(Counting(fail_after=3))
    [part] = (tmp_path / "out" / PARTS_FOLDER).glob("*.jsonl")
    part.write_bytes(part.read_bytes()[:-25])
    counting = Counting()
    assert len(set(texts(runner(manifest, tmp_path / "out").run(counting)))) == len(SECONDS)
    assert len(counting.asked) == len(SECONDS) - 2


def test_new_lines_never_join_a_half_written_one(tmp_path):
    path = tmp_path / "part.jsonl"
    path.write_text('{"index": 0, "aud')
    with PredictionFile(path) as file:
        file.add(Prediction(1, "a.wav", ("x",), "y"))
    assert [prediction.index for prediction in read_predictions(path)] == [1]


def test_another_run_in_the_same_folder_is_refused(manifest, tmp_path):
    runner(manifest, tmp_path / "out").run(Counting())
    with pytest.raises(DataError, match=r"another run \(task: asr, now vsc\)"):
        runner(manifest, tmp_path / "out", "vsc").run(Counting())


def test_trained_weights_have_another_fingerprint(tiny_chat):
    before = weights_fingerprint(tiny_chat.model)
    assert weights_fingerprint(tiny_chat.model) == before
    with torch.no_grad():
        tiny_chat.model.model.language_model.layers[0].mlp.up_proj.weight.add_(1e-3)
    assert weights_fingerprint(tiny_chat.model) != before


def test_broken_clips_are_recorded_and_the_rest_goes_on(manifest, tmp_path):
    (tmp_path / "1.wav").write_bytes(b"RIFF, but no sound")
    counting = Counting(refuse=round(16000 * SECONDS[3]))
    predictions = runner(manifest, tmp_path / "out").run(counting, 4)
    broken = {prediction.index: prediction.error for prediction in predictions if prediction.error}
    assert broken.keys() == {1, 3}
    assert broken[3] == "This clip can't be encoded."
    assert len(counting.asked) == len(SECONDS) - 2
    assert texts(predictions)[1] is None


def test_long_speech_is_asked_in_pieces_and_other_audio_is_cut(tmp_path, clip):
    soundfile.write(tmp_path / "long.wav", clip(70), 16000)
    (tmp_path / "data.jsonl").write_text('{"audio": "long.wav", "text": "x"}')
    [speech] = runner(tmp_path / "data.jsonl", tmp_path / "asr").run(Counting(), 2)
    assert sum(int(word) for word in speech.prediction.split()[1::2]) == 70 * 16000
    assert speech.notice.startswith("asked in 3 pieces")
    [scene] = runner(tmp_path / "data.jsonl", tmp_path / "asc", "asc").run(Counting())
    assert (scene.prediction, scene.notice) == ("length 480000", "cut to the first 30 s")
    [chat] = runner(tmp_path / "data.jsonl", tmp_path / "chat", "asc", prompt="chat").run(Counting())
    assert (chat.prediction, chat.notice) == (f"length {70 * 16000}", None)


@pytest.mark.parametrize("prompt", ["tags", "chat"])
def test_a_model_for_shorter_speech_transcribes_in_shorter_pieces(tmp_path, clip, prompt):
    soundfile.write(tmp_path / "long.wav", clip(12), 16000)
    (tmp_path / "data.jsonl").write_text('{"audio": "long.wav", "text": "x"}')
    [speech] = runner(tmp_path / "data.jsonl", tmp_path / "asr", prompt=prompt, transcript_seconds=10).run(Counting())
    lengths = [int(word) for word in speech.prediction.split()[1::2]]
    assert len(lengths) == 2 and max(lengths) <= 10 * 16000 and sum(lengths) == 12 * 16000
    [scene] = runner(tmp_path / "data.jsonl", tmp_path / "asc", "asc", transcript_seconds=10).run(Counting())
    assert scene.prediction == f"length {12 * 16000}"


def test_dialogues_are_asked_as_chat(tiny_chat, tmp_path, clip):
    for name in "ab":
        soundfile.write(tmp_path / f"{name}.wav", clip(0.5, 300 + ord(name)), 16000)
    messages = [
        {"role": "user", "content": [{"type": "audio", "audio": f"{name}.wav"}, {"type": "text", "text": "What?"}]}
        for name in "ab"
    ]
    answer = {"role": "assistant", "content": "A tone."}
    row = {"messages": [messages[0], answer, messages[1], answer]}
    (tmp_path / "data.jsonl").write_text(json.dumps(row))
    [prediction] = runner(tmp_path / "data.jsonl", tmp_path / "out", "chat", prompt="chat").run(
        ModelPredictor(tiny_chat)
    )
    assert prediction.error is None
    assert prediction.audio == "a.wav + b.wav"
    with pytest.raises(DataError, match="--prompt chat"):
        runner(tmp_path / "data.jsonl", tmp_path / "tags", "asr", prompt="tags")


ROOT = Path(__file__).parents[2]


def environment(**extra: str) -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | extra


@pytest.mark.slow
def test_two_processes_equal_one(tiny_chat, manifest, tmp_path):
    """Two real processes with gloo; each asks its share, the main one writes the result."""
    script = Path(__file__).with_name("run_tiny.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    process = subprocess.run(
        [*command, script, manifest, tmp_path / "two"], cwd=ROOT, env=environment(), capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr
    assert "processes: 2" in process.stdout
    two = list(read_predictions(tmp_path / "two" / RESULT_FILE))
    assert two == runner(manifest, tmp_path / "one", "mna").run(ModelPredictor(tiny_chat), 2)
    assert len(two) == len(SECONDS)
    # Another number of processes finds everything done.
    counting = Counting()
    assert runner(manifest, tmp_path / "two", "mna").run(counting) == two
    assert counting.asked == []


def test_timed_words_of_a_manifest_become_the_reference(manifest, tmp_path):
    row = {"audio": "0.wav", "text": "one", "words": [[0.1, 0.4, "one"]]}
    (tmp_path / "words.jsonl").write_text(json.dumps(row))
    [prediction] = runner(tmp_path / "words.jsonl", tmp_path / "out", "srwt").run(Counting())
    assert prediction.references[0] == "<|0.00|><|sil|><|0.10|>one<|0.40|>"


def test_loaded_audio_is_what_the_file_holds(manifest, tmp_path):
    loaded = []

    def predict(requests: list[Request]) -> list[str]:
        loaded.extend(request.audios[0].waveform for request in requests)
        return [""] * len(requests)

    runner(manifest, tmp_path / "out").run(predict, 1)
    expected, _ = soundfile.read(tmp_path / "5.wav", dtype="float32")  # the shortest comes first
    assert np.array_equal(loaded[0], expected)


def test_only_the_row_that_repeats_itself_ends():
    stop, ended = StopLoops(2), None
    for step in range(100):
        looping, counting = stop(torch.tensor([[step % 3, step]]).T, None).tolist()
        assert not counting
        ended = step if looping and ended is None else ended
        assert looping == (ended is not None)
    assert 30 < ended < 60
