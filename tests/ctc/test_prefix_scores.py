"""Transcription guided by what the frames spell."""

import itertools
from collections import defaultdict

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from qwen_audio_chat.ctc.joint_scorer import JointScorer, joint_scorer_for
from qwen_audio_chat.ctc.prefix_scores import CTCPrefixScorer
from qwen_audio_chat.loading import POCKET
from qwen_audio_chat.prompts.conversation import Conversation
from qwen_audio_chat.prompts.messages import user_message
from qwen_audio_chat.prompts.questions import TRANSCRIBE, task_prompt, wants_transcript
from qwen_audio_chat.training.alignment import CTC_ALPHABET


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(POCKET)


def spelled(text: str, frames: int = 3, certainty: float = 6.0) -> torch.Tensor:
    """Log-probabilities [frames, classes] that clearly spell a text, with blanks between the letters."""
    classes = [place for char in text for place in [1 + CTC_ALPHABET.index(char)] * (frames - 1) + [0]]
    logits = torch.zeros(len(classes), 1 + len(CTC_ALPHABET))
    logits[range(len(classes)), classes] = certainty
    return logits.log_softmax(-1)


def test_scores_are_those_of_all_alignments_counted_one_by_one():
    log_probs = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    texts = defaultdict(float)
    for path in itertools.product(range(3), repeat=6):
        merged = tuple(label for label, _ in itertools.groupby(path) if label)
        texts[merged] += log_probs[range(6), path].sum().exp().item()
    scorer = CTCPrefixScorer(log_probs)
    for text in [(1,), (1, 1), (2, 2, 1), (1, 2, 1), (2, 1, 1, 2)]:
        state = scorer.empty()
        for letter in text:
            scorer.extend(state, [[letter]])
        beginnings = sum(p for other, p in texts.items() if other[: len(text)] == text)
        assert state.complete().exp().item() == pytest.approx(texts[text], rel=1e-5)
        assert state.total.exp().item() == pytest.approx(beginnings, rel=1e-5)


def test_texts_of_different_length_are_scored_at_once_and_one_space_is_enough():
    log_probs = torch.randn(9, 4, generator=torch.Generator().manual_seed(1)).log_softmax(-1)
    scorer, spellings = CTCPrefixScorer(log_probs, single=3), [(1,), (3, 3, 2, 3, 3, 3), (), (2, 2)]
    together = scorer.empty()[[0] * len(spellings)]
    scorer.extend(together, spellings)
    for row, letters in enumerate([(1,), (3, 2, 3), (), (2, 2)]):
        alone = scorer.empty()
        for letter in letters:
            scorer.extend(alone, [[letter]])
        assert all(map(torch.equal, vars(together[[row]]).values(), vars(alone).values()))


def test_scores_hold_where_probabilities_are_too_small_for_numbers():
    log_probs = (2 * torch.randn(750, 29, generator=torch.Generator().manual_seed(0))).log_softmax(-1).double()
    scorer = CTCPrefixScorer(log_probs)
    state, letters = scorer.empty(), [1 + n * 7 % 28 for n in range(300)]
    states = [0] + [label for letter in letters for label in (letter, 0)]
    alpha = torch.full((len(states),), -torch.inf).double()  # the usual recursion over states, in logarithms
    alpha[:2] = log_probs[0, states[:2]]
    begun = alpha[-2].clone()
    for frame in log_probs[1:]:
        entered = torch.logaddexp(alpha[-3], alpha[-4]) + frame[letters[-1]]
        begun = torch.logaddexp(begun, entered)
        skipped = torch.cat((torch.full((2,), -torch.inf).double(), alpha[:-2]))
        skipped[::2] = -torch.inf
        one = torch.cat((torch.tensor([-torch.inf]).double(), alpha[:-1]))
        alpha = torch.logaddexp(torch.logaddexp(alpha, one), skipped) + frame[states]
    for letter in letters:
        scorer.extend(state, [[letter]])
    assert begun < -750  # beyond what a float64 can hold
    assert state.total.item() == pytest.approx(begun.item(), rel=1e-6)
    assert state.complete() < state.total - 500  # it is not the end


def follow(tokenizer, log_probs, scores: torch.Tensor, limit: int = 12, **settings) -> str:
    """The greedy answer of a language model that always gives the same scores, guided."""
    stop = tokenizer.convert_tokens_to_ids("<|im_end|>")
    scorer = JointScorer(tokenizer, CTC_ALPHABET, log_probs, [stop], **settings)
    ids, text = [], scorer.begin()
    while len(ids) < limit and stop not in ids:
        proposals = scorer.score_candidates(scores[None], text)
        best = int(proposals.scores.argmax())
        ids.append(int(proposals.tokens[best]))
        text = proposals.texts[[best]]
    return tokenizer.decode(ids)


def test_what_was_heard_decides_between_words_that_the_language_model_likes_equally(tokenizer):
    scores = torch.full((len(tokenizer),), -20.0)
    words = [id for word in ("the", " cat", " hat", " mat", "<|im_end|>") for id in [tokenizer.encode(word)[0]]]
    scores[words] = 0.0
    assert follow(tokenizer, spelled(" the hat"), scores) == "the hat<|im_end|>"
    assert follow(tokenizer, spelled(" the mat"), scores) == "the mat<|im_end|>"
    assert follow(tokenizer, spelled(" the cat the"), scores, weight=0.0) != "the cat the<|im_end|>"


def test_an_answer_that_is_gone_on_with_is_held_to_what_follows(tokenizer):
    scores = torch.full((len(tokenizer),), -20.0)
    scores[[tokenizer.encode(word)[0] for word in (" cat", " hat", " the", "<|im_end|>")]] = 0.0
    assert follow(tokenizer, spelled(" the cat the hat"), scores, said="the cat") == " the hat<|im_end|>"
    assert follow(tokenizer, spelled(" the cat the hat"), scores, said="the cat the") == " hat<|im_end|>"


def test_what_is_silent_is_never_written(tokenizer):
    well, comma, hyphen, space, rest, letter = (
        tokenizer.encode(text)[0] for text in ("well", ",", "-", " ", " known", "k")
    )
    scores = torch.full((len(tokenizer),), -30.0)
    scores[[well, comma, hyphen, space, rest, letter]] = 0.0
    scorer = JointScorer(tokenizer, CTC_ALPHABET, spelled(" well known"), [0])
    first = scorer.score_candidates(scores[None], scorer.begin())
    after = scorer.score_candidates(scores[None], first.texts[first.tokens == well])
    score = dict(zip(after.tokens.tolist(), after.scores.tolist(), strict=True))
    assert not {comma, hyphen, space} & set(score)
    assert score[rest] == pytest.approx(-np.log(6), abs=1)  # the language model's own, nearly
    assert score[letter] < score[rest] - 1


def test_only_a_question_for_the_words_is_guided():
    def asks(text):
        return wants_transcript(user_message(text, [b""]))

    assert all(map(asks, TRANSCRIBE)) and asks("transcribe what she says") and asks("这段语音说了什么？")
    assert not asks("Transcribe the audio and say which language it is.")
    assert not any(map(asks, ("What sound is this?", "What do you hear?", "Who transcribed it?", "")))
    tags = [task_prompt(TRANSCRIBE[0], pretrained=True), task_prompt("What sound is this?", pretrained=True)]
    assert [wants_transcript({"role": "user", "content": [], "task": task}) for task in tags] == [True, False]


def test_the_chat_guides_a_transcription_and_nothing_else(tiny_chat, clip):
    talks = [Conversation().ask(words, [clip(1.0)]) for words in ("Transcribe the audio.", "What sound is this?")]
    guided = [tiny_chat.stream(talk).finish().token_ids for talk in talks]
    tiny_chat.model.ctc_head = None  # as the released model: it doesn't ctc_log_probs
    plain = [tiny_chat.stream(talk).finish().token_ids for talk in talks]
    assert guided[0] != plain[0] and guided[1] == plain[1]


def test_an_audio_that_spells_nothing_is_left_to_the_language_model(tiny_chat):
    model, frames = tiny_chat.model, torch.randn(20, tiny_chat.model.config.text_config.hidden_size)
    assert joint_scorer_for(model, tiny_chat.tokenizer, frames, [0]) is not None
    with torch.no_grad():
        model.ctc_head.bias[0] = 1000.0
    assert joint_scorer_for(model, tiny_chat.tokenizer, frames, [0]) is None
