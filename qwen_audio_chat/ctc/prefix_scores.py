"""Transcription held to what was heard: CTC prefix scores of letters beside the language model's own.

A small language model likes to write what sounds alike and makes sense. Where a model also spells its audio frames
(`config.ctc_alphabet`), each token that it proposes is scored by the probability that the frames spell the text so far with
it, and the sum of both decides, as in joint CTC/attention decoding (Hori, Watanabe and Hershey, ACL 2017).
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import zip_longest

import numpy as np
import torch
from numba import njit
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from .forced_alignment import ctc_classes

_LARGE, _TINY = 1e150, 1e-290  # where numbers are scaled; below the smallest normal ones arithmetic is slow
CANDIDATES = 40  # tokens of the language model that are scored
RANGE = 12.0  # nats below the language model's best, beyond which none is


@dataclass
class Prefixes:
    """Probabilities of `n` texts over `t` frames: each ends at a frame with its last letter, or with a blank.

    Attributes:
        letter, blank: [n, t] float64, relative to the likeliest path up to each frame, and to `scale`.
        last: class of each text's last letter [n], 0 where there is none yet.
        total: log-probability that the frames begin with the text [n].
        scale: logarithm of the unit of the last frame [n].
    """

    letter: torch.Tensor
    blank: torch.Tensor
    last: torch.Tensor
    total: torch.Tensor
    scale: torch.Tensor

    def __getitem__(self, rows) -> "Prefixes":
        return Prefixes(*(tensor[rows] for tensor in vars(self).values()))

    @classmethod
    def concatenate(cls, several: Sequence["Prefixes"]) -> "Prefixes":
        """The texts of all."""
        return cls(*map(torch.cat, zip(*(vars(each).values() for each in several), strict=True)))

    def whole(self) -> torch.Tensor:
        """Log-probability that the frames spell exactly the text [n]."""
        return (self.letter[:, -1] + self.blank[:, -1]).clamp(min=_TINY).log() + self.scale


class CTCPrefixScorer:
    """Scores of texts against the letters of one audio.

    Args:
        log_probs: of each frame, [frames, classes], blank first.
        single: class of a letter that isn't added after itself.
    """

    def __init__(self, log_probs: torch.Tensor, single: int = 0):
        log_probs = log_probs.double().cpu()
        best = log_probs.amax(-1, keepdim=True)
        self.odds, self.units = (log_probs - best).exp().contiguous(), best[:, 0].exp()
        self.single = single

    def empty(self) -> Prefixes:
        """The text without letters."""
        blank, scale = self.odds[:, 0].cumprod(0)[None], self.units.log().sum()[None]
        last, total = torch.zeros(1, dtype=torch.long), torch.zeros(1, dtype=torch.double)
        return Prefixes(torch.zeros_like(blank), blank, last, total, scale)

    def extend(self, texts: Prefixes, spellings: Sequence[Sequence[int]]) -> None:
        """Add letters, given as their classes, to each of the texts, in place."""
        padded = list(zip_longest(*spellings, fillvalue=0))
        letters = np.array(padded, dtype=np.int64).reshape(-1, len(spellings)).T.copy()
        changed = (tensor.numpy() for tensor in vars(texts).values())
        _extend(self.odds.numpy(), self.units.numpy(), *changed, letters, self.single)


@njit(nogil=True, error_model="numpy", cache=True)
def _extend(odds, units, letter, blank, last, total, scale, letters, single):
    """The recursions of CTC prefix probabilities (Graves, 2008, section 7.5), frame by frame.

    Sums of logarithms cost ten times as much as products, so probabilities are relative to the likeliest path's; only
    the sum over frames, whose units differ, is scaled on the way. A text beyond all doubt wrong ends up with zeros.
    """
    for n in range(len(letters)):
        for place in letters[n]:
            if place == 0:  # the others have more letters
                break
            if place == last[n] == single:
                continue
            is_double = place == last[n]  # a letter after itself needs a blank between
            before_letter, before_blank = 0.0, 1.0 if last[n] == 0 else 0.0
            now_letter = now_blank = begun = peak = 0.0
            unit, moves = 1.0, 0
            for t in range(len(odds)):
                fresh = before_blank if is_double else before_blank + before_letter
                begun = begun / units[t] + fresh * odds[t, place] * unit
                if begun > _LARGE:
                    begun, unit, moves = begun / _LARGE, unit / _LARGE, moves + 1
                now_blank = (now_blank + now_letter) * odds[t, 0]
                now_letter = (now_letter + fresh) * odds[t, place]
                now_blank = now_blank if now_blank > _TINY else 0.0
                now_letter = now_letter if now_letter > _TINY else 0.0
                before_letter, before_blank = letter[n, t], blank[n, t]
                letter[n, t], blank[n, t] = now_letter, now_blank
                peak = max(peak, now_letter, now_blank)
            last[n] = place
            total[n] = math.log(max(begun, _TINY)) + moves * math.log(_LARGE) + scale[n]
            if 0 < peak < 1 / _LARGE:
                for t in range(len(odds)):
                    letter[n, t] /= peak
                    blank[n, t] /= peak
                scale[n] += math.log(peak)


@dataclass
class Candidates:
    """Ways to go on with texts by one token.

    Attributes:
        parents: which of the texts each goes on with [n].
        tokens: ids [n].
        scores: log-probability of each by language model and letters [n].
        spellings: classes of the letters of each, none where it ends the answer.
        texts: the texts with each of them.
    """

    parents: torch.Tensor
    tokens: torch.Tensor
    scores: torch.Tensor
    spellings: list[list[int]]
    texts: Prefixes


class JointScorer:
    """Says how well tokens agree with what an audio spells.

    Args:
        tokenizer: the model's.
        letters: the alphabet, `config.ctc_alphabet`.
        log_probs: of the audio's letters, [frames, classes].
        stop_ids: tokens that end an answer.
        said: what the answer holds already, where it is gone on with.
        weight: of the letters' score beside the language model's; 0.4 to 1 did about equally well on unheard voices.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        letters: str,
        log_probs: torch.Tensor,
        stop_ids: Collection[int],
        said: str = "",
        weight: float = 0.5,
    ):
        self._tokenizer, self._letters, self._weight = tokenizer, letters, weight
        self._said = ctc_classes(said, letters)
        self.stop_ids = set(stop_ids)
        spelled = [tokenizer.encode(part + letter) for part in ("", " ") for letter in letters.strip()]
        # Whatever the language model proposes: an answer can end, and a word that it doesn't expect can be spelled.
        self._always = torch.tensor([*self.stop_ids, *(ids[0] for ids in spelled if len(ids) == 1)])
        self._spelling = cache(self._spelling)
        self._space = 1 + letters.find(" ")
        self._scorer = CTCPrefixScorer(log_probs, single=self._space)

    def begin(self) -> Prefixes:
        """The text before the first token: a space, with which the alignment begins every word, and what is said."""
        text = self._scorer.empty()
        self._scorer.extend(text, [[self._space, *self._said]])
        return text

    def score_candidates(self, logits: torch.Tensor, texts: Prefixes) -> Candidates:
        """The tokens that the language model, by its `logits` [texts, vocabulary], and the audio can go on with.

        What is silent isn't among them: it can't be held to the sound, and a small model would run in circles there.
        """
        own = logits.float().cpu().log_softmax(-1)
        parents, ids = [], []
        for row, (best, tokens) in enumerate(zip(*own.topk(CANDIDATES), strict=True)):
            tokens = torch.cat((tokens[best > best[0] - RANGE], self._always)).unique().tolist()
            ids += [token for token in tokens if self._spelling(token) is not None]
            parents += [row] * (len(ids) - len(parents))
        spellings = [self._spelling(token) for token in ids]
        extended = texts[parents]
        ends = torch.tensor([token in self.stop_ids for token in ids])
        whole, before = extended.whole(), extended.total.clone()
        self._scorer.extend(extended, spellings)
        heard = torch.where(ends, whole, extended.total) - before
        scores = own[parents, ids] + self._weight * heard
        return Candidates(torch.tensor(parents), torch.tensor(ids), scores, spellings, extended)

    def _spelling(self, token: int) -> list[int] | None:
        """Classes of a token's letters, none where it ends an answer; None if it can't be part of a transcript."""
        if token in self.stop_ids:
            return []
        text = self._tokenizer.decode([token]).lower()
        spoken = any(map(str.isalpha, text)) and all(char in self._letters for char in text)
        return ctc_classes(text, self._letters) if spoken else None


@torch.inference_mode()
def ctc_log_probs(model: PreTrainedModel, frames: torch.Tensor) -> torch.Tensor:
    """Log-probabilities of the letters, [frames, 1 + letters] with the blank first, of `frames` [frames, hidden_size].

    The model has a `ctc_head`.
    """
    return model.ctc_head(frames.to(model.ctc_head.weight)).float().log_softmax(-1)


def joint_scorer_for(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    frames: torch.Tensor,
    stop_ids: Collection[int],
    said: str = "",
) -> JointScorer | None:
    """The scorer by what the model spells in the embeddings of an audio, [tokens, hidden_size], to go on after `said`.

    None where it spells hardly a letter: in noise or music, of which the language model says so.
    """
    log_probs = ctc_log_probs(model, frames)
    best = torch.unique_consecutive(log_probs.argmax(-1))
    if int((best > 0).sum()) < 2:
        return None
    return JointScorer(tokenizer, model.config.ctc_alphabet, log_probs, stop_ids, said)
