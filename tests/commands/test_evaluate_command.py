"""The command from arguments to the last line of standard output, and what it leaves in its folder."""

import argparse
import json
import sys

import pytest
import soundfile

from qwen_audio_chat.commands import evaluate_command
from qwen_audio_chat.errors import UserError


@pytest.fixture
def data(tmp_path, clip):
    rows = []
    for number, seconds in enumerate((0.6, 1.2, 0.9)):
        soundfile.write(tmp_path / f"{number}.wav", clip(seconds, 300 + 100 * number), 16000)
        rows.append({"audio": f"{number}.wav", "text": "the weather is fine"})
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def evaluate(tmp_path, tiny_chat, monkeypatch, capsys):
    """Run the command with the tiny model; returns (exit code, lines of standard output, standard error)."""
    loads = []

    def load(*args, **options):
        loads.append(args)
        return tiny_chat

    monkeypatch.setattr("qwen_audio_chat.loading.load", load)

    def run(*arguments) -> tuple[int, list[str], str]:
        parser = argparse.ArgumentParser()
        evaluate_command.add_arguments(parser)
        args = parser.parse_args([str(argument) for argument in arguments])
        code = args.run(args)
        captured = capsys.readouterr()
        return code, captured.out.splitlines(), captured.err

    run.loads = loads
    return run


def test_last_line_is_the_metrics(evaluate, data, tmp_path):
    code, lines, _ = evaluate("--model", "tiny", "--task", "asr", "--data", data, "--output", tmp_path / "out")
    assert code == 0
    result = json.loads(lines[-1])
    assert result["wer"] > 0
    assert result["cer"] > 0
    assert (result["samples"], result["broken"], result["normalization"]) == (3, 0, "whisper_english")
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["metrics"]["wer"] == result["wer"]
    assert summary["intervals_95"]["wer"][0] <= result["wer"] <= summary["intervals_95"]["wer"][1]
    assert summary["by_normalization"].keys() >= {"none", "official", "lower_no_punctuation", "whisper_english"}
    text = (tmp_path / "out" / "summary.md").read_text()
    assert "`whisper_english`" in text
    assert "error_by_length.png" in text
    assert (tmp_path / "out" / "error_by_length.png").stat().st_size > 1000
    assert len((tmp_path / "out" / "predictions.jsonl").read_text().splitlines()) == 3


def test_predicting_and_scoring_apart(evaluate, data, tmp_path):
    arguments = ("--task", "asr", "--data", data, "--output", tmp_path / "out")
    assert evaluate(*arguments, "--predict-only")[:2] == (0, [])
    together = json.loads(evaluate(*arguments)[1][-1])
    loaded = len(evaluate.loads)
    code, lines, _ = evaluate("--task", "asr", "--output", tmp_path / "out", "--score-only")
    assert (code, json.loads(lines[-1])) == (0, together)
    assert len(evaluate.loads) == loaded
    other = evaluate("--task", "asr", "--output", tmp_path / "out", "--score-only", "--normalization", "none")
    assert json.loads(other[1][-1])["normalization"] == "none"


def test_a_broken_clip_is_counted_and_reported(evaluate, data, tmp_path):
    (tmp_path / "1.wav").write_bytes(b"no sound")
    code, lines, _ = evaluate("--task", "asr", "--data", data, "--output", tmp_path / "out")
    assert code == 0
    assert json.loads(lines[-1])["broken"] == 1
    assert "Broken samples (1" in (tmp_path / "out" / "summary.md").read_text()


def test_with_all_clips_broken_nothing_is_computed(evaluate, data, tmp_path):
    for number in range(3):
        (tmp_path / f"{number}.wav").write_bytes(b"no sound")
    code, lines, _ = evaluate("--task", "asr", "--data", data, "--output", tmp_path / "out")
    assert code == 0
    assert json.loads(lines[-1])["wer"] == "not computed"


def test_chat_questions_and_confusion(evaluate, data, tmp_path):
    code, lines, _ = evaluate("--task", "sound", "--prompt", "chat", "--data", data, "--output", tmp_path / "out")
    assert code == 0
    assert {"accuracy", "named_accuracy"} <= json.loads(lines[-1]).keys()
    assert (tmp_path / "out" / "confusion_matrix.png").stat().st_size > 1000


def test_the_paper_stands_beside(evaluate, data, tmp_path):
    rows = [
        {"audio": f"{n}.wav", "gt": "the weather", "source": f"librispeech_test_{n % 2 and 'clean' or 'other'}"}
        for n in range(3)
    ]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    _, lines, _ = evaluate("--task", "asr", "--data", data, "--output", tmp_path / "out")
    assert json.loads(lines[-1])["normalization"] == "official"
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert {(row["dataset"], row["paper"]) for row in summary["published"]} == {
        ("LibriSpeech test-clean", 0.02),
        ("LibriSpeech test-other", 0.042),
    }
    assert summary["by_source"]["librispeech_test_other"]["wer"] == summary["published"][1]["ours"]
    assert "| LibriSpeech test-clean | wer | 0.02 |" in (tmp_path / "out" / "summary.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--task", "sing", "--data", "DATA"), 'There is no task "sing"; choose one of asr'),
        (("--task", "asr", "--data", "nothing.jsonl"), "cannot be read"),
        (("--task", "asr"), "Which data?"),
        (("--task", "asr", "--data", "DATA", "--split", "dev"), 'nothing to measure for the task "asr"'),
        (("--task", "aqa", "--data", "DATA"), 'needs a "question"'),
        (("--task", "chat", "--data", "DATA", "--prompt", "tags"), "ask with --prompt chat"),
        (("--task", "asr", "--score-only"), "holds no finished predictions"),
    ],
)
def test_mistakes_are_one_sentence(evaluate, data, tmp_path, arguments, message):
    arguments = [data if argument == "DATA" else argument for argument in arguments]
    with pytest.raises(UserError) as error:
        evaluate(*arguments, "--output", tmp_path / "out")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--batch-size", "0", "must be at least 1, not 0"),
        ("--limit", "0", "must be at least 1, not 0"),
        ("--limit", "-1", "must be at least 1, not -1"),
        ("--language", "xx", "invalid choice: 'xx'"),
    ],
)
def test_values_that_make_no_sense_are_refused(evaluate, data, tmp_path, capsys, option, value, message):
    with pytest.raises(SystemExit):
        evaluate("--task", "asr", "--data", data, "--output", tmp_path / "out", option, value)
    assert f"argument {option}: {message}" in capsys.readouterr().err
    assert not evaluate.loads


def test_other_tasks_of_a_mixed_file_are_left_out_and_counted(evaluate, data, tmp_path, caplog):
    others = [
        {"audio": "0.wav", "text": "dog", "task": "keyword", "instruction": "event"},
        {"messages": [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}]},
    ]
    data.write_text("".join(json.dumps(row) + "\n" for row in others) + data.read_text())
    _, lines, _ = evaluate("--task", "asr", "--data", data, "--output", tmp_path / "out", "--limit", "2")
    assert json.loads(lines[-1])["samples"] == 2
    assert 'left out 2 of 5 samples, which are for other tasks than "asr"' in caplog.text
    identity = json.loads((tmp_path / "out" / "run.json").read_text())
    assert (identity["prompt"], identity["samples"]) == ("tags", 2)


def test_a_split_of_a_file(evaluate, data, tmp_path):
    rows = [{"audio": f"{n}.wav", "text": "a", "split": split} for n, split in enumerate(("train", "dev", "test"))]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ("--task", "asr", "--data", data, "--output")
    _, lines, _ = evaluate(*arguments, tmp_path / "held out")
    assert json.loads(lines[-1])["samples"] == 2
    _, lines, _ = evaluate(*arguments, tmp_path / "train", "--split", "train")
    assert json.loads(lines[-1])["samples"] == 1


def test_changed_data_are_another_run(evaluate, data, tmp_path):
    arguments = ("--task", "s2tt", "--data", data, "--output", tmp_path / "out")
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    for language in ("de", "fr"):
        data.write_text("".join(json.dumps(row | {"text_language": language}) + "\n" for row in rows))
        if language == "de":
            assert evaluate(*arguments)[0] == 0
    with pytest.raises(UserError, match="another run"):
        evaluate(*arguments)


@pytest.mark.slow
def test_the_help_text_needs_no_pytorch():
    import subprocess

    script = (
        "import sys, argparse\nfrom qwen_audio_chat.commands import evaluate_command\n"
        "evaluate_command.add_arguments(argparse.ArgumentParser())\nassert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
