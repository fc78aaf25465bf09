"""Text-only dialogues: SmolLM2's own greedy answers to simple prompts, so that audio training doesn't make it forget.

python -m qwen_audio_chat.training.pocket.chat --model build/pocket/initial --work build/pocket
"""

import argparse
import random
from pathlib import Path

import torch
from transformers import AutoModelForMultimodalLM, AutoProcessor

import qwen_audio_chat.model  # noqa: F401  registers the classes

from .manifests import Line, write_manifest
from .sources import DEFAULT_WORK

LONGEST_ANSWER = 90  # tokens; only answers that end by themselves are kept

_PLACES = (
    "Japan Italy Egypt Brazil Canada Kenya Norway Peru India Greece Spain Mexico Poland Chile Turkey Cuba Ireland "
    "Sweden Portugal Vietnam"
).split()
_THINGS = (
    "a river, the moon, a volcano, bread, a library, the heart, a bicycle, rain, a bee, music, a computer, salt, "
    "a desert, the sun, a violin, an island, glass, a forest, sleep, a bridge, tea, a comet, cheese, a whale, "
    "a clock, snow, an atom, a castle, honey, a magnet"
).split(", ")
_GROUPS = (
    "fruits, animals, colors, countries, sports, musical instruments, vegetables, planets, tools, birds, rivers, "
    "languages, trees, metals, flowers, jobs"
).split(", ")
_ACTIONS = (
    "learn a language, cook rice, sleep better, save money, make new friends, stay healthy, clean a window, "
    "write a letter, plant a tree, prepare for an exam, make tea, stop worrying"
).split(", ")
_WORDS = "happy big cold fast light early strong quiet easy clean full rich brave narrow young".split()
_TEMPLATES = {
    "What is the capital of {}?": _PLACES,
    "Tell me one fact about {}.": (*_PLACES, *_THINGS),
    "What is {}?": _THINGS,
    "Explain {} to a child in one sentence.": _THINGS,
    "Name three {}.": _GROUPS,
    "Name one of the {} you know.": _GROUPS,
    "How can I {}? Answer in one sentence.": _ACTIONS,
    "Give me a short tip: how do I {}?": _ACTIONS,
    "What is the opposite of {}?": _WORDS,
    "Use the word {} in a sentence.": _WORDS,
    "Write one sentence about {}.": _THINGS,
}
_SINGLE = (
    "Hello!",
    "Hi, how are you?",
    "Good morning.",
    "Thank you very much.",
    "Who are you?",
    "What can you do?",
    "Goodbye!",
    "Can you help me?",
    "Tell me a short joke.",
    "How many days are in a week?",
    "How many legs does a spider have?",
    "What color is the sky?",
    "Which planet do we live on?",
    "What do bees make?",
    "Is the sun hot or cold?",
    "What is two plus three?",
    "Which month comes after May?",
    "How many hours are in a day?",
    "What do cows drink?",
    "Can fish fly?",
    "What do you call a baby dog?",
    "Which is bigger, an elephant or a mouse?",
)


def prompts(seed: int = 0) -> list[str]:
    """All prompts, shuffled."""
    filled = (template.format(word) for template, words in _TEMPLATES.items() for word in words)
    every = [*_SINGLE, *filled]
    random.Random(seed).shuffle(every)
    return every


@torch.inference_mode()
def answers(model, processor, questions: list[str]) -> list[str | None]:
    """Greedy answers of one batch; None where an answer doesn't end in time."""
    inputs = processor.apply_chat_template(
        [[{"role": "user", "content": question}] for question in questions], add_generation_prompt=True
    )
    output = model.generate(**inputs, max_new_tokens=LONGEST_ANSWER)[:, inputs["input_ids"].shape[1] :]
    ends = set(model.generation_config.eos_token_id)
    texts = processor.tokenizer.batch_decode(output, skip_special_tokens=True)
    return [text if ends & set(row) else None for text, row in zip(texts, output.tolist(), strict=True)]


def make(model_folder: Path, work: Path, batch_size: int = 24) -> list[Line]:
    """Write `manifests/chat.jsonl`."""
    model = AutoModelForMultimodalLM.from_pretrained(model_folder, dtype=torch.bfloat16).eval()
    processor = AutoProcessor.from_pretrained(model_folder)
    lines = []
    questions = prompts()
    for start in range(0, len(questions), batch_size):
        batch = questions[start : start + batch_size]
        for question, answer in zip(batch, answers(model, processor, batch), strict=True):
            if answer:
                messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer.strip()}]
                lines.append(
                    {"messages": messages, "source": "SmolLM2-135M-Instruct", "split": "train", "seconds": 0.0}
                )
    write_manifest(work / "manifests/chat.jsonl", lines)
    return lines


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="the untrained pocket (see `initialize`)")
    parser.add_argument("--work", type=Path, default=DEFAULT_WORK, help="work folder (default: %(default)s)")
    arguments = parser.parse_args()
    print(len(make(arguments.model, arguments.work)), "answers kept")


if __name__ == "__main__":
    main()
