"""Beams and several answers per row: every copy of a row gets its own clips."""

import pytest
import torch

from qwen_audio_chat.prompts.conversation import Conversation


@pytest.fixture
def rows(clip):
    return [
        Conversation().ask("Compare them.", [clip(1.0), clip(2.3, 900)]),
        Conversation().ask("hi"),
        Conversation().ask("What is it?", [clip(0.5, 200)]),
    ]


@torch.inference_mode()
def test_beams_of_a_batch_are_those_of_each_row(tiny_model, tiny_processor, rows):
    def beams(conversations):
        inputs = tiny_processor.apply_chat_template(conversations, add_generation_prompt=True)
        output = tiny_model.generate(**inputs, num_beams=3, num_return_sequences=3, max_new_tokens=4, do_sample=False)
        return output[:, inputs["input_ids"].shape[1] :].tolist()

    alone = [beam for row in rows for beam in beams([row])]
    assert len({tuple(beam) for beam in alone}) > 3
    assert beams(rows) == alone
