"""Whisper as a yardstick: answers transcription, translation into English and language requests."""

import torch
from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration, WhisperTokenizerFast
from transformers.models.whisper.tokenization_whisper import LANGUAGES, TO_LANGUAGE_CODE

from ..audio.decoding import SAMPLE_RATE
from ..evaluation.prompting import Request


class WhisperPredictor:
    """Greedy answers of a multilingual Whisper (arXiv 2212.04356) to tag prompts; languages are told to it as to us.

    Args:
        model, tokenizer: a checkpoint whose generation settings may be missing; they are made from the tokenizer.
        names_language: answer with the name of the language, such as "French", instead of a transcript.
    """

    def __init__(
        self,
        model: WhisperForConditionalGeneration,
        tokenizer: WhisperTokenizerFast,
        *,
        names_language: bool = False,
    ):
        self._model, self._tokenizer = model.eval(), tokenizer
        self._names_language = names_language
        self._extract = WhisperFeatureExtractor(feature_size=model.config.num_mel_bins)
        vocabulary = tokenizer.get_vocab()
        settings = model.generation_config
        settings.is_multilingual = True
        settings.lang_to_id = {f"<|{c}|>": vocabulary[f"<|{c}|>"] for c in LANGUAGES if f"<|{c}|>" in vocabulary}
        settings.task_to_id = {task: vocabulary[f"<|{task}|>"] for task in ("transcribe", "translate")}
        settings.no_timestamps_token_id = vocabulary["<|notimestamps|>"]
        settings.decoder_start_token_id = vocabulary["<|startoftranscript|>"]
        settings.eos_token_id = settings.pad_token_id = vocabulary["<|endoftext|>"]
        settings.max_length = model.config.max_target_positions

    def __call__(self, requests: list[Request]) -> list[str]:
        """Answer requests of one clip each, at most 30 s long."""
        audios = [request.audios[0] for request in requests]
        inputs = self._extract(audios, sampling_rate=SAMPLE_RATE, return_tensors="pt", return_attention_mask=True)
        with torch.inference_mode():
            codes = [request.prompt.audio_language for request in requests] if self._is_told(requests) else None
            if codes is None:
                tokens = self._model.detect_language(inputs.input_features)
                codes = [code.strip("<|>") for code in self._tokenizer.convert_ids_to_tokens(tokens.tolist())]
            if self._names_language:
                return [LANGUAGES[code].title() for code in codes]
            output = self._model.generate(
                **inputs,
                language=codes,
                task="translate" if requests[0].prompt.task == "translate" else "transcribe",
            )
        return [text.strip() for text in self._tokenizer.batch_decode(output, skip_special_tokens=True)]

    def _is_told(self, requests: list[Request]) -> bool:
        """Whether the language of every clip is told, and one that Whisper knows."""
        return not self._names_language and all(r.prompt.audio_language in LANGUAGES for r in requests)


def is_language_name(text: str) -> bool:
    """Whether Whisper knows a language of this English name."""
    return text.lower() in TO_LANGUAGE_CODE
