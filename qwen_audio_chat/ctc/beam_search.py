"""The likeliest transcript: several hypotheses go on side by side, and what they agree on is told.

Greedy decoding can't take a word back that the next ones don't bear out. A hypothesis that sounds as likely is kept
here until the sound decides, as in joint CTC/attention decoding (see `guidance`).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from ..engine.cache import KeyValueCache
from .prefix_scores import JointScorer, Prefixes

BEAM_WIDTH = 4  # hypotheses; each costs a decoding step for every token
OPEN = 4  # last tokens in which they may differ: nobody waits longer for a word


@dataclass
class Hypothesis:
    """A beginning of the answer.

    Attributes:
        tokens: so far.
        score: log-probability of the tokens by language model and scorer.
        text: what the scorer knows of it.
        letters: classes of its letters; what differs in tokens or capitals alone is the same.
        cache: keys and values of the prompt and all tokens but the last.
    """

    tokens: tuple[int, ...]
    score: float
    text: Prefixes
    letters: tuple[int, ...]
    cache: KeyValueCache


@torch.inference_mode()
def beam_search(
    step: Callable[[Sequence[int], Sequence[KeyValueCache]], Sequence[torch.Tensor]],
    logits: torch.Tensor,
    cache: KeyValueCache,
    scorer: JointScorer,
    limit: int,
    is_cancelled: Callable[[], bool],
    width: int = BEAM_WIDTH,
    open_tokens: int = OPEN,
) -> Iterator[int]:
    """Tokens of the likeliest answer, each once no hypothesis differs in it. Nothing more follows a cancel.

    Args:
        step: feeds a token to each of several caches; gives the next logits [1, vocabulary] of each.
        logits: [1, vocabulary] after the prompt.
        cache: of the prompt; it stays as it is.
        limit: tokens of an answer that doesn't end before.
        width: how many hypotheses.
        open_tokens: how many last tokens may differ from the likeliest hypothesis's.
    """
    live, following, spare = [Hypothesis((), 0.0, scorer.begin(), (), cache)], [logits], []
    ended: Hypothesis | None = None
    told = 0
    while True:
        children, stopped = _continuations(live, following, scorer, width)
        ended = max(filter(None, (ended, *stopped)), key=lambda hypothesis: hypothesis.score, default=None)
        is_over = not children or len(children[0].tokens) >= limit
        if is_over or (ended and ended.score >= children[0].score):  # scores only fall
            winner = max(filter(None, (ended, *children[:1])), key=lambda hypothesis: hypothesis.score)
            yield from winner.tokens[told:]
            return
        settled = children[0].tokens[: max(0, len(children[0].tokens) - open_tokens)]
        children = [child for child in children if child.tokens[: len(settled)] == settled]
        ended = ended if ended and ended.tokens[: len(settled)] == settled else None
        agreed = _common_prefix_length([hypothesis.tokens for hypothesis in (*children, *filter(None, (ended,)))])
        yield from children[0].tokens[told:agreed]
        told = agreed
        if is_cancelled():
            return
        _assign_caches(live, children, spare, cache)
        live = children
        following = step([child.tokens[-1] for child in live], [child.cache for child in live])


def _continuations(
    live: Sequence[Hypothesis], following: Sequence[torch.Tensor], scorer: JointScorer, width: int
) -> tuple[list[Hypothesis], list[Hypothesis]]:
    """The `width` best continuations, best first, and those that end the answer and are as good."""
    found = scorer.score_candidates(torch.cat(following), Prefixes.concatenate([parent.text for parent in live]))
    scores = torch.tensor([parent.score for parent in live], dtype=torch.double)[found.parents] + found.scores
    children, stopped, known = [], [], set()
    for place in scores.argsort(descending=True, stable=True).tolist():
        if len(children) == width:
            break
        parent, token = live[found.parents[place]], int(found.tokens[place])
        letters = (*parent.letters, *found.spellings[place])
        ends = token in scorer.stop_ids
        if (letters, ends) in known:
            continue
        known.add((letters, ends))
        if ends and len(known) > width:
            continue
        text, score = found.texts[[place]], float(scores[place])
        child = Hypothesis((*parent.tokens, token), score, text, letters, parent.cache)
        (stopped if ends else children).append(child)
    return children, stopped


def _common_prefix_length(beginnings: Sequence[Sequence[int]]) -> int:
    """How many first tokens all beginnings share."""
    shared = 0
    for column in zip(*beginnings, strict=False):
        if len(set(column)) > 1:
            break
        shared += 1
    return shared


def _assign_caches(
    parents: Sequence[Hypothesis], children: Sequence[Hypothesis], spare: list[KeyValueCache], prompt: KeyValueCache
) -> None:
    """Give each child a cache of its own: its parent's, if nobody else goes on with that, or a copy."""
    heirs = {id(child.cache): child for child in reversed(children) if child.cache is not prompt}
    spare += [parent.cache for parent in parents if parent.cache is not prompt and id(parent.cache) not in heirs]
    for child in children:
        if heirs.get(id(child.cache)) is not child:
            copy = spare.pop() if spare else type(prompt)()
            copy.follow(child.cache, prompt.get_seq_length())
            child.cache = copy
