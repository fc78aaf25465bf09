"""A model as a function from requests to answers."""

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from transformers import BatchFeature, StoppingCriteria

from ..generation import RepetitionGuard
from ..guidance import Guide, guide_for, spell
from ..tags import TaskPrompt, write_words
from ..task_reply import without_times
from ..word_times import word_times
from .prompting import Request

if TYPE_CHECKING:
    from ..pipeline import AudioChat


def weights_fingerprint(model: torch.nn.Module) -> str:
    """A short hash of some values of every tensor, which tells a newly trained model from its predecessor."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        values = tensor.flatten()
        digest.update(name.encode() + values[:: max(1, len(values) // 64)].float().cpu().numpy().tobytes())
    return digest.hexdigest()[:12]


class StopLoops(StoppingCriteria):
    """Ends each row of a batch where the chat's own guard ends an answer: when it runs in a circle."""

    def __init__(self, rows: int):
        self._guards = [RepetitionGuard() for _ in range(rows)]
        self._looping = [False] * rows

    def __call__(self, input_ids: torch.LongTensor, scores: torch.Tensor, **kwargs) -> torch.BoolTensor:
        """Which rows [rows] are done; `input_ids` is [rows, length], its last column the newest token."""
        for row, token in enumerate(input_ids[:, -1].tolist()):
            self._looping[row] = self._looping[row] or self._guards[row].is_looping(token)
        return torch.tensor(self._looping, device=input_ids.device)


def _wants_times(request: Request) -> bool:
    return isinstance(request.prompt, TaskPrompt) and request.prompt.timestamps


class ModelPredictor:
    """Greedy answers of a loaded model to several requests at once, as in the released evaluation scripts.

    Unlike there, an answer that runs in a circle is ended, as the chat ends it.

    Rows are padded on the left and each clip is encoded at its own length, so that an answer doesn't depend on the
    other rows of its batch (in float32; lower precision may round differently).

    Attributes:
        weights: `weights_fingerprint` of the model.
    """

    def __init__(self, chat: "AudioChat"):
        self._model, self._processor = chat.model, chat.processor
        self._stop_ids, self._forbidden_ids = sorted(chat.stop_ids), chat.forbidden_ids
        self._end_ids = {*chat.stop_ids, chat.model.generation_config.pad_token_id}  # padding follows a loop that ended
        self.weights = weights_fingerprint(chat.model)

    def __call__(self, requests: list[Request]) -> list[str]:
        """Answer requests, all of them tag prompts or all of them conversations; tags stay in the text.

        Raises:
            ValueError: a request can't be encoded, such as audio that is too short.
        """
        if self._model.letter_head is not None and _wants_times(requests[0]):
            return self._timed(requests)
        if isinstance(requests[0].prompt, TaskPrompt):
            inputs = self._processor(text=[r.prompt for r in requests], audio=[r.audios[0] for r in requests])
        else:
            inputs = self._processor.apply_chat_template([r.prompt for r in requests], add_generation_prompt=True)
        inputs = inputs.to(self._model.device)
        guide = self._guide(requests, inputs)
        with torch.inference_mode():
            output = self._model.generate(
                **inputs,
                max_new_tokens=max(r.max_new_tokens for r in requests),
                do_sample=False,
                temperature=None,
                top_p=None,
                top_k=None,
                repetition_penalty=1.0,
                eos_token_id=self._stop_ids,
                suppress_tokens=self._forbidden_ids,
                stopping_criteria=[StopLoops(len(requests))],
                logits_processor=[] if guide is None else [guide],
            )
        return [self._text(row) for row in output[:, inputs["input_ids"].shape[1] :].tolist()]

    def _timed(self, requests: list[Request]) -> list[str]:
        """Transcripts, and the times where the audio spells their words, as the chat's `TaskReply` gives them."""
        plain = [replace(request, prompt=without_times(request.prompt)) for request in requests]
        inputs = self._processor(text=[r.prompt for r in plain], audio=[r.audios[0] for r in plain])
        with torch.inference_mode():
            frames = self._model.get_audio_features(inputs["input_features"], inputs["feature_lengths"])
        return [
            write_words(word_times(text, spell(self._model, clip).numpy(force=True), self._model.config.letters))
            for text, clip in zip(self(plain), frames, strict=True)
        ]

    def _guide(self, requests: list[Request], inputs: BatchFeature) -> Guide | None:
        """The chat's own guide, for the rows that ask what is said in their one audio of one piece."""
        clips = (inputs["input_ids"] == self._model.config.audio_start_id).sum(dim=-1).tolist()
        guided = [count == 1 and request.wants_transcript for count, request in zip(clips, requests, strict=True)]
        if not any(guided):
            return None
        with torch.inference_mode():
            features = iter(self._model.get_audio_features(inputs["input_features"], inputs["feature_lengths"]))
        frames = [[next(features) for _ in range(count)] for count in clips]
        rows = [clip[0] if wanted else None for clip, wanted in zip(frames, guided, strict=True)]
        return guide_for(self._model, self._processor.tokenizer, rows, inputs["input_ids"].shape[1], self._stop_ids)

    def _text(self, ids: list[int]) -> str:
        end = next((place for place, token in enumerate(ids) if token in self._end_ids), len(ids))
        return self._processor.tokenizer.decode(ids[:end]).strip()
