"""From examples to model inputs with labels: which tokens are learned, and the randomness of training data."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from ..audio.audio import Audio
from ..audio.decoding import AudioError
from ..audio.features import num_mel_tokens
from ..data.lines import DataError
from ..model import QwenAudioProcessor
from ..model.encoder import conv_frames
from ..prompts.chatml import encode_audio, encode_conversation, encode_text, encode_timed_words
from ..prompts.tokenizer import AUDIO_PLACEHOLDER, END_OF_TEXT
from .alignment import BLANK, ctc_head_targets
from .alignment_targets import alignment_target
from .loss_indices import AlignmentTargets, CtcTargets, LossIndices, TextIndices, valid_cells
from .manifest import Clip, Dialogue, Example

IGNORE = -100
Augment = Callable[[np.ndarray, np.random.Generator], np.ndarray]


class Visits(Dataset):
    """Every visit to every example: visit `n` is to example `n % len(examples)`, with random numbers of its own.

    What an example looks like in an epoch depends only on the visit: not on workers, processes or interruptions.
    """

    def __init__(self, examples: Sequence[Example], epochs: int = 1):
        self.examples = examples
        self.epochs = epochs

    def __len__(self) -> int:
        return len(self.examples) * self.epochs

    def __getitem__(self, visit: int) -> tuple[Example, int]:
        return self.examples[visit % len(self.examples)], visit


@dataclass
class Row:
    """One example, encoded.

    Attributes:
        input_ids, labels: of the same length.
        clips: log-mel of each piece of its audios, [mel bins, frames].
        alignment_labels, ctc_labels: the alignment's targets for each clip, in tokens and in letters (see
            `alignment_targets`); empty where it learns nothing, `[BLANK]` where it learns to spell nothing.
    """

    input_ids: list[int]
    labels: list[int]
    clips: list[torch.Tensor]
    alignment_labels: list[list[int]] = field(default_factory=list)
    ctc_labels: list[list[int]] = field(default_factory=list)


@dataclass
class Collator:
    """Makes one batch of examples of `Visits`.

    Of a dialogue, only what the assistant says is learned, up to and including its `<|im_end|>`; of a tagged clip, what
    follows the tags, up to and including `<|endoftext|>`.

    Args:
        processor: the model's.
        seed: of everything random.
        augment: changes a waveform, float32 [samples]; None for evaluation.
        augment_probability: of a clip to be changed.
        mask_features: SpecAugment (Park et al., 2019): two bands of up to 15 mel bins, and a stretch of up to 160 ms
            for each second.
        corruption: highest share of the assistant's tokens that are replaced by random ones in the input. The labels
            stay, so that the model learns to use the audio instead of guessing from its own last words.
        text: encode ids and labels; the stage "align" needs only clips and their alignment targets.
    """

    processor: QwenAudioProcessor
    seed: int = 0
    augment: Augment | None = None
    augment_probability: float = 0.7
    mask_features: bool = False
    corruption: float = 0.0
    text: bool = True

    def __call__(self, visits: Sequence[tuple[Example, int]]) -> dict[str, torch.Tensor]:
        """Batch of input_ids, attention_mask and labels [rows, length], padded left; input_features [clips, mel bins,
        frames] and feature_lengths [clips]; alignment_labels [clips, tokens] and ctc_labels [clips, letters], padded
        with -100."""
        rows = [self._row(example, np.random.default_rng((self.seed, visit))) for example, visit in visits]
        inputs = dict(self.processor.collate([row.input_ids for row in rows], [c for row in rows for c in row.clips]))
        if self.text:
            length = inputs["input_ids"].shape[1]
            inputs["labels"] = torch.tensor([[IGNORE] * (length - len(row.labels)) + row.labels for row in rows])
        else:
            del inputs["input_ids"], inputs["attention_mask"]
        if any(len(ids) for row in rows for ids in (*row.alignment_labels, *row.ctc_labels)):
            inputs["alignment_labels"] = _padded([ids for row in rows for ids in row.alignment_labels])
            inputs["ctc_labels"] = _padded([ids for row in rows for ids in row.ctc_labels])
        return inputs

    def _row(self, example: Example, rng: np.random.Generator) -> Row:
        pieces = [self._clips(example, path, rng) for path in example.audios]
        clips = [clip for group in pieces for clip in group]
        counts = [[num_mel_tokens(clip) for clip in group] for group in pieces]
        alignment_labels, ctc_labels = ([[] for _ in clips] for _ in range(2))
        if (target := alignment_target(example)) and len(clips) == 1:
            alignment_labels = [target.tokens(self.processor.tokenizer)]
            ctc_labels = [[] if target.ctc_text is None else ctc_head_targets(target.ctc_text) or [BLANK]]
        if not self.text:
            return Row([], [], clips, alignment_labels, ctc_labels)
        ids, labels = (
            self.encode_clip(example, counts) if isinstance(example, Clip) else self.encode_dialogue(example, counts)
        )
        return Row(self._corrupted(ids, labels, rng), labels, clips, alignment_labels, ctc_labels)

    def _clips(self, example: Example, path: Path, rng: np.random.Generator) -> list[torch.Tensor]:
        """Log-mel [mel bins, frames] of each piece of an audio, augmented at random."""
        try:
            audio = Audio.load(path)
        except AudioError as error:
            raise DataError("{origin}: {reason}", origin=example.origin, reason=error) from error
        if self.augment is not None and rng.random() < self.augment_probability:
            audio = Audio(self.augment(audio.waveform, rng))
        clips = [piece.log_mel(self.processor.num_mel_bins) for piece in audio.pieces()]
        return [mask_features(clip, rng) for clip in clips] if self.mask_features else clips

    def encode_clip(self, example: Clip, counts: Sequence[Sequence[int]]) -> tuple[list[int], list[int]]:
        """Ids and labels of a tagged clip; `counts` holds the audio tokens of each piece of its audio."""
        tokenizer = self.processor.tokenizer
        prompt = [i for count in counts[0] for i in encode_audio(tokenizer, count)]
        prompt += self.processor.encode_prompt(example.prompt)
        if example.prompt.timestamps:
            answer = encode_timed_words(tokenizer, example.words)
        elif example.prompt.instruction == "note_analysis":  # written in tags; any other answer is plain text
            answer = tokenizer(example.text, add_special_tokens=False).input_ids
        else:
            answer = encode_text(tokenizer, example.text)
        answer = [*answer, tokenizer.convert_tokens_to_ids(END_OF_TEXT)]
        return prompt + answer, [IGNORE] * len(prompt) + answer

    def encode_dialogue(self, example: Dialogue, counts: Sequence[Sequence[int]]) -> tuple[list[int], list[int]]:
        """Ids and labels of a conversation; `counts` holds the audio tokens of each piece of each audio."""
        chat = encode_conversation(self.processor.tokenizer, example.messages, counts, add_generation_prompt=False)
        labels = [i if learned else IGNORE for i, learned in zip(chat.input_ids, chat.assistant_mask, strict=True)]
        return chat.input_ids, labels

    @cached_property
    def _control_ids(self) -> frozenset[int]:
        """Ids that are never replaced; asking the tokenizer takes as long as half an example."""
        tokenizer = self.processor.tokenizer
        return frozenset(tokenizer.all_special_ids) | frozenset(tokenizer.added_tokens_decoder)

    def _corrupted(self, ids: list[int], labels: list[int], rng: np.random.Generator) -> list[int]:
        if not self.corruption:
            return ids
        control = self._control_ids
        rate, size = rng.uniform(0, self.corruption), self.processor.tokenizer.vocab_size
        return [
            int(rng.integers(size)) if label != IGNORE and i not in control and rng.random() < rate else i
            for i, label in zip(ids, labels, strict=True)
        ]


class TrainingCollator(Collator):
    """Makes batches for `QwenAudioForTraining`: padded on the right, with all places where the losses look."""

    def __call__(self, visits: Sequence[tuple[Example, int]]) -> dict[str, Any]:
        """Batch of input_ids [rows, length] where there is text, input_features and feature_lengths as in `Collator`
        where there are clips, and indices: `LossIndices`."""
        plain = super().__call__(visits)
        batch: dict[str, Any] = {name: plain[name] for name in ("input_features", "feature_lengths") if name in plain}
        frames, width = [], 0  # what the encoder makes of each clip, and of the padded length
        if batch:
            frames = (conv_frames(batch["feature_lengths"]) // 2).tolist()
            width = int(conv_frames(torch.tensor(batch["input_features"].shape[-1]))) // 2
        text = None
        if self.text:
            kept = plain["attention_mask"].bool()
            tokenizer: Any = self.processor.tokenizer
            batch["input_ids"] = ids = _padded(_rows(plain["input_ids"], kept), tokenizer.pad_token_id)
            labels = _padded(_rows(plain["labels"], kept))
            is_placeholder = ids.eq(tokenizer.convert_tokens_to_ids(AUDIO_PLACEHOLDER))
            next_labels = torch.nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORE).flatten()
            predicting = (next_labels != IGNORE).nonzero()[:, 0]
            text = TextIndices(
                row_lengths=kept.sum(1),
                placeholders=is_placeholder.flatten().nonzero()[:, 0],
                audio_frames=valid_cells(frames, width),
                predicting=predicting,
                targets=next_labels[predicting],
            )
        batch["indices"] = LossIndices(text=text)
        if "alignment_labels" in plain:
            batch["indices"] = _with_alignment(
                batch["indices"], frames, width,
                *([row[row != IGNORE].tolist() for row in plain[name]] for name in ("alignment_labels", "ctc_labels")),
            )  # fmt: skip
        return batch


def _with_alignment(
    indices: LossIndices, frames: list[int], width: int, targets: list[list[int]], letters: list[list[int]]
) -> LossIndices:
    """Add the alignment's indices; `frames`, `targets` and `letters` are those of each clip."""
    spelled = [[letter for letter in row if letter != BLANK] for row in letters]
    transcribed = [n for n, target in enumerate(targets) if target and spelled[n]]
    named = [n for n, target in enumerate(targets) if target and not spelled[n]]
    with_letters = [n for n, row in enumerate(letters) if row]  # a lone blank teaches the head to be silent
    changes: dict[str, Any] = {"target_tokens": max(1, sum(map(len, targets)))}
    if aligned := transcribed + named:
        changes["alignment_frames"] = valid_cells([frames[n] for n in aligned], width, aligned)
        groups = ([(frames[n], targets[n]) for n in group] for group in (transcribed, named))
        changes["alignment"] = AlignmentTargets.of(*groups)
    if with_letters:
        counts = [frames[n] for n in with_letters]
        changes["ctc_frames"] = valid_cells(counts, width, with_letters)
        changes["ctc"] = CtcTargets.of(counts, [spelled[n] for n in with_letters])
    return replace(indices, **changes)


def _rows(padded: torch.Tensor, kept: torch.Tensor) -> list[torch.Tensor]:
    return [row[keep] for row, keep in zip(padded, kept, strict=True)]


def _padded(rows: Sequence[Sequence[int] | torch.Tensor], value: int = IGNORE) -> torch.Tensor:
    tensors = [torch.as_tensor(row, dtype=torch.long) for row in rows]
    return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=value)


def mask_features(clip: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """SpecAugment on one log-mel clip [mel bins, frames]; what is masked gets the clip's mean."""
    clip, fill = clip.clone(), clip.mean()
    bins, frames = clip.shape
    for _ in range(2):
        width = int(rng.integers(0, 16))
        start = int(rng.integers(0, bins - width))
        clip[start : start + width] = fill
    for _ in range(max(1, frames // 100)):
        width = int(rng.integers(0, min(16, frames)))
        start = int(rng.integers(0, frames - width))
        clip[:, start : start + width] = fill
    return clip
