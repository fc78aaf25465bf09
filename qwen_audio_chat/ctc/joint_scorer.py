"""Joint CTC and language model decoding: each token is scored by both (Hori, Watanabe and Hershey, ACL 2017).

A small language model tends to write what sounds alike and makes sense. Where a model also has a CTC head, each token
that the language model proposes is scored by the probability that the audio frames say the text so far with it, and the
weighted sum of both decides.
"""

from collections.abc import Collection
from dataclasses import dataclass
from functools import cache

import torch
from transformers import PreTrainedTokenizerFast

from ..model import QwenAudioForConditionalGeneration
from .forced_alignment import ctc_classes
from .prefix_scores import CTCPrefixScorer, Prefixes

MAX_CANDIDATES = 40  # tokens of the language model that are scored, at most
MAX_LOGPROB_GAP = 12.0  # nats below the language model's best; tokens beyond it are not scored


@dataclass
class Candidates:
    """Ways to continue texts by one token.

    Attributes:
        parents: the text that each continues [n].
        tokens: ids [n].
        scores: joint log-probability of each [n].
        spellings: CTC classes of the characters of each, none where it ends the answer.
        texts: the texts with each token added.
    """

    parents: torch.Tensor
    tokens: torch.Tensor
    scores: torch.Tensor
    spellings: list[list[int]]
    texts: Prefixes


class JointScorer:
    """Scores tokens of a transcript by language model and CTC head together.

    Args:
        tokenizer: the model's.
        alphabet: the characters of the CTC head, `config.ctc_alphabet`.
        log_probs: CTC output for the audio, [frames, classes], blank first.
        stop_ids: tokens that end an answer.
        said: the beginning of the answer, where one is continued.
        weight: of the CTC score beside the language model's; 0.4 to 1 did about equally well on unheard voices.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        alphabet: str,
        log_probs: torch.Tensor,
        stop_ids: Collection[int],
        said: str = "",
        weight: float = 0.5,
    ):
        self._tokenizer, self._alphabet, self._weight = tokenizer, alphabet, weight
        self._said = ctc_classes(said, alphabet)
        self.stop_ids = set(stop_ids)
        spelled = [tokenizer.encode(part + letter) for part in ("", " ") for letter in alphabet.strip()]
        # Whatever the language model proposes, an answer can end, and a word that it doesn't expect can be spelled.
        self._always = torch.tensor([*self.stop_ids, *(ids[0] for ids in spelled if len(ids) == 1)])
        self._spelling = cache(self._find_spelling)
        self._space = 1 + alphabet.find(" ")
        self._scorer = CTCPrefixScorer(log_probs, single=self._space)

    def begin(self) -> Prefixes:
        """The text before the first token: a space, as the alignment begins every word, and what is said already."""
        text = self._scorer.empty()
        self._scorer.extend(text, [[self._space, *self._said]])
        return text

    def score_candidates(self, logits: torch.Tensor, texts: Prefixes) -> Candidates:
        """The tokens by which language model and audio can continue `texts`.

        Tokens without letters are left out: the sound can't judge them, and a small model would loop on them.

        Args:
            logits: of the language model after each text, [texts, vocabulary].
        """
        language = logits.float().cpu().log_softmax(-1)
        parents, ids = [], []
        for row, (best, tokens) in enumerate(zip(*language.topk(MAX_CANDIDATES), strict=True)):
            tokens = torch.cat((tokens[best > best[0] - MAX_LOGPROB_GAP], self._always)).unique().tolist()
            ids += [token for token in tokens if self._spelling(token) is not None]
            parents += [row] * (len(ids) - len(parents))
        spellings = [self._spelling(token) or [] for token in ids]
        extended = texts[parents]
        ends = torch.tensor([token in self.stop_ids for token in ids])
        complete, before = extended.complete(), extended.total.clone()
        self._scorer.extend(extended, spellings)
        ctc_gain = torch.where(ends, complete, extended.total) - before
        scores = language[parents, ids] + self._weight * ctc_gain
        return Candidates(torch.tensor(parents), torch.tensor(ids), scores, spellings, extended)

    def _find_spelling(self, token: int) -> list[int] | None:
        """CTC classes of a token's characters, none where it ends an answer; None if no transcript can hold it."""
        if token in self.stop_ids:
            return []
        text = str(self._tokenizer.decode([token])).lower()
        is_spoken = any(map(str.isalpha, text)) and all(char in self._alphabet for char in text)
        return ctc_classes(text, self._alphabet) if is_spoken else None


@torch.inference_mode()
def ctc_log_probs(model: QwenAudioForConditionalGeneration, frames: torch.Tensor) -> torch.Tensor:
    """Output of a model's CTC head for the embeddings of an audio, [frames, hidden_size].

    Returns:
        float32 [frames, 1 + len(config.ctc_alphabet)], blank first.
    """
    head = model.ctc_head
    assert head is not None, "this model has no CTC head"
    return head(frames.to(head.weight)).float().log_softmax(-1)


def joint_scorer_for(
    model: QwenAudioForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    frames: torch.Tensor,
    stop_ids: Collection[int],
    said: str = "",
) -> JointScorer | None:
    """The scorer for an audio by its embeddings, [frames, hidden_size]; `said` is the beginning of the transcript.

    None where the CTC head finds hardly a letter, as in noise or music: then the language model answers alone.
    """
    log_probs = ctc_log_probs(model, frames)
    best = torch.unique_consecutive(log_probs.argmax(-1))
    if int((best > 0).sum()) < 2:
        return None
    return JointScorer(tokenizer, model.config.ctc_alphabet, log_probs, stop_ids, said)
