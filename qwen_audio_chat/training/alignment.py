"""Stage 0: put audio frames where the language model's own token embeddings lie, by CTC through those embeddings.

Connectionist temporal classification (Graves et al., 2006) needs a class for each token: here it is the token's
embedding, so a frame that scores well *is* close to what the language model already reads. Both sides are normalised,
because the model reads directions: with plain dot products the frames grow long and stay far off (cosine 0.18).

Beside it, the model's own `ctc_head` spells the same frames: letters are heard often enough to be learned soon, and
keep in the frames what tells rare words apart. The frames of what isn't English speech say what it is, all of them.
"""

import json
import math
import random
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import BPE
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerFast

from ..ctc.forced_alignment import ctc_classes

HEAD_FILE = "alignment.safetensors"
MERGES = 5000
BLANK = 0  # the class of a frame that says nothing
NAMING_WEIGHT = 8.0  # of a name's token beside one of a transcript, which has ten times as many
CTC_ALPHABET = " 'abcdefghijklmnopqrstuvwxyz"


def ctc_text(text: str) -> str:
    """A transcript as the alignment spells it: lower case, a space before each word, apostrophes but no punctuation."""
    kept = "".join(char if char.isalnum() or char == "'" else " " for char in text.lower().replace("’", "'"))
    return "".join(f" {word}" for word in kept.split())


def short_tokenizer(tokenizer: PreTrainedTokenizerFast, merges: int = MERGES) -> Tokenizer:
    """The tokenizer cut down to its first merges: the same ids, but rare words are spelled in common pieces.

    With all 48,900 merges of SmolLM2, 29 % of the tokens of unseen text occur fewer than 20 times in 7,000 training
    clips, and a frame never learns them; the language model mends the spelling.
    """
    short = getattr(tokenizer, "_short_tokenizer", None)
    if short is None:
        backend = tokenizer.backend_tokenizer
        model = json.loads(backend.to_str())["model"]
        pairs = [tuple(pair) if isinstance(pair, list) else tuple(pair.split(" ")) for pair in model["merges"]]
        short = Tokenizer(BPE(model["vocab"], pairs[:merges]))
        short.normalizer = backend.normalizer
        short.pre_tokenizer = backend.pre_tokenizer
        tokenizer._short_tokenizer = short
    return short


def ctc_targets(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    """Ids of `ctc_text` in common pieces."""
    return short_tokenizer(tokenizer).encode(ctc_text(text), add_special_tokens=False).ids


def name_targets(tokenizer: PreTrainedTokenizerFast, name: str) -> list[int]:
    """Ids of a name as the language model writes it: few names are heard often, so whole words are learned."""
    return tokenizer.encode(f" {name}", add_special_tokens=False) if name else []


def ctc_head_targets(text: str) -> list[int]:
    """Classes of the `ctc_head` for `ctc_text`; what isn't in `CTC_ALPHABET` is left out."""
    return ctc_classes(ctc_text(text), CTC_ALPHABET)


def ctc_loss(log_probs: Sequence[torch.Tensor], targets: Sequence[Sequence[int]]) -> torch.Tensor:
    """Sum of the CTC losses of clips; one too short for its own target counts nothing.

    Args:
        log_probs: of each clip, [frames, classes], blank first.
        targets: classes of each clip.
    """
    return F.ctc_loss(
        nn.utils.rnn.pad_sequence(list(log_probs)),
        torch.tensor([label for row in targets for label in row], device=log_probs[0].device),
        torch.tensor([len(clip) for clip in log_probs]),
        torch.tensor([len(row) for row in targets]),
        reduction="sum",
        zero_infinity=True,
    )


def naming_loss(log_probs: Sequence[torch.Tensor], targets: Sequence[Sequence[int]]) -> torch.Tensor:
    """Sum over the tokens of clips' names of how surprising it is that a frame, drawn at random, says the token.

    CTC would be content with one frame that does, and teach all others to be silent; after 250 steps every sound was a
    drum, the most frequent one. Arguments as those of `ctc_loss`.
    """
    losses = [
        math.log(len(clip)) - clip[:, sorted(set(row))].logsumexp(0)
        for clip, row in zip(log_probs, targets, strict=True)
    ]
    return torch.cat(losses).sum()


class AlignmentHead(nn.Module):
    """Cosine logits of frames against embeddings, with a blank class of its own.

    Args:
        width: size of the language model's embeddings.
        vocabulary: ids that a frame may stand for (all tokens of the training texts).
    """

    def __init__(self, width: int, vocabulary: Sequence[int], temperature: float = 18.0):
        super().__init__()
        self.temperature = nn.Parameter(torch.tensor(temperature))
        self.blank = nn.Parameter(F.normalize(torch.randn(width), dim=0))
        self.blank_bias = nn.Parameter(torch.zeros(()))
        self.register_buffer("vocabulary", torch.tensor(sorted(set(vocabulary))))

    def logits(self, frames: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
        """frames [..., width] against embeddings [n, width]: [..., 1 + n], blank first."""
        rows = F.normalize(embeddings, dim=-1)
        rows = torch.cat((F.normalize(self.blank, dim=0)[None], rows))
        logits = self.temperature * F.linear(F.normalize(frames, dim=-1), rows)
        bias = F.pad(self.blank_bias[None], (0, len(rows) - 1))
        return logits + bias

    def loss(
        self,
        clips: Sequence[torch.Tensor],
        targets: Sequence[Sequence[int]],
        in_order: Sequence[bool],
        embedding: nn.Embedding,
    ) -> torch.Tensor:
        """Loss per target token, a scalar: CTC for what is said, one word after the other, `naming_loss` for the rest.

        Args:
            clips: projected frames of each clip, [frames, width].
            targets: token ids of each clip's transcript or name; a clip too short for its transcript counts nothing.
            in_order: whether each clip says its tokens.
            embedding: the language model's embeddings; they are not trained here.
        """
        tokens = torch.tensor(sorted({token for row in targets for token in row}), device=self.vocabulary.device)
        others = self.vocabulary[~torch.isin(self.vocabulary, tokens)]
        with torch.no_grad():
            rows = embedding.weight[torch.cat((tokens, others))]
        logits = self.logits(torch.cat(list(clips)), rows).float()
        own, rest = logits.split((1 + len(tokens), len(others)), dim=-1)
        if rest.shape[-1]:  # one class "something else" keeps the sums exact and the lattice small
            rest = rest.logsumexp(-1, keepdim=True)
        log_probs = torch.cat((own, rest), dim=-1).log_softmax(-1).split([len(clip) for clip in clips])
        places = {token: place for place, token in enumerate(tokens.tolist(), start=1)}
        rows = [[places[token] for token in row] for row in targets]
        loss = logits.new_zeros(())
        for said, each, weight in ((True, ctc_loss, 1.0), (False, naming_loss, NAMING_WEIGHT)):
            chosen = [n for n, ordered in enumerate(in_order) if ordered == said]
            if chosen:
                loss = loss + weight * each([log_probs[n] for n in chosen], [rows[n] for n in chosen])
        return loss / max(1, sum(map(len, targets)))


def fit_head(model, collate, examples: Sequence, seed: int, clips: int = 32, steps: int = 60) -> None:
    """Fit a new `model.alignment_head` to the frames as they are, which a model that has learned keeps otherwise.

    With a random blank the loss of the shipped pocket is six times as high as with one that fits.

    Args:
        model: `QwenAudioForTraining`.
        collate: `collator.Collator` without text.
        examples: with targets of the alignment.
        seed: draws the clips.
    """
    chosen = random.Random(seed).sample(list(examples), min(clips, len(examples)))
    batch = collate([(example, 0) for example in chosen])
    with torch.no_grad():
        frames = model.get_audio_features(batch["input_features"], batch["feature_lengths"])
    optimizer = torch.optim.Adam(model.alignment_head.parameters(), lr=0.05)
    for _ in range(steps):
        loss = model.alignment_loss(frames, batch["alignment_labels"], batch["ctc_labels"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


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
