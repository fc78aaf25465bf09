"""From conversations or tagged prompts to model inputs: ids from `chatml`, log-mel features from `audio`."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from transformers import AutoProcessor, BatchFeature, PreTrainedTokenizerFast, ProcessorMixin
from transformers.utils.hub import cached_file

from ..audio.audio import Audio
from ..audio.features import num_mel_tokens
from ..prompts import chatml
from ..prompts.messages import Message
from ..prompts.tags import TaskPrompt
from ..prompts.tokenizer import tokenizer_from_tiktoken
from .configuration import QwenAudioConfig
from .official import VOCABULARY_FILE


class QwenAudioProcessor(ProcessorMixin):
    """Builds the inputs of `QwenAudioForConditionalGeneration`. Audio over 30 s becomes several consecutive clips."""

    tokenizer: PreTrainedTokenizerFast

    def __init__(self, tokenizer: PreTrainedTokenizerFast, num_mel_bins: int = 80, chat_template: str | None = None):
        self.num_mel_bins = num_mel_bins
        super().__init__(tokenizer, chat_template=chat_template)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, **kwargs) -> "QwenAudioProcessor":
        """As in transformers; from an official checkpoint, the tokenizer is built from its `qwen.tiktoken`.

        Raises:
            UserError: the vocabulary is damaged.
        """
        options = {key: kwargs[key] for key in ("revision", "cache_dir", "local_files_only", "token") if key in kwargs}
        vocabulary = cached_file(
            pretrained_model_name_or_path, VOCABULARY_FILE, _raise_exceptions_for_missing_entries=False, **options
        )
        if vocabulary is None:
            return super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        return cls(tokenizer_from_tiktoken(vocabulary))

    @property
    def model_input_names(self) -> list[str]:
        return ["input_ids", "attention_mask", "input_features", "feature_lengths"]

    def apply_chat_template(
        self,
        conversation: Sequence[Message] | Sequence[Sequence[Message]],
        add_generation_prompt: bool = False,
        tokenize: bool = True,
        return_dict: bool = True,
        return_tensors: str = "pt",
    ) -> BatchFeature | torch.Tensor | str | list[str]:
        """Encode one conversation or a batch of them; see `prompts.messages` for their form.

        Text is always plain text. Audio parts hold what `Audio.load` takes. With `tokenize=False` the result is the
        prompt as a readable string, with an empty `<audio></audio>` for each audio.

        Returns:
            input_ids and attention_mask [rows, length] (padded left), input_features [clips, mel bins, frames] and
            feature_lengths [clips] over all rows in order; with `return_dict=False` only input_ids.

        Raises:
            UserError: a message is malformed, or an audio can't be used.
            ValueError: other tensors than PyTorch's are requested.
        """
        if return_tensors != "pt":
            raise ValueError('QwenAudioProcessor gives PyTorch tensors only: use return_tensors="pt".')
        is_batch = bool(conversation) and not isinstance(conversation[0], dict)
        conversations = cast(Sequence[Sequence[Message]], conversation if is_batch else [conversation])
        if not tokenize:
            texts = [self._readable(messages, add_generation_prompt) for messages in conversations]
            return texts if is_batch else texts[0]
        rows, clips = [], []
        for messages in conversations:
            pieces = [self.clips(audio) for audio in chatml.conversation_audios(messages)]
            counts = [[num_mel_tokens(clip) for clip in group] for group in pieces]
            chat = chatml.encode_conversation(
                self.tokenizer, messages, counts, add_generation_prompt=add_generation_prompt
            )
            rows.append(chat.input_ids)
            clips += [clip for group in pieces for clip in group]
        inputs = self.collate(rows, clips)
        return inputs if return_dict else inputs["input_ids"]

    def __call__(self, text: Any = None, audio: Any = None, **kwargs) -> BatchFeature:
        """Encode raw prompts in the multi-task format: each clip, then its tags.

        Args:
            text: a `TaskPrompt`, a string of tags (trusted: its special tokens become ids), or a list of them.
            audio: what `Audio.load` takes, or a list with one for each prompt.

        Returns:
            As `apply_chat_template`.

        Raises:
            UserError: the tokenizer lacks a tag, or an audio can't be used.
            ValueError: prompts and audios differ in number.
        """
        prompts = text if isinstance(text, list) else [text]
        sources = audio if isinstance(audio, list) else [audio]
        if len(prompts) != len(sources):
            raise ValueError(f"There are {len(prompts)} prompts but {len(sources)} audios: give one audio per prompt.")
        rows, clips = [], []
        for prompt, source in zip(prompts, sources, strict=True):
            group = self.clips(source)
            ids = [i for clip in group for i in chatml.encode_audio(self.tokenizer, num_mel_tokens(clip))]
            rows.append(ids + self.encode_prompt(prompt))
            clips += group
        return self.collate(rows, clips)

    def encode_prompt(self, prompt: TaskPrompt | str) -> list[int]:
        """Ids of a tagged prompt; a question in a `TaskPrompt` is encoded as plain text."""
        if isinstance(prompt, str):
            return self.tokenizer(prompt, add_special_tokens=False).input_ids
        return chatml.encode_task(self.tokenizer, prompt)

    def clips(self, source: Any) -> list[torch.Tensor]:
        """The log-mel [mel bins, frames] of each piece of at most 30 s of an audio, given as `Audio.load` takes it.

        The encoder makes `frames // 4` tokens of a piece; `frames` is a multiple of two.
        """
        return [piece.log_mel(self.num_mel_bins) for piece in Audio.load(source).pieces()]

    def collate(self, rows: Sequence[Sequence[int]], clips: Sequence[torch.Tensor]) -> BatchFeature:
        """Batch rows of ids, padded on the left, and log-mels, padded with zeros on the right."""
        length = max(len(row) for row in rows)
        pad = self.tokenizer.pad_token_id
        data = {
            "input_ids": torch.tensor([[pad] * (length - len(row)) + list(row) for row in rows]),
            "attention_mask": torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows]),
        }
        if clips:
            features = torch.zeros(len(clips), self.num_mel_bins, max(clip.shape[-1] for clip in clips))
            for row, clip in zip(features, clips, strict=True):
                row[:, : clip.shape[-1]] = clip
            data["input_features"] = features
            data["feature_lengths"] = torch.tensor([clip.shape[-1] for clip in clips])
        return BatchFeature(data)

    def _readable(self, messages: Sequence[Message], add_generation_prompt: bool) -> str:
        counts = [[0]] * len(chatml.conversation_audios(messages))
        chat = chatml.encode_conversation(self.tokenizer, messages, counts, add_generation_prompt=add_generation_prompt)
        return cast(str, self.tokenizer.decode(chat.input_ids))


AutoProcessor.register(QwenAudioConfig, QwenAudioProcessor)
