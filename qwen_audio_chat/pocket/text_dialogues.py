"""Text-only dialogues: SmolLM2's own greedy answers to simple prompts, so that audio training doesn't make it forget.

Written templates are filled with written words and with common ones of WordNet, since a few hundred prompts are soon
learned by heart.

python -m qwen_audio_chat.pocket.text_dialogues --model build/pocket/initial --work build/pocket
"""

import argparse
import random
import re
from collections import Counter
from pathlib import Path

import torch
from transformers import AutoModelForMultimodalLM, AutoProcessor

import qwen_audio_chat.model  # noqa: F401  registers the classes

from ..model.checkpoint import choose_dtype
from .shards import Line, write_manifest
from .sources import DEFAULT_WORK, fetch
from .text_chat import CLOSED, OPEN

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
_NOUN_TEMPLATES = (
    "What is the meaning of the word {}?", "Use the word {} in a sentence.", "Write one sentence about {}.",
    "Give me a word that means nearly the same as {}.", "Tell me one fact about {}.", "Write a question about {}.",
    "What comes to your mind with {}?", "Why does {} matter? Answer in one sentence.", "Explain {} in one sentence.",
)  # fmt: skip
_ADJECTIVE_TEMPLATES = (
    "What is the opposite of {}?", "Name something that is {}.", "Use the word {} in a sentence.",
    "What does {} mean?",
)  # fmt: skip
COMMON = {"1": (700, _NOUN_TEMPLATES), "3": (250, _ADJECTIVE_TEMPLATES)}  # WordNet's kind → words, their templates
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


def common_words(work: Path, kind: str, count: int) -> list[str]:
    """The words of one of WordNet's kinds ("1" nouns, "3" adjectives) that were counted most often in its corpus."""
    counts = Counter()
    for line in (fetch("wordnet-base", work) / "usr/share/wordnet/cntlist.rev").read_text().splitlines():
        sense, _, count_of_sense = line.split()
        word, _, place = sense.partition("%")
        if place[0] == kind and re.fullmatch("[a-z]{3,}", word):
            counts[word] += int(count_of_sense)
    return [word for word, _ in counts.most_common(count)]


def prompts(work: Path, seed: int = 0) -> list[str]:
    """All prompts, shuffled: every written one, and one about each common word; none that evaluation asks."""
    rng = random.Random(seed)
    every = [*_SINGLE, *(template.format(word) for template, words in _TEMPLATES.items() for word in words)]
    for kind, (count, templates) in COMMON.items():
        every += [rng.choice(templates).format(word) for word in common_words(work, kind, count)]
    every = sorted(set(every) - {*CLOSED, *OPEN})
    rng.shuffle(every)
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
    model = AutoModelForMultimodalLM.from_pretrained(model_folder, dtype=choose_dtype("cpu")).eval()
    processor = AutoProcessor.from_pretrained(model_folder)
    lines = []
    questions = prompts(work)
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
