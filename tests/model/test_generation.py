"""Beams and several answers per row: every copy of a row hears its own clips."""

import pytest

from qwen_audio_chat.chatml import Conversation


@pytest.fixture
def rows(clip):
    return [
        Conversation().ask("Compare them.", [clip(1.0), clip(2.3, 900)]),
        Conversation().ask("hi"),
        Conversation().ask("What is it?", [clip(0.5, 200)]),
    ]


@pytest.mark.parametrize("settings", [dict(num_beams=3), dict(num_beams=2, num_return_sequences=2)])
def test_rows_keep_their_clips(tiny_model, tiny_processor, rows, settings):
    def answers(group):
        inputs = tiny_processor.apply_chat_template(group, add_generation_prompt=True)
        output = tiny_model.generate(**inputs, do_sample=False, max_new_tokens=6, min_new_tokens=6, **settings)
        return output[:, inputs["input_ids"].shape[1] :].tolist()

    assert answers(rows) == [answer for row in rows for answer in answers([row])]
