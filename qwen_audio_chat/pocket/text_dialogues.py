"""Collect SmolLM2's greedy answers to simple prompts without audio, so that it doesn't forget how to chat.

    python -m qwen_audio_chat.pocket text-dialogues --model build/pocket/initial

Templates are filled with listed words and with common words of WordNet, because a model soon memorises a few hundred
prompts.
"""

import argparse
import random
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from transformers import BatchFeature

from ..model import QwenAudioForConditionalGeneration, QwenAudioProcessor
from ..model.checkpoint import choose_dtype
from ..prompts.messages import user_message
from .shards import Line, write_manifest
from .sources import fetch
from .steps import add_work_argument, require_model
from .text_questions import CLOSED_QUESTIONS, OPEN_QUESTIONS

MAX_ANSWER_TOKENS = 90  # an answer that reaches them is left out

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
_ADJECTIVES = "happy big cold fast light early strong quiet easy clean full rich brave narrow young".split()
_TEMPLATES = {
    "What is the capital of {}?": _PLACES,
    "Tell me one fact about {}.": (*_PLACES, *_THINGS),
    "What is {}?": _THINGS,
    "Explain {} to a child in one sentence.": _THINGS,
    "Name three {}.": _GROUPS,
    "Name one of the {} you know.": _GROUPS,
    "How can I {}? Answer in one sentence.": _ACTIONS,
    "Give me a short tip: how do I {}?": _ACTIONS,
    "What is the opposite of {}?": _ADJECTIVES,
    "Use the word {} in a sentence.": _ADJECTIVES,
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
COMMON_WORDS = {"1": (700, _NOUN_TEMPLATES), "3": (250, _ADJECTIVE_TEMPLATES)}
"""WordNet's number of a part of speech → how many of its words to take, and the templates for them."""

_SINGLE_PROMPTS = (
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


def common_words(work: Path, part_of_speech: str, count: int) -> list[str]:
    """The most frequent words of a part of speech ("1" nouns, "3" adjectives) in WordNet's corpus."""
    counts: Counter[str] = Counter()
    for line in (fetch("wordnet-base", work) / "usr/share/wordnet/cntlist.rev").read_text().splitlines():
        sense, _, count_of_sense = line.split()
        word, _, position = sense.partition("%")
        if position[0] == part_of_speech and re.fullmatch("[a-z]{3,}", word):
            counts[word] += int(count_of_sense)
    return [word for word, _ in counts.most_common(count)]


def prompts(work: Path, seed: int = 0) -> list[str]:
    """All prompts, shuffled: every listed one, and one about each common word, except those of the evaluation."""
    rng = random.Random(seed)
    found = [*_SINGLE_PROMPTS, *(template.format(word) for template, listed in _TEMPLATES.items() for word in listed)]
    for part_of_speech, (count, templates) in COMMON_WORDS.items():
        found += [rng.choice(templates).format(word) for word in common_words(work, part_of_speech, count)]
    unique = sorted(set(found) - {*CLOSED_QUESTIONS, *OPEN_QUESTIONS})
    rng.shuffle(unique)
    return unique


@torch.inference_mode()
def greedy_answers(
    model: QwenAudioForConditionalGeneration, processor: QwenAudioProcessor, questions: Sequence[str]
) -> list[str | None]:
    """Greedy answers to a batch of questions; None where an answer isn't complete."""
    conversations = [[user_message(question)] for question in questions]
    inputs = cast(BatchFeature, processor.apply_chat_template(conversations, add_generation_prompt=True))
    # transformers' protocol for models that generate demands attributes of encoder-decoders.
    output = model.generate(**inputs, max_new_tokens=MAX_ANSWER_TOKENS)  # pyright: ignore[reportAttributeAccessIssue]
    output = output[:, inputs["input_ids"].shape[1] :]
    stop_ids = set(model.generation_config.eos_token_id)
    texts = processor.tokenizer.batch_decode(output, skip_special_tokens=True)
    return [text if stop_ids & set(row) else None for text, row in zip(texts, output.tolist(), strict=True)]


def make_text_dialogues(model_folder: Path, work: Path, batch_size: int = 24) -> list[Line]:
    """Write `manifests/chat.jsonl`, and return its lines."""
    require_model(model_folder)
    model = QwenAudioForConditionalGeneration.from_pretrained(model_folder, dtype=choose_dtype("cpu")).eval()
    processor = QwenAudioProcessor.from_pretrained(model_folder)
    lines = []
    questions = prompts(work)
    for start in range(0, len(questions), batch_size):
        batch = questions[start : start + batch_size]
        for question, answer in zip(batch, greedy_answers(model, processor, batch), strict=True):
            if answer:
                messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer.strip()}]
                lines.append(
                    {"messages": messages, "source": "SmolLM2-135M-Instruct", "split": "train", "seconds": 0.0}
                )
    write_manifest(work / "manifests/chat.jsonl", lines)
    return lines


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the step."""
    add_work_argument(parser)
    parser.add_argument("--model", type=Path, required=True, help="folder of the untrained model, see `initialize`")


def run(args: argparse.Namespace) -> None:
    """Run the step."""
    print(len(make_text_dialogues(args.model, args.work)), "answers kept")
