"""The search for the likeliest transcript, beside every answer there could be."""

import itertools
from types import SimpleNamespace

import pytest
import torch

from qwen_audio_chat.ctc.beam_search import beam_search
from qwen_audio_chat.ctc.joint_scorer import Candidates
from qwen_audio_chat.ctc.prefix_scores import Prefixes
from qwen_audio_chat.engine.cache import KeyValueCache
from qwen_audio_chat.engine.sampling import GenerationOptions
from qwen_audio_chat.prompts.conversation import Conversation
from qwen_audio_chat.resources import EXAMPLES

STOP, WORDS, LIMIT = 0, (1, 2, 3), 5


class Written:
    """Stands for a cache: the tokens that were fed."""

    def __init__(self):
        self.tokens = ()

    def get_seq_length(self) -> int:
        return len(self.tokens)

    def copy_from(self, other, shared) -> None:
        assert self.tokens[:shared] == other.tokens[:shared] or not self.tokens
        self.tokens = other.tokens


def logits_after(tokens) -> torch.Tensor:
    generator = torch.Generator().manual_seed(hash(tokens) % 2**31)
    return 2 * torch.randn(1, 1 + len(WORDS), generator=generator)


def step(tokens, caches) -> list[torch.Tensor]:
    assert len({id(cache) for cache in caches}) == len(caches)  # no two hypotheses write into one cache
    for token, cache in zip(tokens, caches, strict=True):
        cache.tokens += (token,)
    return [logits_after(cache.tokens) for cache in caches]


def score_candidates(logits, texts):
    tokens = torch.arange(logits.shape[1]).repeat(len(texts.last))
    parents = torch.arange(len(texts.last)).repeat_interleave(logits.shape[1])
    spellings = [[] if token == STOP else [token] for token in tokens.tolist()]
    return Candidates(parents, tokens, logits.log_softmax(-1).flatten(), spellings, texts[parents])


def begin():
    return Prefixes(*[torch.zeros(1)] * 5)


def endless(logits, texts):
    return score_candidates(logits - 50 * torch.eye(logits.shape[1])[STOP], texts)


SCORER = SimpleNamespace(begin=begin, score_candidates=score_candidates, stop_ids={STOP})
ENDLESS = SimpleNamespace(begin=begin, score_candidates=endless, stop_ids={STOP})


def search(prompt, width, is_cancelled=lambda: False, limit=LIMIT, max_unsettled=LIMIT):
    cache = Written()
    cache.tokens = prompt
    found = beam_search(step, logits_after(prompt), cache, SCORER, limit, is_cancelled, width, max_unsettled)
    return list(found), cache


def score(prompt, answer) -> float:
    return sum(
        float(logits_after((*prompt, *answer[:place]))[0].log_softmax(-1)[token]) for place, token in enumerate(answer)
    )


@pytest.mark.parametrize("prompt", [(9, seed) for seed in range(8)])
def test_a_wide_search_finds_the_likeliest_answer_of_all(prompt):
    answers = [(*words, STOP) for n in range(LIMIT) for words in itertools.product(WORDS, repeat=n)]
    answers += itertools.product(WORDS, repeat=LIMIT)  # those that don't end before
    found, cache = search(prompt, width=4**LIMIT)
    assert tuple(found) == max(answers, key=lambda answer: score(prompt, answer))
    assert cache.tokens == prompt  # as it was


def test_width_one_is_greedy_and_more_find_better_answers():
    total = {1: 0.0, 4: 0.0}
    for prompt in ((8, seed) for seed in range(40)):
        greedy = []
        while STOP not in greedy and len(greedy) < LIMIT:
            greedy.append(int(logits_after((*prompt, *greedy)).argmax()))
        assert search(prompt, 1)[0] == greedy
        total[1] += score(prompt, greedy)
        total[4] += score(prompt, search(prompt, 4)[0])
    assert total[4] > total[1] + 1


def test_a_word_is_told_after_so_many_more():
    for max_unsettled in (1, 3):
        fed = []

        def counted(tokens, caches, fed=fed):
            fed.append(len(tokens))
            return step(tokens, caches)

        cache = Written()
        cache.tokens = (6,)
        for emitted, _ in enumerate(
            beam_search(counted, logits_after((6,)), cache, ENDLESS, 30, lambda: False, 4, max_unsettled), 1
        ):
            assert len(fed) < emitted + max_unsettled
        assert emitted == 30 and max(fed) == min(4, 3**max_unsettled)


def test_what_is_spelled_alike_is_one_hypothesis():
    def alike(logits, texts):
        candidates = score_candidates(logits, texts)
        candidates.spellings[2 :: 1 + len(WORDS)] = candidates.spellings[3 :: 1 + len(WORDS)]
        return candidates

    scorer = SimpleNamespace(begin=begin, score_candidates=alike, stop_ids={STOP})
    widths = []

    def counted(tokens, caches):
        widths.append(len(tokens))
        return step(tokens, caches)

    list(beam_search(counted, logits_after(()), Written(), scorer, 3, lambda: False, 100))
    assert widths[:2] == [2, 4]  # of three words, two are one


def test_it_ends_at_the_limit_and_when_cancelled():
    assert len(list(beam_search(step, logits_after(()), Written(), ENDLESS, 7, lambda: False, 3))) == 7
    asked = iter([False, False, True])
    emitted = list(beam_search(step, logits_after(()), Written(), ENDLESS, 7, lambda: next(asked), 3))
    assert len(emitted) <= 3
    assert emitted == list(beam_search(step, logits_after(()), Written(), ENDLESS, 7, lambda: False, 3))[: len(emitted)]


def test_a_cache_that_follows_another_holds_the_same_and_goes_its_own_way():
    first, second = KeyValueCache(), KeyValueCache()
    states = torch.randn(2, 1, 2, 300, 4)
    for layer in range(2):
        first.update(states[layer], -states[layer], layer)
    second.copy_from(first, 0)
    for layer in range(2):
        first.update(states[0, :, :, :5], states[0, :, :, :5], layer)
        second.update(states[1, :, :, :9], states[1, :, :, :9], layer)
    assert torch.equal(second.layers[1].keys, torch.cat((states[1], states[1, :, :, :9]), dim=2))
    second.copy_from(first, 300)
    assert torch.equal(second.layers[1].keys, torch.cat((states[1], states[0, :, :, :5]), dim=2))
    assert torch.equal(second.layers[0].values, torch.cat((-states[0], states[0, :, :, :5]), dim=2))


@pytest.mark.slow
def test_the_chat_searches_for_transcripts_and_keeps_what_the_prompt_cost(float_pocket):
    talk, session = (
        Conversation().ask("What does the person say?", [EXAMPLES / "not-valid.flac"]),
        float_pocket.new_session(),
    )
    first = float_pocket.stream(talk, session=session).finish()
    again = float_pocket.stream(talk, GenerationOptions(do_sample=True, seed=3), session=session).finish()
    talk.answer(first.text, first.token_ids).ask("What sound is this?")
    after = float_pocket.stream(talk, GenerationOptions(max_new_tokens=2), session=session).finish()
    assert first.finish_reason == "stop" and len(first.text.split()) > 3
    assert again.text == first.text  # it is searched for, not sampled
    assert again.stats.reused_tokens == first.stats.prompt_tokens - 1
    assert after.stats.reused_tokens == first.stats.prompt_tokens
