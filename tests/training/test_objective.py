"""The losses: equal to straightforward ones, clip by clip, and computed without waiting for the device."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import soundfile
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from qwen_audio_chat.errors import UserError
from qwen_audio_chat.prompts.questions import UNKNOWN
from qwen_audio_chat.prompts.tags import TaskPrompt
from qwen_audio_chat.training.alignment import BLANK, CTC_ALPHABET, NAMING_WEIGHT, AlignmentHead
from qwen_audio_chat.training.alignment_targets import alignment_vocabulary
from qwen_audio_chat.training.collator import IGNORE, Collator, TrainingCollator
from qwen_audio_chat.training.loss_indices import LossIndices
from qwen_audio_chat.training.manifest import Clip, Dialogue, Example
from qwen_audio_chat.training.objective import QwenAudioForTraining
from tests.conftest import build_tiny_model

EVENT = TaskPrompt("keyword", "unknown", instruction="event")
TEXT_TYPES = ("llama", "qwen_audio_text")


@pytest.fixture(scope="module")
def examples(tmp_path_factory) -> dict[str, list[Example]]:
    """Examples of every kind, with clips of different lengths."""
    folder, rng = tmp_path_factory.mktemp("clips"), np.random.default_rng(0)
    paths = []
    for n, seconds in enumerate((1.3, 0.7, 2.1, 0.9, 1.1, 0.04)):
        paths.append(folder / f"{n}.wav")
        soundfile.write(paths[-1], 0.2 * rng.standard_normal(round(16000 * seconds)), 16000)
    question = [{"type": "audio", "audio": paths[0]}, {"type": "audio", "audio": paths[3]},
                {"type": "text", "text": "Which of them is music?"}]  # fmt: skip
    speech: list[Example] = [
        Clip("x:1", paths[0], TaskPrompt("transcribe"), "the weather is fine today"),
        Clip("x:2", paths[5], TaskPrompt("transcribe"), "too long for such a clip"),
    ]
    sounds: list[Example] = [
        Clip("x:3", paths[1], EVENT, "dog"),
        Clip("x:4", paths[2], EVENT, "piano plays the piano"),
        Clip("x:5", paths[3], EVENT, UNKNOWN),  # teaches silence
        Clip("x:6", paths[4], TaskPrompt("translate", "de"), "dog", alignment_text="German dog"),
    ]
    text = [
        Dialogue("x:7", ({"role": "user", "content": "What is it?"}, {"role": "assistant", "content": "It is a dog."}))
    ]
    two_audios = [Dialogue("x:8", ({"role": "user", "content": question}, {"role": "assistant", "content": "fine"}))]
    return {"mixed": speech + sounds + text + two_audios, "speech": speech, "sounds": sounds, "text": text,
            "two audios": two_audios + text, "silence": sounds[2:3]}  # fmt: skip


@pytest.fixture(params=TEXT_TYPES)
def model(request, tiny_tokenizer, examples) -> QwenAudioForTraining:
    return trainable(request.param, tiny_tokenizer, examples)


def trainable(text_type: str, tokenizer, examples) -> QwenAudioForTraining:
    """A tiny model with all its heads, also the CTC head that the official layout lacks."""
    tiny = build_tiny_model(tokenizer, text_type)
    tiny.config.ctc_alphabet = CTC_ALPHABET
    torch.manual_seed(1)
    made = QwenAudioForTraining(tiny.config)
    made.load_state_dict(tiny.state_dict(), strict=False)
    vocabulary = alignment_vocabulary(tokenizer, examples["mixed"])
    made.attach_alignment(AlignmentHead(tiny.config.text_config.hidden_size, [*vocabulary[1:], 5, 6, 7]), 0.3)
    made.tie_weights()
    return made.train()


def reference_ctc(log_probs: Sequence[torch.Tensor], targets: Sequence[Sequence[int]]) -> torch.Tensor:
    """Sum over clips [frames, classes], one by one."""
    losses = [
        F.ctc_loss(
            clip, torch.tensor(row, dtype=torch.long), torch.tensor(len(clip)), torch.tensor(len(row)),
            reduction="sum", zero_infinity=True,
        )
        for clip, row in zip(log_probs, targets, strict=True)
    ]  # fmt: skip
    return torch.stack(losses).sum()


def reference_alignment(
    head: AlignmentHead, clips: Sequence[torch.Tensor], targets: Sequence[Sequence[int]], ordered: Sequence[bool],
    table: torch.Tensor,
) -> torch.Tensor:  # fmt: skip
    """Sum of CTC and naming losses, with a class for each target token of the batch and one for all other tokens."""
    tokens = sorted({token for row in targets for token in row})
    others = [token for token in head.vocabulary.tolist() if token not in tokens]
    loss = torch.zeros(())
    for clip, row, is_transcript in zip(clips, targets, ordered, strict=True):
        logits = head.logits(clip, table.detach()[tokens + others])
        own, rest = logits[:, : 1 + len(tokens)], logits[:, 1 + len(tokens) :]
        log_probs = torch.cat((own, rest.logsumexp(-1, keepdim=True)), -1).log_softmax(-1)
        classes = [1 + tokens.index(token) for token in row]
        if is_transcript:
            loss = loss + reference_ctc([log_probs], [classes])
        else:
            for label in set(classes):
                loss = loss + NAMING_WEIGHT * (math.log(len(clip)) - log_probs[:, label].logsumexp(0))
    return loss


def reference_losses(model: QwenAudioForTraining, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Losses of a batch of the plain `Collator`, padded on the left and masked."""
    losses, clips = {}, []
    if "input_features" in batch:
        clips = model.get_audio_features(batch["input_features"], batch["feature_lengths"])
    if "labels" in batch:
        hidden = model.model(
            inputs_embeds=model.model.embed(batch["input_ids"], clips), attention_mask=batch["attention_mask"]
        ).last_hidden_state
        logits, labels = model.lm_head(hidden[:, :-1]), batch["labels"][:, 1:]
        losses["language_loss"] = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORE)
    if "alignment_labels" in batch:
        assert model.alignment_head is not None and model.ctc_head is not None
        targets, letters = ([row[row != IGNORE].tolist() for row in batch[name]]
                            for name in ("alignment_labels", "ctc_labels"))  # fmt: skip
        spelled = [[letter for letter in row if letter != BLANK] for row in letters]
        named = [n for n, row in enumerate(targets) if row]
        loss = torch.zeros(())
        if named:
            loss = loss + reference_alignment(
                model.alignment_head, [clips[n] for n in named], [targets[n] for n in named],
                [bool(spelled[n]) for n in named], model.get_input_embeddings().weight,
            )  # fmt: skip
        for n, row in enumerate(letters):
            if row:
                loss = loss + reference_ctc([model.ctc_head(clips[n]).log_softmax(-1)], [spelled[n]])
        losses["alignment_loss"] = loss / max(1, sum(map(len, targets)))
    total = losses.get("language_loss", 0.0) + model.alignment_weight * losses.get("alignment_loss", 0.0)
    return {"loss": total, **losses}


def gradients(model: nn.Module, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "text"),
    [("mixed", True), ("mixed", False), ("speech", True), ("speech", False), ("sounds", True), ("sounds", False),
     ("silence", True), ("silence", False), ("text", True), ("two audios", True)],
)  # fmt: skip
def test_losses_and_gradients_equal_those_computed_clip_by_clip(tiny_processor, model, examples, kind, text):
    visits = [(example, n) for n, example in enumerate(examples[kind])]
    expected = reference_losses(model, Collator(tiny_processor, text=text)(visits))
    actual = model(**TrainingCollator(tiny_processor, text=text)(visits))
    assert set(actual) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value, rtol=1e-6, atol=1e-6)
    before, after = gradients(model, expected["loss"]), gradients(model, actual["loss"])
    after = {name: value for name, value in after.items() if name in before or value.any()}
    assert set(after) == {name for name, value in before.items() if name in after or value.any()}
    for name, value in after.items():  # by norm: float32 rounds single elements by the order of sums, up to 2e-6 here
        assert float((value - before[name]).norm()) <= 3e-6 * max(1.0, float(before[name].norm())), name
    if kind == "mixed":
        parts = {"audio_tower", "projector", "ctc_head", "alignment_head"} | ({"language_model"} if text else set())
        assert parts <= {part for name in after for part in name.split(".")}


@pytest.mark.parametrize("text_type", TEXT_TYPES)
def test_padded_rows_keep_their_positions_beyond_the_trained_length(
    tiny_processor, tiny_tokenizer, examples, text_type
):
    model = trainable(text_type, tiny_tokenizer, examples).eval()  # dynamic NTK and log-n act outside of training only
    model.config.text_config.max_position_embeddings = 48  # the batch has rows below, and rows beyond
    visits = [(example, n) for n, example in enumerate(examples["mixed"])]
    with torch.no_grad():
        expected = reference_losses(model, Collator(tiny_processor)(visits))
        actual = model(**TrainingCollator(tiny_processor)(visits))
    torch.testing.assert_close(actual["language_loss"], expected["language_loss"], rtol=1e-5, atol=1e-6)


def test_padding_is_on_the_right_and_never_learned(tiny_processor, tiny_tokenizer, examples):
    batch = TrainingCollator(tiny_processor)([(example, 0) for example in examples["mixed"]])
    text, length = batch["indices"].text, batch["input_ids"].shape[1]
    padding = torch.arange(length) >= text.row_lengths[:, None]
    assert padding.any() and (batch["input_ids"][padding] == tiny_tokenizer.pad_token_id).all()
    assert not padding.flatten()[text.placeholders].any() and not padding.flatten()[text.predicting + 1].any()
    assert len(text.placeholders) == len(text.audio_frames) == len(set(text.audio_frames.tolist()))


class RefuseWaiting(TorchDispatchMode):
    """Fails at operators whose result Python must wait for."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket in (torch.ops.aten._local_scalar_dense, torch.ops.aten.nonzero):
            raise AssertionError(f"{func} waits for the device")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", ["mixed", "text"])
def test_the_losses_never_wait_for_the_device(tiny_processor, model, examples, kind):
    batch = TrainingCollator(tiny_processor)([(example, n) for n, example in enumerate(examples[kind])])
    with RefuseWaiting():
        outputs = model(**batch)
        outputs["loss"].backward()
    assert torch.isfinite(outputs["loss"])
    with pytest.raises(AssertionError, match="waits"), RefuseWaiting():
        torch.tensor([0, 1]).nonzero()


@pytest.mark.parametrize("text_type", TEXT_TYPES)
def test_the_losses_never_read_a_tensor(tiny_processor, tiny_tokenizer, examples, text_type):
    batch = TrainingCollator(tiny_processor)([(example, n) for n, example in enumerate(examples["mixed"])])
    model = trainable(text_type, tiny_tokenizer, examples).to("meta")  # which has shapes, but nothing to read
    outputs = model(**{name: value.to("meta") for name, value in batch.items()})
    assert outputs["loss"].device.type == "meta"
    with pytest.raises((RuntimeError, NotImplementedError)):
        batch["input_ids"].to("meta").tolist()


def test_indices_move_as_one_and_lengths_stay_numbers(tiny_processor, examples):
    batch = TrainingCollator(tiny_processor)([(example, n) for n, example in enumerate(examples["mixed"])])
    moved = batch["indices"].to("meta")
    assert isinstance(moved, LossIndices) and moved.alignment.tokens.device.type == "meta"
    assert moved.text.targets.device.type == moved.ctc.clips.cells.device.type == "meta"
    assert moved.ctc.lengths == batch["indices"].ctc.lengths
    assert batch["indices"].text.targets.device.type == "cpu"


@pytest.mark.slow
@pytest.mark.parametrize("text_type", TEXT_TYPES)
def test_compiled_layers_give_the_same_losses(tiny_processor, tiny_tokenizer, examples, text_type):
    model = trainable(text_type, tiny_tokenizer, examples)
    collate = TrainingCollator(tiny_processor)
    batches = [collate([(example, n) for n, example in enumerate(examples[kind])]) for kind in ("mixed", "sounds")]
    expected = [model(**batch) for batch in batches]
    expected_gradients = [gradients(model, outputs["loss"]) for outputs in expected]
    model.compile_layers("cpu")
    for batch, outputs, before in zip(batches, expected, expected_gradients, strict=True):
        actual = model(**batch)
        torch.testing.assert_close(actual["loss"], outputs["loss"], rtol=1e-5, atol=1e-5)
        for name, value in gradients(model, actual["loss"]).items():
            torch.testing.assert_close(value, before[name], rtol=1e-3, atol=1e-3)


def test_a_missing_compiler_is_one_sentence(tiny_tokenizer, examples, monkeypatch):
    def compile_nothing(*args, **kwargs):
        raise RuntimeError("No working C++ compiler found\nlong text")

    monkeypatch.setattr(torch, "compile", compile_nothing)
    with pytest.raises(UserError, match="--compile needs a C\\+\\+ compiler.*No working C\\+\\+ compiler found\\)"):
        trainable("llama", tiny_tokenizer, examples).compile_layers("cpu")
