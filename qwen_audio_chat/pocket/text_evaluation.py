"""Whether the language model still answers questions without audio as it did before its training with audio.

It is measured by closed questions, and by the likelihood of its parent's answers to open ones. None of the questions is
in the training data.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ..chat import AudioChat
from ..engine.sampling import GenerationOptions
from ..evaluation.metrics import Metric, ratio
from ..evaluation.samples import Sample
from ..evaluation.tasks import TASKS
from ..files import atomic_write
from ..prompts.conversation import Conversation
from ..training.collator import IGNORE, Collator
from ..training.manifest import Dialogue
from .held_out import HeldOutSet
from .text_questions import CLOSED_QUESTIONS, OPEN_QUESTIONS

MEAN_NLL = "mean_nll"
MAX_ANSWER_TOKENS = 90  # an answer that reaches them is left out


def closed_questions() -> HeldOutSet:
    """The 50 closed questions; an answer is right if it contains a right one."""
    samples = [
        Sample(index, question, (), tuple(answers.split("|")), messages=({"role": "user", "content": question},))
        for index, (question, answers) in enumerate(CLOSED_QUESTIONS.items())
    ]
    return HeldOutSet("text chat: closed questions", TASKS["chat"], samples)


def open_questions() -> HeldOutSet:
    """The row of the open questions; `measure_likelihood` fills in its scores."""
    samples = [Sample(index, question, (), ("",)) for index, question in enumerate(OPEN_QUESTIONS)]
    return HeldOutSet("text chat: answers of SmolLM2", TASKS["chat"], samples, metrics=(MEAN_NLL,))


def measure_likelihood(models: dict[str, AudioChat], author: str, output: Path) -> dict[str, dict[str, Metric]]:
    """Mean negative log-likelihood (nats per token) under each model of the author's greedy answers.

    Args:
        models: by name, including the author.
        output: folder that keeps the complete answers, in smollm2-answers.json.
    """
    path = output / "smollm2-answers.json"
    if not path.exists():
        options = GenerationOptions(max_new_tokens=MAX_ANSWER_TOKENS)
        replies = [models[author].stream(Conversation().ask(question), options).finish() for question in OPEN_QUESTIONS]
        complete = {
            question: reply.text
            for question, reply in zip(OPEN_QUESTIONS, replies, strict=True)
            if reply.finish_reason == "stop"
        }
        atomic_write(path, json.dumps(complete, indent=2) + "\n")
    answers = json.loads(path.read_text(encoding="utf-8"))
    conversations = [Conversation().ask(question).answer(text.strip()) for question, text in answers.items()]
    return {name: {MEAN_NLL: ratio(*answer_losses(chat, conversations))} for name, chat in models.items()}


@torch.inference_mode()
def answer_losses(chat: AudioChat, conversations: Sequence[Conversation]) -> tuple[np.ndarray, np.ndarray]:
    """Summed negative log-likelihood and number of the assistant's tokens, its end token included.

    Returns:
        Two arrays [conversations].
    """
    collate, sums, counts = Collator(chat.processor), [], []
    for conversation in conversations:
        inputs = collate([(Dialogue("text", tuple(conversation)), 0)])
        labels = inputs.pop("labels")[0, 1:]
        logits = chat.model(**{name: value.to(chat.model.device) for name, value in inputs.items()}).logits
        loss = torch.nn.functional.cross_entropy(
            logits[0, :-1].float().cpu(), labels, ignore_index=IGNORE, reduction="sum"
        )
        sums.append(loss.item())
        counts.append(int((labels != IGNORE).sum()))
    return np.array(sums), np.array(counts)
