"""Fixtures shared by all tests: a tiny random model with a real tokenizer, and the golden inputs."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # two spinning thread pools make each other several times slower

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, PreTrainedTokenizerFast

from qwen_audio_chat.chat import AudioChat
from qwen_audio_chat.model import QwenAudioConfig, QwenAudioForConditionalGeneration, QwenAudioProcessor
from qwen_audio_chat.model.checkpoint import load_model
from qwen_audio_chat.prompts.tokenizer import AUDIO_END, AUDIO_PLACEHOLDER, AUDIO_START, END_OF_TEXT, special_tokens
from qwen_audio_chat.resources import POCKET
from qwen_audio_chat.training.alignment import CTC_ALPHABET
from tests.official import expected, official_folder, official_processor, vocabulary  # noqa: F401  fixtures

SENTENCES = (
    "What is said in the audio? The person says that the weather is fine today.",
    "system user assistant You are a helpful assistant. Which of them is music?",
    "It is a dog that barks twice, then a piano plays a slow and quiet melody in the next room.",
)


@pytest.fixture(scope="session")
def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of a few hundred tokens with all tags (time tokens every 40 ms)."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(SENTENCES, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet))
    backend.add_special_tokens(special_tokens(time_step=0.04, extra=0))
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token=END_OF_TEXT, pad_token=END_OF_TEXT, padding_side="left"
    )


def build_tiny_model(tokenizer: PreTrainedTokenizerFast, text_type: str = "llama") -> QwenAudioForConditionalGeneration:
    """A random model of a few hundred thousand parameters, built like the pocket ("llama") or like Qwen-7B."""
    torch.manual_seed(0)
    start, end, pad = tokenizer.convert_tokens_to_ids([AUDIO_START, AUDIO_END, AUDIO_PLACEHOLDER])
    text = dict(model_type=text_type, vocab_size=len(tokenizer), hidden_size=48, intermediate_size=96)
    text |= dict(num_hidden_layers=2, num_attention_heads=6, initializer_range=0.2)
    if text_type == "llama":
        text |= dict(num_key_value_heads=2, max_position_embeddings=2048, tie_word_embeddings=True)
    else:
        text |= dict(num_key_value_heads=6)
    config = QwenAudioConfig(
        audio_config=dict(d_model=32, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=64),
        text_config=text,
        audio_start_id=start,
        audio_end_id=end,
        audio_token_id=pad,
        projector_norm="cosine" if text_type == "llama" else None,
        ctc_alphabet=CTC_ALPHABET if text_type == "llama" else None,
        tie_word_embeddings=text_type == "llama",
    )
    model = QwenAudioForConditionalGeneration(config).eval()
    stop = tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|im_end|>", "<|im_start|>"])
    model.generation_config = GenerationConfig(eos_token_id=stop, pad_token_id=tokenizer.pad_token_id)
    return model


@pytest.fixture(scope="session", params=["llama", "qwen_audio_text"])
def tiny_model(request, tiny_tokenizer) -> QwenAudioForConditionalGeneration:
    return build_tiny_model(tiny_tokenizer, request.param)


@pytest.fixture(scope="session")
def tiny_processor(tiny_tokenizer) -> QwenAudioProcessor:
    return QwenAudioProcessor(tiny_tokenizer)


@pytest.fixture(scope="session")
def float_pocket() -> AudioChat:
    """The shipped pocket in float32, whose tokens don't depend on the order in which numbers are added."""
    model, processor = load_model(str(POCKET), device="cpu", quantization="none")
    return AudioChat(model.float(), processor, name="pocket", precision="float32")


@pytest.fixture
def tiny_chat(tiny_tokenizer, tiny_processor) -> AudioChat:
    """`AudioChat` with a tiny random model: everything is real except what it says."""
    model = build_tiny_model(tiny_tokenizer)
    return AudioChat(model, tiny_processor, name="tiny", precision="float32", is_pocket=True)


@pytest.fixture
def clip():
    """A function `clip(seconds, pitch)` that makes a 16 kHz float32 tone with a little noise."""

    def make(seconds: float, pitch: float = 440.0) -> np.ndarray:
        t = np.arange(round(seconds * 16000)) / 16000
        noise = np.random.default_rng(int(pitch)).standard_normal(t.size)
        return (0.3 * np.sin(2 * np.pi * pitch * t) + 0.01 * noise).astype(np.float32)

    return make
