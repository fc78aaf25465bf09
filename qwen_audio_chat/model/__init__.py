"""The model: configuration, encoder, decoder, the whole, its tokenizer, its inputs and its checkpoints."""

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
