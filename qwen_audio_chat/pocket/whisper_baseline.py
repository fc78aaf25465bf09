"""Whisper as a baseline for transcription, translation into English and spoken language."""

from typing import Any, cast

import torch
from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration, WhisperTokenizer
from transformers.models.whisper.tokenization_whisper import LANGUAGES, TO_LANGUAGE_CODE

from ..audio.decoding import SAMPLE_RATE
from ..evaluation.prompting import Request
from ..prompts.tags import TaskPrompt


class WhisperPredictor:
    """Greedy answers of a multilingual Whisper (arXiv 2212.04356) to tag prompts.

    Whisper gets the language of the audio where the prompt names one that it knows, and detects it otherwise.

    Args:
        model, tokenizer: a checkpoint; missing generation settings are filled in from the tokenizer.
        names_language: answer with the name of the language, such as "French", instead of a transcript.
    """

    def __init__(
        self,
        model: WhisperForConditionalGeneration,
        tokenizer: WhisperTokenizer,
        *,
        names_language: bool = False,
    ):
        self._model, self._tokenizer = model.eval(), tokenizer
        self._names_language = names_language
        self._extract = WhisperFeatureExtractor(feature_size=model.config.num_mel_bins)
        vocabulary = tokenizer.get_vocab()
        settings: Any = model.generation_config  # whose class doesn't declare Whisper's settings
        settings.is_multilingual = True
        settings.lang_to_id = {tag: vocabulary[tag] for code in LANGUAGES if (tag := f"<|{code}|>") in vocabulary}
        settings.task_to_id = {task: vocabulary[f"<|{task}|>"] for task in ("transcribe", "translate")}
        settings.no_timestamps_token_id = vocabulary["<|notimestamps|>"]
        settings.decoder_start_token_id = vocabulary["<|startoftranscript|>"]
        settings.eos_token_id = settings.pad_token_id = vocabulary["<|endoftext|>"]
        settings.max_length = model.config.max_target_positions

    def __call__(self, requests: list[Request]) -> list[str]:
        """Answer requests of one clip each, at most 30 s long."""
        audios = [request.audios[0].waveform for request in requests]
        inputs = self._extract(audios, sampling_rate=SAMPLE_RATE, return_tensors="pt", return_attention_mask=True)
        with torch.inference_mode():
            codes = None if self._names_language else _known_languages(requests)
            if codes is None:
                tokens = self._model.detect_language(inputs.input_features)
                codes = [code.strip("<|>") for code in self._tokenizer.convert_ids_to_tokens(tokens.tolist())]
            if self._names_language:
                return [LANGUAGES[code].title() for code in codes]
            prompt = requests[0].prompt
            translates = isinstance(prompt, TaskPrompt) and prompt.task == "translate"
            task = "translate" if translates else "transcribe"
            output = cast(torch.Tensor, self._model.generate(**inputs, language=codes, task=task))
        return [text.strip() for text in self._tokenizer.batch_decode(output, skip_special_tokens=True)]


def _known_languages(requests: list[Request]) -> list[str] | None:
    """The language of each clip, or None if a prompt names none that Whisper knows."""
    prompts = [request.prompt for request in requests]
    codes = [prompt.audio_language for prompt in prompts if isinstance(prompt, TaskPrompt)]
    return codes if len(codes) == len(prompts) and all(code in LANGUAGES for code in codes) else None


def is_language_name(text: str) -> bool:
    """Whether Whisper knows a language by this English name."""
    return text.lower() in TO_LANGUAGE_CODE
