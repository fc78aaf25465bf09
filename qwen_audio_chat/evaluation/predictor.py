"""A model as a function from requests to answers."""

import hashlib
from typing import TYPE_CHECKING

import torch

from ..tags import TaskPrompt
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


class ModelPredictor:
    """Greedy answers of a loaded model to several requests at once, as in the released evaluation scripts.

    Rows are padded on the left and each clip is encoded at its own length, so that an answer doesn't depend on the
    other rows of its batch (in float32; lower precision may round differently).

    Attributes:
        weights: `weights_fingerprint` of the model.
    """

    def __init__(self, chat: "AudioChat"):
        self._model, self._processor = chat.model, chat.processor
        self._stop_ids, self._forbidden_ids = sorted(chat.stop_ids), chat.forbidden_ids
        self.weights = weights_fingerprint(chat.model)

    def __call__(self, requests: list[Request]) -> list[str]:
        """Answer requests, all of them tag prompts or all of them conversations; tags stay in the text.

        Raises:
            ValueError: a request can't be encoded, such as audio that is too short.
        """
        if isinstance(requests[0].prompt, TaskPrompt):
            inputs = self._processor(text=[r.prompt for r in requests], audio=[r.audios[0] for r in requests])
        else:
            inputs = self._processor.apply_chat_template([r.prompt for r in requests], add_generation_prompt=True)
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
            )
        return [self._text(row) for row in output[:, inputs["input_ids"].shape[1] :].tolist()]

    def _text(self, ids: list[int]) -> str:
        end = next((place for place, token in enumerate(ids) if token in self._stop_ids), len(ids))
        return self._processor.tokenizer.decode(ids[:end]).strip()
