"""The 8.4 B model at full size on a CPU, with synthetic weights; run by hand, needs 17 GB of disk:

    python -m tests.full_size --folder /somewhere/with/space

Writes a bfloat16 checkpoint of the official layout and shape in shards, loads it in 4 bits, answers one question about
a 30 s clip, and prints one JSON line: load time, peak of its own memory (RssAnon, without mapped shards), time to the
first token, tokens per second, and their share of what the memory bandwidth allows. Then it deletes the checkpoint.
"""

import argparse
import json
import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from safetensors.torch import save_file
from transformers.models.whisper.modeling_whisper import sinusoids

from qwen_audio_chat.benchmark.measures import gb_per_token, read_gb_per_s
from qwen_audio_chat.chat import AudioChat
from qwen_audio_chat.engine.sampling import GenerationOptions
from qwen_audio_chat.model.checkpoint import INDEX_FILE, load_model
from qwen_audio_chat.prompts.conversation import Conversation
from tests.official import find_vocabulary, official_config, official_shapes

SHARD_BYTES = 1_900_000_000


def write_checkpoint(folder: Path) -> None:
    """Random weights of the usual scale, all taken from one block of noise at different offsets."""
    folder.mkdir(parents=True)
    noise = 0.02 * torch.randn(50_000_017).bfloat16()
    index, shard, size = {}, {}, 0
    shapes = official_shapes()
    for n, (name, shape) in enumerate(shapes.items()):
        count = int(np.prod(shape))
        if "positional" in name:
            weight = sinusoids(*shape).bfloat16()
        elif "ln" in name.split(".")[-2]:
            weight = torch.full(shape, float(name.endswith("weight")), dtype=torch.bfloat16)
        else:
            start = 7919 * n
            weight = noise.repeat((start + count) // len(noise) + 1)[start : start + count].view(shape).clone()
        shard[name], size = weight, size + 2 * count
        if size > SHARD_BYTES or n == len(shapes) - 1:
            file = f"model-{len(set(index.values())) + 1:05}.safetensors"
            save_file(shard, folder / file, metadata={"format": "pt"})
            index |= dict.fromkeys(shard, file)
            shard, size = {}, 0
    (folder / INDEX_FILE).write_text(json.dumps({"metadata": {}, "weight_map": index}))
    (folder / "config.json").write_text(json.dumps(official_config(tiny=False)))
    shutil.copy(find_vocabulary(), folder / "qwen.tiktoken")


class PeakMemory:
    """The largest anonymous memory of this process while the block runs, in GiB."""

    def __enter__(self):
        self.gib, self.stop = 0.0, threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)
        self.thread.start()
        return self

    def watch(self) -> None:
        while not self.stop.wait(0.05):
            status = Path("/proc/self/status").read_text()
            self.gib = max(self.gib, int(status.split("RssAnon:")[1].split()[0]) / 2**20)

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()


def measure(folder: Path, new_tokens: int) -> dict[str, Any]:
    """Load the model and answer once."""
    start = time.perf_counter()
    with PeakMemory() as loading:
        model, processor = load_model(folder, device="cpu", quantization="int4")
    load_s = time.perf_counter() - start
    t = np.arange(30 * 16000) / 16000
    clip = (0.3 * np.sin(2 * np.pi * 440 * t) + 0.01 * np.random.default_rng(0).standard_normal(t.size)).astype("f4")
    chat = AudioChat(model, processor, name="synthetic", precision=model.precision)
    with PeakMemory() as answering:
        question = Conversation().ask("What is it?", [clip])
        stats = chat.stream(question, GenerationOptions(max_new_tokens=new_tokens)).finish().stats
    assert stats.ttft_s is not None and stats.tokens_per_s is not None
    bandwidth, read = read_gb_per_s(1024), gb_per_token(chat)
    return {
        "precision": model.precision,
        "load_s": round(load_s, 1),
        "peak_gib_loading": round(loading.gib, 2),
        "peak_gib_answering": round(answering.gib, 2),
        "prompt_tokens": stats.prompt_tokens,
        "ttft_s": round(stats.ttft_s, 1),
        "tokens_per_s": round(stats.tokens_per_s, 3),
        "gb_per_token": round(read, 2),
        "read_gb_per_s": round(bandwidth, 1),
        "share_of_bandwidth": round(stats.tokens_per_s * read / bandwidth, 2),
        "threads": torch.get_num_threads(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--folder", type=Path, required=True, help="a new folder on a disk with 17 GB free")
    parser.add_argument("--new-tokens", type=int, default=16, help="length of the answer (default: %(default)s)")
    arguments = parser.parse_args()
    try:
        write_checkpoint(arguments.folder)
        print(json.dumps(measure(arguments.folder, arguments.new_tokens)))
    finally:
        shutil.rmtree(arguments.folder, ignore_errors=True)


if __name__ == "__main__":
    main()
