"""Where the losses look in a padded batch, found on the CPU by the workers.

Finding such places on a GPU (by a boolean mask, `nonzero` or `tolist`) would wait for all that it still has to compute.
Lengths stay Python integers, which the CTC loss needs on the CPU.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from itertools import chain
from typing import Self

import torch


@dataclass(frozen=True)
class TensorFields:
    """A dataclass whose tensors move together, as batches are moved by accelerate and pinned by a `DataLoader`."""

    def to(self, *args, **kwargs) -> Self:
        return self._map(lambda value: value.to(*args, **kwargs))

    def pin_memory(self) -> Self:
        return self._map(lambda value: value.pin_memory())

    def _map(self, function: Callable) -> Self:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        changed = {
            name: function(value) for name, value in values.items() if isinstance(value, torch.Tensor | TensorFields)
        }
        return replace(self, **changed)


@dataclass(frozen=True)
class PaddedClips(TensorFields):
    """The layout of clips' frames in a table with a row for each clip.

    Attributes:
        cells: the place of each frame in the flattened table, [all frames].
        lengths: frames of each clip.
    """

    cells: torch.Tensor
    lengths: list[int]

    @classmethod
    def of(cls, lengths: Sequence[int]) -> Self:
        return cls(valid_cells(lengths, max(lengths)), list(lengths))

    def pad(self, values: torch.Tensor, fill: float) -> torch.Tensor:
        """[all frames, classes] → [clips, longest, classes], with `fill` beyond each clip's length."""
        clips, longest, classes = len(self.lengths), max(self.lengths), values.shape[-1]
        table = values.new_full((clips * longest, classes), fill).index_copy(0, self.cells, values)
        return table.view(clips, longest, classes)


@dataclass(frozen=True)
class CtcTargets(TensorFields):
    """What the frames of some clips should say in order: `classes`, one clip after the other, [sum of `lengths`]."""

    clips: PaddedClips
    classes: torch.Tensor
    lengths: list[int]

    @classmethod
    def of(cls, frames: Sequence[int], targets: Sequence[Sequence[int]]) -> Self:
        """Of clips of so many `frames` each."""
        classes = torch.tensor([*chain.from_iterable(targets)], dtype=torch.long)
        return cls(PaddedClips.of(frames), classes, [len(row) for row in targets])


@dataclass(frozen=True)
class NameTargets(TensorFields):
    """What the frames of some clips should say in any order: pairs of a clip and one of its classes.

    Attributes:
        rows, classes, frames: the clip of each pair, its class, and the clip's length, [pairs].
    """

    clips: PaddedClips
    rows: torch.Tensor
    classes: torch.Tensor
    frames: torch.Tensor

    @classmethod
    def of(cls, frames: Sequence[int], targets: Sequence[Sequence[int]]) -> Self:
        """Of clips of so many `frames` each; repeated classes of a clip count once."""
        pairs = [(n, label, frames[n]) for n, row in enumerate(targets) for label in sorted(set(row))]
        return cls(PaddedClips.of(frames), *torch.tensor(pairs, dtype=torch.long).view(-1, 3).T.contiguous())


@dataclass(frozen=True)
class AlignmentTargets(TensorFields):
    """What frames should say by the alignment head: first those of clips with transcripts, then those of named clips.

    Attributes:
        tokens: all token ids of the targets, sorted, [n]; class 1 is the first of them, class 0 the blank.
        transcripts, names: the targets as classes; None where no clip has such.
    """

    tokens: torch.Tensor
    transcripts: CtcTargets | None
    names: NameTargets | None

    @classmethod
    def of(cls, transcripts: Sequence[tuple[int, Sequence[int]]], names: Sequence[tuple[int, Sequence[int]]]) -> Self:
        """Of clips, each with its frames and its target in token ids."""
        tokens = sorted({token for _, target in (*transcripts, *names) for token in target})
        classes = {token: place for place, token in enumerate(tokens, start=1)}

        def targets(make: Callable, clips: Sequence[tuple[int, Sequence[int]]]):
            rows = [[classes[token] for token in target] for _, target in clips]
            return make([frames for frames, _ in clips], rows) if clips else None

        return cls(torch.tensor(tokens), targets(CtcTargets.of, transcripts), targets(NameTargets.of, names))


@dataclass(frozen=True)
class TextIndices(TensorFields):
    """Places in rows of ids, padded on the right and flattened to [rows * length].

    Attributes:
        row_lengths: tokens of each row, [rows].
        placeholders: the audio placeholders, [frames].
        audio_frames: the place of each one's frame in the encoder's flattened output, [frames].
        predicting: the positions whose next token is learned, [n].
        targets: those tokens, [n].
    """

    row_lengths: torch.Tensor
    placeholders: torch.Tensor
    audio_frames: torch.Tensor
    predicting: torch.Tensor
    targets: torch.Tensor


@dataclass(frozen=True)
class LossIndices(TensorFields):
    """All indices of a batch. Frames are places in the encoder's output, flattened to [clips * frames of the longest].

    Attributes:
        text: of the language model's loss; None without text.
        alignment_frames, alignment: of the alignment head; None where no clip has a target in tokens.
        ctc_frames, ctc: of the model's `ctc_head`; None where no clip has a target in letters.
        target_tokens: of all clips, at least 1.
    """

    text: TextIndices | None = None
    alignment_frames: torch.Tensor | None = None
    alignment: AlignmentTargets | None = None
    ctc_frames: torch.Tensor | None = None
    ctc: CtcTargets | None = None
    target_tokens: int = 1


def valid_cells(lengths: Sequence[int], width: int, rows: Sequence[int] | None = None) -> torch.Tensor:
    """Places of the first `lengths[i]` cells of row `rows[i]` (by default row i) in a flattened table of this width."""
    rows = range(len(lengths)) if rows is None else rows
    places = [torch.arange(count) + row * width for row, count in zip(rows, lengths, strict=True)]
    return torch.cat([torch.empty(0, dtype=torch.long), *places])
