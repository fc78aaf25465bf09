"""The model as a part of transformers: configuration, encoder, decoder, processor, checkpoints, quantization."""

from .configuration import QwenAudioConfig, QwenAudioEncoderConfig, QwenAudioTextConfig
from .modeling import QwenAudioForConditionalGeneration, QwenAudioModel
from .processing import QwenAudioProcessor

__all__ = [
    "QwenAudioConfig",
    "QwenAudioEncoderConfig",
    "QwenAudioForConditionalGeneration",
    "QwenAudioModel",
    "QwenAudioProcessor",
    "QwenAudioTextConfig",
]
