"""The alignment: audio frames move to where the language model's token embeddings are, by CTC through those embeddings.

Connectionist temporal classification (Graves et al., 2006) needs a class for each token. Here the class is the token's
embedding, so a frame that scores well is close to what the language model already reads. Both sides are normalised,
because the model reads directions: with plain dot products the frames grow long and stay far away (cosine 0.18).

Beside it, the model's own `ctc_head` spells the same frames. Letters are frequent enough to be learned early, and they
keep in the frames what tells rare words apart. Where a clip isn't English speech, each of its frames learns to name it.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from weakref import WeakKeyDictionary

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import BPE
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerFast

from ..ctc.forced_alignment import ctc_classes
from .loss_indices import AlignmentTargets, CtcTargets, NameTargets

HEAD_FILE = "alignment.safetensors"
SHORT_TOKENIZER_MERGES = 5000
BLANK = 0  # the class of a frame that says nothing
IMPOSSIBLE = -1e4  # a log-probability of zero whose gradients, unlike those of -inf, stay finite
NAMING_WEIGHT = 8.0  # of a name's token against one of a transcript, which has ten times as many
CTC_ALPHABET = " 'abcdefghijklmnopqrstuvwxyz"
_SHORT_TOKENIZERS: WeakKeyDictionary[PreTrainedTokenizerFast, Tokenizer] = WeakKeyDictionary()


def ctc_text(text: str) -> str:
    """A transcript as the alignment learns it: lower case, a space before each word, apostrophes but no punctuation."""
    kept = "".join(char if char.isalnum() or char == "'" else " " for char in text.lower().replace("’", "'"))
    return "".join(f" {word}" for word in kept.split())


def short_tokenizer(tokenizer: PreTrainedTokenizerFast) -> Tokenizer:
    """The tokenizer cut down to its first merges: the same ids, but rare words are spelled in common pieces.

    With all 48,900 merges of SmolLM2, 29 % of the tokens of unseen text occur fewer than 20 times in 7,000 training
    clips, and a frame never learns them; the language model corrects the spelling.
    """
    short = _SHORT_TOKENIZERS.get(tokenizer)
    if short is None:
        backend = tokenizer.backend_tokenizer
        model = json.loads(backend.to_str())["model"]
        pairs = [tuple(pair) if isinstance(pair, list) else tuple(pair.split(" ")) for pair in model["merges"]]
        short = Tokenizer(BPE(model["vocab"], pairs[:SHORT_TOKENIZER_MERGES]))
        short.normalizer = backend.normalizer
        short.pre_tokenizer = backend.pre_tokenizer
        _SHORT_TOKENIZERS[tokenizer] = short
    return short


def transcript_tokens(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    """Ids of `ctc_text` in common pieces."""
    return short_tokenizer(tokenizer).encode(ctc_text(text), add_special_tokens=False).ids


def name_tokens(tokenizer: PreTrainedTokenizerFast, name: str) -> list[int]:
    """Ids of a name as the language model writes it: names are few and frequent, so whole words are learned."""
    return tokenizer.encode(f" {name}", add_special_tokens=False) if name else []


def ctc_head_targets(text: str) -> list[int]:
    """Classes of the `ctc_head` for `ctc_text`; characters outside `CTC_ALPHABET` are left out."""
    return ctc_classes(ctc_text(text), CTC_ALPHABET)


def ctc_loss(log_probs: torch.Tensor, targets: CtcTargets) -> torch.Tensor:
    """Sum of the CTC losses of clips; a clip too short for its target adds nothing.

    Args:
        log_probs: of all clips' frames, [all frames, classes], blank first.
        targets: of the same clips.
    """
    return F.ctc_loss(
        targets.clips.pad(log_probs, IMPOSSIBLE).transpose(0, 1),
        targets.classes,
        targets.clips.lengths,  # pyright: ignore[reportArgumentType]  numbers, with which nothing waits for a GPU
        targets.lengths,  # pyright: ignore[reportArgumentType]
        reduction="sum",
        zero_infinity=True,
    )


def naming_loss(log_probs: torch.Tensor, targets: NameTargets) -> torch.Tensor:
    """Sum over the tokens of clips' names: the negative log-likelihood of the token in a frame drawn at random.

    CTC would be content with a single frame that says the name, and teach all others to be silent; after 250 steps
    every sound was a drum, the most frequent one.

    Args:
        log_probs: of all clips' frames, [all frames, classes].
        targets: of the same clips.
    """
    frames = targets.clips.pad(log_probs, IMPOSSIBLE).transpose(1, 2).flatten(0, 1)  # [clips * classes, longest]
    of_pairs = frames.index_select(0, targets.rows * log_probs.shape[-1] + targets.classes)
    return (targets.frames.log() - of_pairs.logsumexp(-1)).sum()


class AlignmentHead(nn.Module):
    """Cosine logits of frames against embeddings, with a blank class of its own.

    Args:
        width: size of the language model's embeddings.
        vocabulary: ids of the tokens that a frame may say, all those of the training texts.
    """

    vocabulary: torch.Tensor

    def __init__(self, width: int, vocabulary: Sequence[int], temperature: float = 18.0):
        super().__init__()
        self.temperature = nn.Parameter(torch.tensor(temperature))
        self.blank = nn.Parameter(F.normalize(torch.randn(width), dim=0))
        self.blank_bias = nn.Parameter(torch.zeros(()))
        self.register_buffer("vocabulary", torch.tensor(sorted(set(vocabulary))))

    def logits(
        self, frames: torch.Tensor, embeddings: torch.Tensor, excluded: torch.Tensor | None = None
    ) -> torch.Tensor:
        """frames [..., width] against embeddings [n, width]: [..., 1 + n], blank first.

        Args:
            frames, embeddings: of any length; both are normalised.
            excluded: which embeddings no frame can say, bool [n].
        """
        rows = F.normalize(embeddings, dim=-1)
        rows = torch.cat((F.normalize(self.blank, dim=0)[None], rows))
        logits = self.temperature * F.linear(F.normalize(frames, dim=-1), rows)
        bias = F.pad(self.blank_bias[None], (0, len(rows) - 1))
        if excluded is not None:
            bias = bias.masked_fill(F.pad(excluded, (1, 0)), IMPOSSIBLE)
        return logits + bias

    def loss(self, frames: torch.Tensor, targets: AlignmentTargets, embedding: nn.Embedding) -> torch.Tensor:
        """Sum over target tokens: CTC for transcripts, whose tokens come in order, `naming_loss` for names.

        Args:
            frames: projected frames of all clips with a target, in the order of `targets`, [all frames, width].
            targets: of these clips; one too short for its transcript adds nothing.
            embedding: the language model's embeddings, which get no gradient here.
        """
        tokens = targets.tokens
        is_target = torch.zeros(embedding.num_embeddings, dtype=torch.bool, device=tokens.device)
        is_target = is_target.index_fill(0, tokens, True)
        with torch.no_grad():
            rows = embedding.weight.index_select(0, torch.cat((tokens, self.vocabulary)))
        excluded = torch.cat((torch.zeros_like(tokens, dtype=torch.bool), is_target.index_select(0, self.vocabulary)))
        logits = self.logits(frames, rows, excluded).float()
        own, others = logits.split((1 + len(tokens), len(self.vocabulary)), dim=-1)
        if len(self.vocabulary):  # a single class for all other tokens keeps the sums exact and the lattice small
            others = others.logsumexp(-1, keepdim=True)
        log_probs = torch.cat((own, others), dim=-1).log_softmax(-1)
        loss = logits.new_zeros(())
        transcribed = sum(targets.transcripts.clips.lengths) if targets.transcripts else 0
        if targets.transcripts:
            loss = loss + ctc_loss(log_probs[:transcribed], targets.transcripts)
        if targets.names:
            loss = loss + NAMING_WEIGHT * naming_loss(log_probs[transcribed:], targets.names)
        return loss


def save_head(head: AlignmentHead, folder: str | Path) -> None:
    """Write the head beside the model, as `alignment.safetensors`; `load_head` reads it."""
    save_file({name: value.contiguous() for name, value in head.state_dict().items()}, Path(folder, HEAD_FILE))


def load_head(folder: str | Path) -> AlignmentHead | None:
    """The alignment head of a model's folder, or None where it has none."""
    path = Path(folder, HEAD_FILE)
    if not path.is_file():
        return None
    state = load_file(path)
    head = AlignmentHead(len(state["blank"]), state["vocabulary"].tolist())
    head.load_state_dict(state)
    return head
