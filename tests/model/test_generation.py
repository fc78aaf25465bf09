"""Beams and several answers per row: every copy of a row hears its own clips."""

import pytest
import torch

from qwen_audio_chat.chatml import Conversation


@pytest.fixture
def rows(clip):
    return [
        Conversation().ask("Compare them.", [clip(1.0), clip(2.3, 900)]),
        Conversation().ask("hi"),
        Conversation().ask("What is it?", [clip(0.5, 200)]),
    ]


def test_clips_are_copied_row_by_row(tiny_model, tiny_processor, rows):
    inputs = tiny_processor.apply_chat_template(rows, add_generation_prompt=True)
    a, b, c = inputs["feature_lengths"].tolist()
    ids, copied = tiny_model._expand_inputs_for_generation(expand_size=2, **inputs)
    assert len(ids) == 6 and copied["feature_lengths"].tolist() == [a, b, a, b, c, c]
    assert torch.equal(copied["input_features"][1], copied["input_features"][3])
