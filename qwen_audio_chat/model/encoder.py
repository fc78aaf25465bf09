"""The audio encoder: Whisper's blocks, then average pooling by two *before* the last norm, as in Qwen-Audio."""

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.masking_utils import create_bidirectional_mask
from transformers.models.whisper.modeling_whisper import WhisperEncoderLayer, sinusoids

from .configuration import QwenAudioEncoderConfig


def conv_frames(mel_frames: torch.Tensor) -> torch.Tensor:
    """Frames after the convolution of stride 2, from counts of log-mel frames."""
    return (mel_frames - 1) // 2 + 1


class QwenAudioEncoder(PreTrainedModel):
    """From log-mel spectrograms to one vector per 40 ms (arXiv 2311.07919, section 2.1).

    A clip's result doesn't depend on the other clips of a batch: frames beyond its own length are zero and are never
    attended to.
    """

    config_class = QwenAudioEncoderConfig
    main_input_name = "input_features"
    input_modalities = ["audio"]
    supports_gradient_checkpointing = True
    _no_split_modules = ["WhisperEncoderLayer"]
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_attention_backend = True

    def __init__(self, config: QwenAudioEncoderConfig):
        super().__init__(config)
        width = config.d_model
        self.conv1 = nn.Conv1d(config.num_mel_bins, width, kernel_size=3, padding=1)
        self.conv2 = nn.Conv1d(width, width, kernel_size=3, stride=2, padding=1)
        self.embed_positions = nn.Embedding(config.max_source_positions, width).requires_grad_(False)
        self.layers = nn.ModuleList(
            WhisperEncoderLayer(config)  # pyright: ignore[reportArgumentType]  has all the fields that are read
            for _ in range(config.encoder_layers)
        )
        self.layer_norm = nn.LayerNorm(width)
        self.gradient_checkpointing = False
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        if module is self.embed_positions:
            init.copy_(self.embed_positions.weight, sinusoids(*self.embed_positions.weight.shape))

    def forward(self, input_features: torch.Tensor, feature_lengths: torch.Tensor) -> torch.Tensor:
        """Encode clips.

        Args:
            input_features: log-mel, [clips, num_mel_bins, frames], zero at and beyond each clip's length.
            feature_lengths: log-mel frames of each clip, [clips].

        Returns:
            [clips, frames // 4, d_model]; clip i has `conv_frames(feature_lengths[i]) // 2` valid rows.

        Raises:
            ValueError: a clip has more frames than the encoder has positions.
        """
        hidden = F.gelu(self.conv1(input_features.to(self.conv1.weight.dtype)))
        hidden = F.gelu(self.conv2(hidden)).transpose(1, 2)
        frames = hidden.shape[1]
        if frames > self.config.max_source_positions:
            raise ValueError(
                f"A clip has {frames} frames, more than the encoder's {self.config.max_source_positions}: "
                "split it into pieces of at most 30 s."
            )
        hidden = hidden + self.embed_positions.weight[:frames]
        valid = torch.arange(frames, device=hidden.device) < conv_frames(feature_lengths)[:, None]
        mask = create_bidirectional_mask(
            config=self.config,
            inputs_embeds=hidden,
            attention_mask=valid,
            allow_is_bidirectional_skip=not self.training,  # to look for padding would wait for the device
        )
        for layer in self.layers:
            hidden = layer(hidden, mask)
        pooled = F.avg_pool1d(hidden.transpose(1, 2), kernel_size=2, stride=2).transpose(1, 2)
        return self.layer_norm(pooled)
