"""Beam search for a transcript: several hypotheses side by side; tokens are emitted once all hypotheses agree.

Greedy decoding can't take back a word that later words contradict. Here a hypothesis that is about as likely is kept
until the sound decides (see `joint_scorer`).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from ..engine.cache import KeyValueCache
from .joint_scorer import JointScorer
from .prefix_scores import Prefixes

BEAM_WIDTH = 4  # hypotheses; each costs a decoding step per token
MAX_UNSETTLED_TOKENS = 4  # last tokens in which hypotheses may differ: bounds how long a word is held back


@dataclass
class Hypothesis:
    """A possible beginning of the answer.

    Attributes:
        tokens: so far.
        score: joint log-probability of the tokens.
        text: its state in the scorer.
        spelling: CTC classes of its characters; hypotheses that differ only in tokens or capitals are the same.
        cache: keys and values of the prompt and all tokens but the last.
    """

    tokens: tuple[int, ...]
    score: float
    text: Prefixes
    spelling: tuple[int, ...]
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
    max_unsettled: int = MAX_UNSETTLED_TOKENS,
) -> Iterator[int]:
    """Tokens of the most likely answer, each as soon as all hypotheses agree on it; a cancel ends them.

    Args:
        step: feeds a token to each of several caches; returns the next logits [1, vocabulary] of each.
        logits: [1, vocabulary] after the prompt.
        cache: of the prompt; it is not changed.
        limit: most tokens of an answer.
        width: how many hypotheses.
        max_unsettled: how many of the last tokens may differ from the best hypothesis's.
    """
    live, following, spare = [Hypothesis((), 0.0, scorer.begin(), (), cache)], [logits], []
    ended: Hypothesis | None = None
    emitted = 0
    while True:
        children, stopped = _continuations(live, following, scorer, width)
        ended = max(filter(None, (ended, *stopped)), key=lambda hypothesis: hypothesis.score, default=None)
        is_over = not children or len(children[0].tokens) >= limit
        if is_over or (ended and ended.score >= children[0].score):  # scores only fall
            winner = max(filter(None, (ended, *children[:1])), key=lambda hypothesis: hypothesis.score)
            yield from winner.tokens[emitted:]
            return
        settled = children[0].tokens[: max(0, len(children[0].tokens) - max_unsettled)]
        children = [child for child in children if child.tokens[: len(settled)] == settled]
        ended = ended if ended and ended.tokens[: len(settled)] == settled else None
        agreed = _common_prefix_length([hypothesis.tokens for hypothesis in (*children, *filter(None, (ended,)))])
        yield from children[0].tokens[emitted:agreed]
        emitted = agreed
        if is_cancelled():
            return
        _assign_caches(live, children, spare, cache)
        live = children
        following = step([child.tokens[-1] for child in live], [child.cache for child in live])


def _continuations(
    live: Sequence[Hypothesis], following: Sequence[torch.Tensor], scorer: JointScorer, width: int
) -> tuple[list[Hypothesis], list[Hypothesis]]:
    """The `width` best continuations, best first, and those among the best that end the answer."""
    found = scorer.score_candidates(torch.cat(list(following)), Prefixes.concatenate([parent.text for parent in live]))
    scores = torch.tensor([parent.score for parent in live], dtype=torch.double)[found.parents] + found.scores
    children, stopped, known = [], [], set()
    for place in scores.argsort(descending=True, stable=True).tolist():
        if len(children) == width:
            break
        parent, token = live[int(found.parents[place])], int(found.tokens[place])
        spelling = (*parent.spelling, *found.spellings[place])
        ends = token in scorer.stop_ids
        if (spelling, ends) in known:
            continue
        known.add((spelling, ends))
        if ends and len(known) > width:
            continue
        text, score = found.texts[[place]], float(scores[place])
        child = Hypothesis((*parent.tokens, token), score, text, spelling, parent.cache)
        (stopped if ends else children).append(child)
    return children, stopped


def _common_prefix_length(beginnings: Sequence[Sequence[int]]) -> int:
    """How many tokens all beginnings share."""
    shared = 0
    for column in zip(*beginnings, strict=False):
        if len(set(column)) > 1:
            break
        shared += 1
    return shared


def _assign_caches(
    parents: Sequence[Hypothesis], children: Sequence[Hypothesis], spare: list[KeyValueCache], prompt: KeyValueCache
) -> None:
    """Give each child a cache of its own: its parent's, where no sibling has taken it, or a copy."""
    heirs = {id(child.cache): child for child in reversed(children) if child.cache is not prompt}
    spare += [parent.cache for parent in parents if parent.cache is not prompt and id(parent.cache) not in heirs]
    for child in children:
        if heirs.get(id(child.cache)) is not child:
            copy = spare.pop() if spare else type(prompt)()
            copy.copy_from(child.cache, prompt.get_seq_length())
            child.cache = copy
