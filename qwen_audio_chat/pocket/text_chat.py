"""Whether the language model still talks as it did before it learned to hear: closed questions, and its own answers.

None of these questions is in the recipe's training data.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..engine.sampling import GenerationOptions
from ..evaluation.data import Sample
from ..evaluation.metrics import Metric, ratio
from ..evaluation.tasks import TASKS
from ..files import atomic_write
from ..prompts.conversation import Conversation
from .held_out import HeldOutSet

if TYPE_CHECKING:
    from ..chat import AudioChat

CLOSED = {  # question → right answers
    "What is the capital of France?": "Paris", "What is the capital of Germany?": "Berlin",
    "What is the capital of Russia?": "Moscow", "What is the capital of China?": "Beijing",
    "What is the capital of Austria?": "Vienna", "What is the capital of England?": "London",
    "What is the capital of the United States?": "Washington", "What is the capital of Australia?": "Canberra",
    "Which language is spoken in Brazil?": "Portuguese", "Which language is spoken in Mexico?": "Spanish",
    "On which continent is Nigeria?": "Africa", "On which continent is India?": "Asia",
    "Which ocean lies between Europe and America?": "Atlantic", "What is the largest ocean?": "Pacific",
    "What is the highest mountain on Earth?": "Everest", "What is the largest planet of the solar system?": "Jupiter",
    "Which planet is closest to the sun?": "Mercury", "Which planet is known as the red planet?": "Mars",
    "What is the chemical symbol of gold?": "Au", "What is the chemical formula of water?": "H2O",
    "Which gas do plants take in from the air?": "carbon dioxide", "Which gas do people need to breathe?": "oxygen",
    "At how many degrees Celsius does water boil?": "100", "What is frozen water called?": "ice",
    "How many minutes are in an hour?": "60|sixty", "How many seconds are in a minute?": "60|sixty",
    "How many months are in a year?": "12|twelve", "How many legs does a dog have?": "4|four",
    "How many sides does a triangle have?": "3|three", "How many letters are in the English alphabet?": "26",
    "How many players are on a soccer team?": "11|eleven", "What is five plus five?": "10|ten",
    "What is ten minus four?": "6|six", "What is three times three?": "9|nine", "What is half of twenty?": "10|ten",
    "Which day comes after Monday?": "Tuesday", "Which month comes before February?": "January",
    "Which season comes after winter?": "spring", "What color is grass?": "green", "What color is snow?": "white",
    "What color do you get from blue and yellow?": "green", "What is a baby cat called?": "kitten",
    "What is a baby cow called?": "calf", "What is the largest animal on Earth?": "blue whale",
    "Which animal barks?": "dog", "Which organ pumps blood?": "heart", "With which organ do we see?": "eye|eyes",
    "Who wrote Romeo and Juliet?": "Shakespeare", "Who painted the Mona Lisa?": "Leonardo da Vinci",
    "Who was the first president of the United States?": "George Washington",
}  # fmt: skip
OPEN = (
    "What is the opposite of tall?", "What is the opposite of empty?", "What is friendship?", "What is a mountain?",
    "What is electricity?", "What is a dictionary?", "Tell me one fact about Canada's winter.",
    "Tell me one fact about elephants.", "Tell me one fact about the ocean.", "Name three kinds of weather.",
    "Name three things in a kitchen.", "Name two seasons.", "How can I boil an egg? Answer in one sentence.",
    "How can I find a job? Answer in one sentence.", "How can I learn to swim? Answer in one sentence.",
    "Give me a short tip: how do I wake up early?", "Give me a short tip: how do I speak in public?",
    "Use the word window in a sentence.", "Use the word garden in a sentence.", "Write one sentence about winter.",
    "Write one sentence about a dog.", "Write one sentence about a teacher.", "Explain gravity in one sentence.",
    "Explain what a bank does in one sentence.", "Explain a rainbow in one sentence.", "Wish me a happy birthday.",
    "Say thank you to a friend.", "Why do birds sing? Answer in one sentence.", "Why is sleep important?",
    "What should I eat for breakfast?",
)  # fmt: skip
NLL = "mean_nll"
LONGEST_ANSWER = 90  # tokens; only answers that end by themselves count


def closed_questions() -> HeldOutSet:
    """The 50 questions with one right answer each; right is what contains it."""
    samples = [
        Sample(index, question, (), tuple(right.split("|")), messages=({"role": "user", "content": question},))
        for index, (question, right) in enumerate(CLOSED.items())
    ]
    return HeldOutSet("text chat: closed questions", TASKS["chat"], samples)


def own_answers() -> HeldOutSet:
    """A place in the table for `measure_likelihood`."""
    samples = [Sample(index, question, (), ("",)) for index, question in enumerate(OPEN)]
    return HeldOutSet("text chat: answers of SmolLM2", TASKS["chat"], samples, metrics=(NLL,))


def measure_likelihood(models: dict[str, "AudioChat"], author: str, output: Path) -> dict[str, dict[str, Metric]]:
    """Mean negative log-likelihood (nats a token) of the author's own greedy answers, under each model.

    Args:
        models: by name, the author among them.
        output: folder, where the answers that end in time are kept, in smollm2-answers.json.
    """
    path = output / "smollm2-answers.json"
    if not path.exists():
        options = GenerationOptions(max_new_tokens=LONGEST_ANSWER)
        replies = [models[author].stream(Conversation().ask(question), options).finish() for question in OPEN]
        ended = {q: reply.text for q, reply in zip(OPEN, replies, strict=True) if reply.finish_reason == "stop"}
        atomic_write(path, json.dumps(ended, indent=2) + "\n")
    written = json.loads(path.read_text(encoding="utf-8"))
    talks = [Conversation().ask(question).answer(text.strip()) for question, text in written.items()]
    return {name: {NLL: ratio(*answer_losses(chat, talks))} for name, chat in models.items()}


@torch.inference_mode()
def answer_losses(chat: "AudioChat", talks: Sequence[Conversation]) -> tuple[np.ndarray, np.ndarray]:
    """Summed negative log-likelihood and number of the assistant's tokens, each [talks]; the end token is one."""
    from ..training.collator import IGNORE, Collator
    from ..training.manifest import Dialogue

    collate, sums, counts = Collator(chat.processor), [], []
    for talk in talks:
        inputs = collate([(Dialogue("text", tuple(talk)), 0)])
        labels = inputs.pop("labels")[0, 1:]
        logits = chat.model(**{name: value.to(chat.model.device) for name, value in inputs.items()}).logits
        loss = torch.nn.functional.cross_entropy(
            logits[0, :-1].float().cpu(), labels, ignore_index=IGNORE, reduction="sum"
        )
        sums.append(loss.item())
        counts.append(int((labels != IGNORE).sum()))
    return np.array(sums), np.array(counts)
