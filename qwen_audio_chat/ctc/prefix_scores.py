"""CTC prefix scores: how probable it is that the audio frames begin with a text, or say exactly it.

The frames' probabilities come from the model's CTC head, whose classes are the characters of `config.ctc_alphabet`
after a blank. The recursions are those of Graves (2008), section 7.5.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
import torch
from numba import njit

_RESCALE_ABOVE, _SMALLEST = 1e150, 1e-290  # bounds of the products; arithmetic on subnormal numbers is slow


@dataclass
class Prefixes:
    """Probabilities of `n` texts over `t` frames: each ends at a frame with its last character, or with a blank.

    Attributes:
        character, blank: [n, t] float64, relative to the likeliest path up to each frame, and to `scale`.
        last: class of each text's last character [n], 0 for an empty text.
        total: log-probability that the frames begin with the text [n].
        scale: logarithm of the unit of the last frame [n].
    """

    character: torch.Tensor
    blank: torch.Tensor
    last: torch.Tensor
    total: torch.Tensor
    scale: torch.Tensor

    def __getitem__(self, rows) -> "Prefixes":
        return Prefixes(*(tensor[rows] for tensor in vars(self).values()))

    @classmethod
    def concatenate(cls, several: Sequence["Prefixes"]) -> "Prefixes":
        """All their texts in one."""
        return cls(*map(torch.cat, zip(*(vars(each).values() for each in several), strict=True)))

    def complete(self) -> torch.Tensor:
        """Log-probability that the frames say exactly the text [n]."""
        return (self.character[:, -1] + self.blank[:, -1]).clamp(min=_SMALLEST).log() + self.scale


class CTCPrefixScorer:
    """Scores of texts against the CTC output of one audio.

    Args:
        log_probs: of each frame, [frames, classes], blank first.
        single: class of a character that isn't added after itself (the space).
    """

    def __init__(self, log_probs: torch.Tensor, single: int = 0):
        log_probs = log_probs.cpu().double()  # in this order: an Apple GPU has no float64
        best = log_probs.amax(-1, keepdim=True)
        self.odds, self.units = (log_probs - best).exp().contiguous(), best[:, 0].exp()
        self.single = single

    def empty(self) -> Prefixes:
        """The empty text."""
        blank, scale = self.odds[:, 0].cumprod(0)[None], self.units.log().sum()[None]
        last, total = torch.zeros(1, dtype=torch.long), torch.zeros(1, dtype=torch.double)
        return Prefixes(torch.zeros_like(blank), blank, last, total, scale)

    def extend(self, texts: Prefixes, spellings: Sequence[Sequence[int]]) -> None:
        """Add characters, given as their classes, to each of the texts, in place."""
        padded = list(zip_longest(*spellings, fillvalue=0))
        characters = np.array(padded, dtype=np.int64).reshape(-1, len(spellings)).T.copy()
        odds, units = self.odds.numpy(), self.units.numpy()
        character, blank, last, total, scale = (tensor.numpy() for tensor in vars(texts).values())
        _extend(odds, units, character, blank, last, total, scale, characters, self.single)


@njit(nogil=True, error_model="numpy", cache=True)
def _extend(odds, units, character, blank, last, total, scale, characters, single):
    """The recursions of CTC prefix probabilities (Graves, 2008, section 7.5), frame by frame.

    Sums of logarithms cost ten times as much as products, so probabilities are kept relative to the best path's; only
    the sum over frames, whose units differ, is scaled on the way. A text that is certainly wrong ends up with zeros.
    """
    for n in range(len(characters)):
        for place in characters[n]:
            if place == 0:  # only other texts get more characters
                break
            if place == last[n] == single:
                continue
            is_double = place == last[n]  # a character after itself needs a blank in between
            before_character, before_blank = 0.0, 1.0 if last[n] == 0 else 0.0
            now_character = now_blank = begun = peak = 0.0
            unit, moves = 1.0, 0
            for t in range(len(odds)):
                fresh = before_blank if is_double else before_blank + before_character
                begun = begun / units[t] + fresh * odds[t, place] * unit
                if begun > _RESCALE_ABOVE:
                    begun, unit, moves = begun / _RESCALE_ABOVE, unit / _RESCALE_ABOVE, moves + 1
                now_blank = (now_blank + now_character) * odds[t, 0]
                now_character = (now_character + fresh) * odds[t, place]
                now_blank = now_blank if now_blank > _SMALLEST else 0.0
                now_character = now_character if now_character > _SMALLEST else 0.0
                before_character, before_blank = character[n, t], blank[n, t]
                character[n, t], blank[n, t] = now_character, now_blank
                peak = max(peak, now_character, now_blank)
            last[n] = place
            total[n] = math.log(max(begun, _SMALLEST)) + moves * math.log(_RESCALE_ABOVE) + scale[n]
            if 0 < peak < 1 / _RESCALE_ABOVE:
                for t in range(len(odds)):
                    character[n, t] /= peak
                    blank[n, t] /= peak
                scale[n] += math.log(peak)
