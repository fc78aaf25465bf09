"""A model as a function from requests to answers."""

import hashlib
from typing import Any

import torch
from transformers import StoppingCriteria

from ..chat import AudioChat
from ..engine.generation import RepetitionGuard
from ..engine.sampling import GenerationOptions
from ..prompts.tags import TaskPrompt
from ..transcripts.task_reply import TaskReply
from .prompting import Request


def weights_fingerprint(model: torch.nn.Module) -> str:
    """A short hash of some values of every tensor; another one after any training."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        values = tensor.flatten()
        digest.update(name.encode() + values[:: max(1, len(values) // 64)].float().cpu().numpy().tobytes())
    return digest.hexdigest()[:12]


class StopLoops(StoppingCriteria):
    """Ends each row of a batch when it repeats itself endlessly, as the guard of the chat does."""

    def __init__(self, rows: int):
        self._guards = [RepetitionGuard() for _ in range(rows)]
        self._looping = [False] * rows

    def __call__(self, input_ids: torch.LongTensor, scores: torch.Tensor, **kwargs) -> torch.BoolTensor:
        """Which rows [rows] are done; `input_ids` is [rows, length], its last column the newest token."""
        for row, token in enumerate(input_ids[:, -1].tolist()):
            self._looping[row] = self._looping[row] or self._guards[row].is_looping(token)
        return torch.tensor(self._looping, device=input_ids.device)  # pyright: ignore[reportReturnType]  it is bool


class ModelPredictor:
    """Greedy answers of a loaded model to several requests at once, as in the released evaluation scripts.

    Unlike there, an answer that repeats itself endlessly is ended, and a model with a CTC head transcribes as it does
    in the chat, one request after the other.

    Rows are padded on the left and each clip is encoded at its own length, so that an answer doesn't depend on the
    other rows of its batch (in float32; lower precision may round differently).

    Attributes:
        weights: `weights_fingerprint` of the model.
    """

    def __init__(self, chat: AudioChat):
        self._chat, self._processor = chat, chat.processor
        self._model: Any = chat.model  # transformers types `generate` for its own classes only
        self._stop_ids, self._forbidden_ids = sorted(chat.stop_ids), chat.forbidden_ids
        self._end_ids = {*chat.stop_ids, chat.model.generation_config.pad_token_id}  # padding follows an ended loop
        self.weights = weights_fingerprint(chat.model)

    def __call__(self, requests: list[Request]) -> list[str]:
        """Answer requests, all of them tag prompts or all of them conversations; tags stay in the text.

        Raises:
            UserError: a request can't be encoded, such as audio that is too short.
        """
        answers = {
            place: self._transcript(request)
            for place, request in enumerate(requests)
            if self._chat.has_ctc_head and request.transcribes
        }
        if others := [place for place in range(len(requests)) if place not in answers]:
            answers |= zip(others, self._batch([requests[place] for place in others]), strict=True)
        return [answers[place] for place in range(len(requests))]

    def _transcript(self, request: Request) -> str:
        options = GenerationOptions(max_new_tokens=request.max_new_tokens)
        if isinstance(request.prompt, TaskPrompt):
            reply = TaskReply(self._chat, request.prompt, request.audios[0], options)
        else:
            reply = self._chat.stream(request.prompt, options)
        return reply.finish().text.strip()

    def _batch(self, requests: list[Request]) -> list[str]:
        prompts: Any = [r.prompt for r in requests]  # all of one kind
        if isinstance(prompts[0], TaskPrompt):
            inputs: Any = self._processor(text=prompts, audio=[r.audios[0] for r in requests])
        else:
            inputs = self._processor.apply_chat_template(prompts, add_generation_prompt=True)
        inputs = inputs.to(self._model.device)
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
            )
        return [self._text(row) for row in output[:, inputs["input_ids"].shape[1] :].tolist()]

    def _text(self, ids: list[int]) -> str:
        end = next((place for place, token in enumerate(ids) if token in self._end_ids), len(ids))
        return str(self._processor.tokenizer.decode(ids[:end])).strip()
