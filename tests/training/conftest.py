"""A tiny model on disk, clips and manifests for it."""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile

from qwen_audio_chat.commands import train_command
from qwen_audio_chat.training.settings import TrainSettings
from tests.conftest import build_tiny_model


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory, tiny_tokenizer, tiny_processor) -> Path:
    """The tiny model, saved."""
    folder = tmp_path_factory.mktemp("tiny")
    build_tiny_model(tiny_tokenizer).save_pretrained(folder)
    tiny_processor.save_pretrained(folder)
    return folder


@pytest.fixture
def manifest(tmp_path, clip) -> Path:
    """Twelve clips of different lengths and a dialogue over two of them."""
    lines = []
    for n in range(12):
        soundfile.write(tmp_path / f"{n}.wav", clip(0.4 + 0.1 * n, 200 + 50 * n), 16000)
        lines.append({"audio": f"{n}.wav", "text": f"the weather is fine {'today ' * (n % 3)}".strip()})
    question = [{"type": "audio", "audio": "0.wav"}, {"type": "audio", "audio": "1.wav"},
                {"type": "text", "text": "Which of them is music?"}]  # fmt: skip
    lines.append(
        {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": "It is a dog."}]}
    )
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def parse() -> Callable[..., TrainSettings]:
    """The settings that arguments of the command describe."""
    parser = argparse.ArgumentParser()
    train_command.add_arguments(parser)
    return lambda *arguments: train_command.settings_from(parser.parse_args([str(each) for each in arguments]))


@pytest.fixture
def python() -> str:
    return sys.executable
