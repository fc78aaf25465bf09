"""The command line of the recipe: its steps, their help, and how they report a mistake of the user."""

import pytest

from qwen_audio_chat.errors import UserError
from qwen_audio_chat.pocket.__main__ import STEPS, main
from qwen_audio_chat.pocket.steps import run_program, run_step


def test_every_step_is_listed_and_describes_itself(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    listing = capsys.readouterr().out
    for step in STEPS:
        assert step in listing
        with pytest.raises(SystemExit, match="0"):
            main([step, "--help"])
        description = capsys.readouterr().out.split("\n\n")[1].splitlines()[0]
        assert description.endswith(".") and description in listing


def test_a_missing_program_is_reported():
    with pytest.raises(UserError, match="The program no-such-synthesizer is not installed"):
        run_program(["no-such-synthesizer", "-h"])


def test_a_failed_step_stops_the_recipe(tmp_path):
    with pytest.raises(UserError, match="The step no-such-step failed"):
        run_step("no-such-step", tmp_path)


@pytest.mark.parametrize(
    "command",
    [["restore", "--model", "nowhere", "--original", "nowhere", "--share", "0.5", "--output", "out"],
     ["release", "--model", "nowhere", "--output", "out"],
     ["text-dialogues", "--work", "work", "--model", "nowhere"],
     ["recipe", "--work", "work", "--start", "nowhere"]],
    ids=lambda command: command[0],
)  # fmt: skip
def test_steps_report_a_mistake_of_the_user_in_one_sentence(tmp_path, monkeypatch, capsys, command):
    monkeypatch.chdir(tmp_path)
    assert main(command) == 2
    printed = capsys.readouterr().err
    assert "Error: " in printed and "Traceback" not in printed
    assert not list(tmp_path.iterdir())
