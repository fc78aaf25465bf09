"""Run as several processes by test_runner.py: the tiny model of the tests over a manifest."""

import sys
from pathlib import Path

from qwen_audio_chat.chat import AudioChat
from qwen_audio_chat.evaluation.predictor import ModelPredictor
from qwen_audio_chat.evaluation.runner import processes
from qwen_audio_chat.model import QwenAudioProcessor
from tests.conftest import build_tiny_model, tiny_tokenizer
from tests.evaluation.test_runner import runner

manifest, output = map(Path, sys.argv[1:])
tokenizer = tiny_tokenizer.__wrapped__() if hasattr(tiny_tokenizer, "__wrapped__") else tiny_tokenizer()
chat = AudioChat(build_tiny_model(tokenizer), QwenAudioProcessor(tokenizer), name="tiny", precision="float32")
runner(manifest, output, "mna").run(ModelPredictor(chat), 2)
if processes().is_main_process:
    print(f"processes: {processes().num_processes}")
