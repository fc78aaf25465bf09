"""What audio frames learn to say: transcripts in order, names in any."""

import math

import pytest
import torch
from torch import nn

from qwen_audio_chat.training import alignment
from qwen_audio_chat.training.alignment import NAMING_WEIGHT, AlignmentHead
from qwen_audio_chat.training.alignment_targets import alignment_target, alignment_vocabulary
from qwen_audio_chat.training.collator import TrainingCollator
from qwen_audio_chat.training.loss_indices import AlignmentTargets, CtcTargets, NameTargets
from qwen_audio_chat.training.manifest import read_manifests
from qwen_audio_chat.training.objective import fit_alignment_head
from qwen_audio_chat.training.weights import load_model

CERTAIN = torch.eye(4).clamp(min=1e-6).log()  # of each class, the log-probabilities of a frame that says it


def ctc_loss(log_probs: list[torch.Tensor], targets: list[list[int]]) -> torch.Tensor:
    """Of clips given one by one."""
    return alignment.ctc_loss(torch.cat(log_probs), CtcTargets.of([len(clip) for clip in log_probs], targets))


def naming_loss(log_probs: list[torch.Tensor], targets: list[list[int]]) -> torch.Tensor:
    """Of clips given one by one."""
    return alignment.naming_loss(torch.cat(log_probs), NameTargets.of([len(clip) for clip in log_probs], targets))


def test_every_frame_of_a_clip_should_say_its_name():
    assert naming_loss([CERTAIN[[1, 1, 1, 1]]], [[1]]).item() == pytest.approx(0, abs=1e-3)
    assert naming_loss([CERTAIN[[0, 1, 0, 1]]], [[1]]).item() == pytest.approx(math.log(2), abs=1e-3)
    either = [naming_loss([CERTAIN[frames]], [[1, 2]]).item() for frames in ([1, 2, 1, 2], [2, 2, 1, 1])]
    assert either == pytest.approx([2 * math.log(2)] * 2, abs=1e-3)


def test_order_and_repetition_in_a_name_change_nothing():
    assert naming_loss([CERTAIN[[1, 2]]], [[1, 2, 1]]).item() == naming_loss([CERTAIN[[1, 2]]], [[2, 1]]).item()


def test_every_frame_learns_a_name():
    logits = torch.zeros(50, 4, requires_grad=True)
    naming_loss([logits.log_softmax(-1)], [[2]]).backward()
    assert (logits.grad[:, 2] < 0).all() and (logits.grad[:, [0, 1, 3]] > 0).all()


def test_speech_gets_the_ctc_loss_and_everything_else_the_naming_loss():
    torch.manual_seed(0)
    head, table = AlignmentHead(8, range(10)), nn.Embedding(10, 8)
    clips, targets = [torch.randn(6, 8), torch.randn(5, 8)], [[3, 4, 3], [7]]
    rows = table.weight[[*range(10)]]
    log_probs = [head.logits(clip, rows).log_softmax(-1) for clip in clips]
    expected = ctc_loss(log_probs[:1], [[4, 5, 4]]) + NAMING_WEIGHT * naming_loss(log_probs[1:], [[8]])
    loss = head.loss(torch.cat(clips), AlignmentTargets.of([(6, targets[0])], [(5, targets[1])]), table) / 4
    torch.testing.assert_close(loss, expected / 4)
    loss.backward()
    assert table.weight.grad is None


def test_fitting_a_new_head_lowers_the_loss_and_changes_nothing_else(tiny_folder, tiny_processor, manifest):
    model = load_model(str(tiny_folder), "full")
    clips = [example for example in read_manifests([manifest]) if alignment_target(example)]
    head = AlignmentHead(model.config.text_config.hidden_size, alignment_vocabulary(tiny_processor.tokenizer, clips))
    model.attach_alignment(head, 0.1)
    before = {name: value.clone() for name, value in model.state_dict().items() if "alignment_head" not in name}
    collate = TrainingCollator(tiny_processor, text=False)
    batch = collate([(clip, 0) for clip in clips])

    def loss() -> float:
        with torch.no_grad():
            return model(**batch).alignment_loss.item()

    started = loss()
    fit_alignment_head(model, collate, clips, seed=0)
    assert loss() < 0.9 * started
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items() if name in before)
