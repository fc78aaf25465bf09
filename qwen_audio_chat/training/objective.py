"""The model with its losses: what the language model should write, and what each audio frame should say."""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers.utils.generic import ModelOutput

from ..files import atomic_folder
from ..model import QwenAudioConfig, QwenAudioForConditionalGeneration, QwenAudioProcessor
from .alignment import BLANK, AlignmentHead, ctc_loss, save_head
from .collator import IGNORE, Collator
from .manifest import Example


class QwenAudioForTraining(QwenAudioForConditionalGeneration):
    """The model with its losses. Its parameters are those of the plain model, and `alignment_head` where attached."""

    def __init__(self, config: QwenAudioConfig):
        super().__init__(config)
        self.alignment_head: AlignmentHead | None = None
        self.alignment_weight = 0.0

    def attach_alignment(self, head: AlignmentHead, weight: float) -> None:
        """Add the CTC loss of `alignment` with a weight."""
        self.alignment_head, self.alignment_weight = head, weight

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
        feature_lengths: torch.Tensor | None = None,
        alignment_labels: torch.Tensor | None = None,
        ctc_labels: torch.Tensor | None = None,
        **kwargs,
    ) -> ModelOutput:
        """Losses of one batch of `collator.Collator`; without labels, the plain model's forward pass.

        Returns:
            loss, and its parts language_loss and alignment_loss where they were computed.
        """
        if labels is None and alignment_labels is None:
            return super().forward(
                input_ids=input_ids, attention_mask=attention_mask, input_features=input_features,
                feature_lengths=feature_lengths, **kwargs,
            )  # fmt: skip
        clips = []
        if input_features is not None and feature_lengths is not None:
            clips = self.get_audio_features(input_features, feature_lengths)
        losses = {}
        if labels is not None:
            losses["language_loss"] = self._language_loss(input_ids, attention_mask, labels, clips)
        if self.alignment_head is not None and alignment_labels is not None and ctc_labels is not None:
            losses["alignment_loss"] = self.alignment_loss(clips, alignment_labels, ctc_labels)
        loss = losses.get("language_loss", 0.0) + self.alignment_weight * losses.get("alignment_loss", 0.0)
        return ModelOutput(loss=loss, **losses)

    def _language_loss(self, input_ids, attention_mask, labels, clips) -> torch.Tensor:
        """Mean cross-entropy of the next token. The large head runs only where there is something to learn."""
        hidden = self.model(
            inputs_embeds=self.model.embed(input_ids, clips), attention_mask=attention_mask, use_cache=False
        ).last_hidden_state
        targets = labels[:, 1:]
        learned = targets != IGNORE
        logits = self.lm_head(hidden[:, :-1][learned])
        return F.cross_entropy(logits.float(), targets[learned])

    def alignment_loss(
        self, clips: Sequence[torch.Tensor], alignment_labels: torch.Tensor, ctc_labels: torch.Tensor
    ) -> torch.Tensor:
        """Loss per target token of the alignment head, and of the model's `ctc_head` where it has one, a scalar.

        Only English speech has letters, and only there the tokens come in order.

        Args:
            clips: projected frames of each clip, [frames, width].
            alignment_labels, ctc_labels: of each clip, as the collator makes them.
        """
        assert self.alignment_head is not None
        targets, ctc_targets = (
            [row[row != IGNORE].tolist() for row in labels] for labels in (alignment_labels, ctc_labels)
        )
        letters = [[letter for letter in row if letter != BLANK] for row in ctc_targets]
        loss, tokens = clips[0].new_zeros((), dtype=torch.float32), max(1, sum(map(len, targets)))
        if with_tokens := [n for n, row in enumerate(targets) if row]:
            loss = loss + self.alignment_head.loss(
                [clips[n] for n in with_tokens], [targets[n] for n in with_tokens],
                [bool(letters[n]) for n in with_tokens], self._token_embedding(),
            )  # fmt: skip
        with_letters = [n for n, row in enumerate(ctc_targets) if row]  # a lone blank teaches the head to be silent
        if self.ctc_head is not None and with_letters:
            log_probs = [self.ctc_head(clips[n]).float().log_softmax(-1) for n in with_letters]
            loss = loss + ctc_loss(log_probs, [letters[n] for n in with_letters]) / tokens
        return loss

    def _token_embedding(self) -> nn.Embedding:
        table = self.get_input_embeddings()
        assert isinstance(table, nn.Embedding)
        return table

    def save_plain(
        self,
        folder: Path,
        processor: QwenAudioProcessor,
        weights: Mapping[str, Any] | None = None,
        **options,
    ) -> None:
        """Save the model as its plain class, with the alignment head and the processor, all or nothing.

        Args:
            folder: where to.
            processor: the model's.
            weights: the model's state, where that is spread over processes.
            options: for `save_pretrained`.
        """
        weights = weights or self.state_dict()
        state = {name: value for name, value in weights.items() if not name.startswith("alignment_head.")}
        with atomic_folder(folder) as writing:
            self.save_pretrained(writing, state_dict=state, **options)
            self.config.architectures = [QwenAudioForConditionalGeneration.__name__]
            self.config.save_pretrained(writing)
            if self.alignment_head is not None:
                save_head(self.alignment_head, writing)
            processor.save_pretrained(writing)


def fit_alignment_head(
    model: QwenAudioForTraining,
    collate: Collator,
    examples: Sequence[Example],
    seed: int,
    clips: int = 32,
    steps: int = 60,
) -> None:
    """Fit a new alignment head to the frames that a trained model already makes; nothing else changes.

    With a random blank the loss of the shipped pocket is six times as high as with a fitted one.

    Args:
        model: with the new head attached.
        collate: a collator without text.
        examples: examples with targets of the alignment.
        seed: of the clips drawn from them.
        clips: how many clips to fit to.
        steps: optimizer steps.
    """
    assert model.alignment_head is not None
    chosen = random.Random(seed).sample(examples, min(clips, len(examples)))
    batch = collate([(example, 0) for example in chosen])
    with torch.no_grad():
        frames = model.get_audio_features(batch["input_features"], batch["feature_lengths"])
    optimizer = torch.optim.Adam(model.alignment_head.parameters(), lr=0.05)
    for _ in range(steps):
        loss = model.alignment_loss(frames, batch["alignment_labels"], batch["ctc_labels"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
