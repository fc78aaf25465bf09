"""Official-layout checkpoints for the tests: tiny random weights, the real tokenizer."""

import importlib.metadata
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers.models.whisper.modeling_whisper import sinusoids

from qwen_audio_chat.prompts.conversation import Conversation
from tests.golden.golden_inputs import CASES, TINY, tiny_weight, waveform

GOLDEN = Path(__file__).parent / "golden"
TINY_SIZES = {4096: 64, 12288: 192, 11008: 128, 1280: 64, 5120: 256}  # real dimension -> the tiny checkpoint's


def find_vocabulary() -> Path:
    """The real `qwen.tiktoken`, which comes with the package `dashscope`."""
    files = importlib.metadata.files("dashscope") or []
    [path] = [file.locate() for file in files if file.name == "qwen.tiktoken"]
    return Path(str(path))


@pytest.fixture(scope="session")
def vocabulary() -> Path:
    return find_vocabulary()


def official_shapes() -> dict[str, list[int]]:
    """Names and shapes of all 749 parameters of the released checkpoint."""
    lines = (GOLDEN / "official_parameters.txt").read_text().splitlines()
    return {name: json.loads(shape) for name, shape in (line.split("\t") for line in lines)}


def official_config(tiny: bool = True) -> dict:
    """The released config.json, by default with the sizes of the tiny checkpoint."""
    config = json.loads((GOLDEN / "official_config.json").read_text())
    if tiny:
        config |= TINY["text"]
        config["audio"] |= TINY["audio"]
    return config


def official_weights() -> dict[str, torch.Tensor]:
    """The weights of the tiny checkpoint that made the golden outputs, under their official names."""
    weights = {}
    for name, shape in official_shapes().items():
        layer = re.search(r"\.(?:h|blocks)\.(\d+)\.", name)
        if layer and int(layer[1]) >= 2:
            continue
        if "positional" in name:
            weights[name] = sinusoids(1500, 64)
        else:
            weights[name] = torch.from_numpy(tiny_weight(name, tuple(TINY_SIZES.get(n, n) for n in shape)))
    return weights


def write_official(folder: Path, weights: dict[str, torch.Tensor], vocabulary: Path, shards: int = 3) -> Path:
    """Write a checkpoint as it is on the hubs: sharded, with `auto_map` entries that point to remote code."""
    folder.mkdir(exist_ok=True)
    names = list(weights)
    index = {}
    for n in range(shards):
        file = f"model-{n + 1:05}-of-{shards:05}.safetensors"
        save_file({name: weights[name] for name in names[n::shards]}, folder / file, metadata={"format": "pt"})
        index |= dict.fromkeys(names[n::shards], file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    (folder / "config.json").write_text(json.dumps(official_config()))
    tokenizer = {"auto_map": {"AutoTokenizer": ["tokenization_qwen.QWenTokenizer", None]}, "model_max_length": 2048}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer | {"tokenizer_class": "QWenTokenizer"}))
    generation = dict(chat_format="chatml", eos_token_id=151643, pad_token_id=151643, max_window_size=6144)
    generation |= dict(max_new_tokens=512, do_sample=True, top_k=0, top_p=0.5)
    (folder / "generation_config.json").write_text(json.dumps(generation))
    shutil.copy(vocabulary, folder / "qwen.tiktoken")
    return folder


@pytest.fixture(scope="session")
def official_folder(tmp_path_factory, vocabulary) -> Path:
    """The golden checkpoint in float32. Tests that change files work on a copy."""
    return write_official(tmp_path_factory.mktemp("official"), official_weights(), vocabulary)


@pytest.fixture(scope="session")
def expected() -> dict[str, np.ndarray]:
    """What the original implementation computed."""
    return dict(np.load(GOLDEN / "expected.npz"))


@pytest.fixture(scope="session")
def official_processor(official_folder):
    from transformers import AutoProcessor

    return AutoProcessor.from_pretrained(official_folder)


def golden_inputs(processor, name: str):
    """Model inputs of one golden case."""
    case = CASES[name]
    if case["format"] == "tags":
        return processor([case["tags"]] * len(case["audios"]), [waveform(clip) for clip in case["audios"]])
    conversation = Conversation()
    for turn in case["turns"]:
        conversation.ask(turn["user"], [waveform(clip) for clip in turn["audios"]])
        if "assistant" in turn:
            conversation.answer(turn["assistant"])
    return processor.apply_chat_template(conversation, add_generation_prompt=True)
