"""The losses: what the language model should say, and what each audio frame stands for."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch.nn import functional as F
from transformers.utils import ModelOutput

from ..files import atomic_folder
from ..model import QwenAudioConfig, QwenAudioForConditionalGeneration, QwenAudioProcessor
from .alignment import BLANK, AlignmentHead, ctc_loss, save_head
from .collator import IGNORE


class QwenAudioForTraining(QwenAudioForConditionalGeneration):
    """The model with its losses. The parameters are those of the plain model, plus `alignment_head` where attached."""

    def __init__(self, config: QwenAudioConfig):
        super().__init__(config)
        self.alignment_head: AlignmentHead | None = None
        self.alignment_weight = 0.0

    def attach_alignment(self, head: AlignmentHead, weight: float) -> None:
        """Add the CTC loss of `alignment` with a weight."""
        self.alignment_head, self.alignment_weight = head, weight

    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        labels: torch.LongTensor | None = None,
        input_features: torch.Tensor | None = None,
        feature_lengths: torch.LongTensor | None = None,
        alignment_labels: torch.LongTensor | None = None,
        ctc_labels: torch.LongTensor | None = None,
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
        clips = [] if input_features is None else self.get_audio_features(input_features, feature_lengths)
        losses = {}
        if labels is not None:
            losses["language_loss"] = self._language_loss(input_ids, attention_mask, labels, clips)
        if self.alignment_head is not None and alignment_labels is not None:
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
        """What the clips say, or are named, per token; with what they spell, where the model does.

        Only speech spells, and only its tokens come in order.
        """
        targets, spellings = (
            [row[row != IGNORE].tolist() for row in labels] for labels in (alignment_labels, ctc_labels)
        )
        letters = [[letter for letter in row if letter != BLANK] for row in spellings]
        loss, tokens = clips[0].new_zeros((), dtype=torch.float32), max(1, sum(map(len, targets)))
        if named := [n for n, row in enumerate(targets) if row]:
            loss = loss + self.alignment_head.loss(
                [clips[n] for n in named], [targets[n] for n in named], [bool(letters[n]) for n in named],
                self.get_input_embeddings(),
            )  # fmt: skip
        spelled = [n for n, row in enumerate(spellings) if row]
        if self.ctc_head is not None and spelled:
            log_probs = [self.ctc_head(clips[n]).float().log_softmax(-1) for n in spelled]
            loss = loss + ctc_loss(log_probs, [letters[n] for n in spelled]) / tokens
        return loss

    def save_plain(
        self,
        folder: Path,
        processor: QwenAudioProcessor,
        weights: dict[str, torch.Tensor] | None = None,
        **options,
    ) -> None:
        """Save the model as its plain class, the alignment head and the processor beside it, all or nothing.

        Args:
            weights: its state, where that is spread over processes.
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
