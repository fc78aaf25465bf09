"""The model with its losses: what the language model should write, and what each audio frame should say."""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers.utils.generic import ModelOutput

from ..errors import UserError
from ..files import atomic_folder
from ..model import QwenAudioConfig, QwenAudioForConditionalGeneration, QwenAudioProcessor
from ..model.decoder import ntk_alpha
from .alignment import AlignmentHead, ctc_loss, save_head
from .collator import TrainingCollator
from .loss_indices import LossIndices, TextIndices
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
        input_features: torch.Tensor | None = None,
        feature_lengths: torch.Tensor | None = None,
        indices: LossIndices | None = None,
        **kwargs,
    ) -> ModelOutput:
        """Losses of one batch of `collator.TrainingCollator`; without indices, the plain model's forward pass.

        Nothing here waits for the device, nothing loops over clips.

        Returns:
            loss, and its parts language_loss and alignment_loss where they were computed.
        """
        if indices is None:
            return super().forward(
                input_ids=input_ids, input_features=input_features, feature_lengths=feature_lengths, **kwargs
            )
        frames = None
        if input_features is not None and feature_lengths is not None:
            frames = self.encode_frames(input_features, feature_lengths)
        losses = {}
        if indices.text is not None and input_ids is not None:
            losses["language_loss"] = self._language_loss(input_ids, indices.text, frames)
        has_targets = indices.alignment is not None or indices.ctc is not None
        if self.alignment_head is not None and frames is not None and has_targets:
            losses["alignment_loss"] = self.alignment_loss(frames, indices)
        loss = losses.get("language_loss", 0.0) + self.alignment_weight * losses.get("alignment_loss", 0.0)
        return ModelOutput(loss=loss, **losses)

    def encode_frames(self, input_features: torch.Tensor, feature_lengths: torch.Tensor) -> torch.Tensor:
        """Projected frames of all clips with their padding, [clips * frames of the longest, hidden_size]."""
        return self.model.projector(self.model.audio_tower(input_features, feature_lengths)).flatten(0, 1)

    def _language_loss(self, input_ids: torch.Tensor, text: TextIndices, frames: torch.Tensor | None) -> torch.Tensor:
        """Mean cross-entropy of the next token. The large head runs only where there is something to learn.

        Rows are padded on the right, where no earlier position attends, so that attention needs no mask.
        """
        embeddings = self.model.embed(input_ids, [])
        if frames is not None:
            audio = frames.index_select(0, text.audio_frames).to(embeddings.dtype)
            embeddings = embeddings.flatten(0, 1).index_copy(0, text.placeholders, audio).view_as(embeddings)
        hidden = self.model.language_model(
            inputs_embeds=embeddings,
            attention_mask=None,
            past_key_values=_KeepsNothing(self._ntk_alpha(text.row_lengths)),
            use_cache=False,
        ).last_hidden_state
        logits = self.lm_head(hidden.flatten(0, 1).index_select(0, text.predicting))
        return F.cross_entropy(logits.float(), text.targets)

    def _ntk_alpha(self, row_lengths: torch.Tensor) -> torch.Tensor | None:
        """The rotary factor of each row, [rows], which `QwenAudioTextModel` would take from the padded length."""
        text = self.config.text_config
        if self.training or not getattr(text, "use_dynamic_ntk", False):
            return None
        return ntk_alpha(row_lengths, text.max_position_embeddings)

    def alignment_loss(self, frames: torch.Tensor, indices: LossIndices) -> torch.Tensor:
        """Loss per target token of the alignment head, and of the model's `ctc_head` where it has one, a scalar.

        Only English speech has letters, and only there the tokens come in order.

        Args:
            frames: see `encode_frames`.
            indices: of the batch.
        """
        assert self.alignment_head is not None
        loss = frames.new_zeros((), dtype=torch.float32)
        if indices.alignment is not None and indices.alignment_frames is not None:
            chosen = frames.index_select(0, indices.alignment_frames)
            loss = loss + self.alignment_head.loss(chosen, indices.alignment, self._token_embedding())
        if self.ctc_head is not None and indices.ctc is not None and indices.ctc_frames is not None:
            log_probs = self.ctc_head(frames.index_select(0, indices.ctc_frames)).float().log_softmax(-1)
            loss = loss + ctc_loss(log_probs, indices.ctc)
        return loss / indices.target_tokens

    def compile_layers(self, device: str) -> None:
        """Compile each layer of the encoder and of the language model; one compilation serves all sizes and layers.

        Args:
            device: where the model will be trained.

        Raises:
            UserError: there is no compiler for it.
        """
        try:
            torch.compile(torch.square, dynamic=True)(torch.ones(2, device=device))
        except (RuntimeError, OSError) as error:
            raise UserError(
                "--compile needs a C++ compiler, and on a GPU Triton; here PyTorch finds none that works ({error}).",
                error=str(error).strip().split("\n")[0],
            ) from error
        for layer in (*self.model.audio_tower.layers, *self.model.language_model.layers):
            layer.compile(dynamic=True)

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


class _KeepsNothing:
    """The place of a key-value cache in training.

    Without one, and without a mask, transformers looks for several sequences packed into a row, and waits for what it
    finds.

    Args:
        ntk_alpha: where `QwenAudioTextModel` looks for its rotary factor, [rows]; None lets it choose.
    """

    def __init__(self, ntk_alpha: torch.Tensor | None):
        self.ntk_alpha = ntk_alpha

    def update(self, key: torch.Tensor, value: torch.Tensor, *args, **kwargs) -> tuple[torch.Tensor, torch.Tensor]:
        return key, value

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0

    def get_query_offset(self, layer_idx: int = 0) -> int:
        return 0

    def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> tuple[int, int]:
        return query_length, 0


def fit_alignment_head(
    model: QwenAudioForTraining,
    collate: TrainingCollator,
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
        frames = model.encode_frames(batch["input_features"], batch["feature_lengths"])
    optimizer = torch.optim.Adam(model.alignment_head.parameters(), lr=0.05)
    for _ in range(steps):
        loss = model.alignment_loss(frames, batch["indices"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
