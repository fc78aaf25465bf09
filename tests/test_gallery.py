"""The shipped model on the shipped clips: visitors get what the gallery promises."""

import pytest

from qwen_audio_chat.answering import answer
from qwen_audio_chat.demo.examples import load_examples
from qwen_audio_chat.evaluation.metrics import edit_counts
from qwen_audio_chat.evaluation.normalization import normalize
from qwen_audio_chat.loading import POCKET, load
from qwen_audio_chat.prompts.conversation import Conversation
from qwen_audio_chat.prompts.tags import parse_words
from qwen_audio_chat.resources import EXAMPLES

EXPECTED = {
    "A voice menu": "press one to enter an extension, press two to use the directory",
    "Two prompts at once": "I'm sorry, that number is not valid",
    "The time of each word": "please enter your new password followed by the pound key",
    "What is playing?": "guitar",
    "Two instruments": "Audio 2.",
}


@pytest.fixture(scope="module")
def gallery(tmp_path_factory):
    return {each["title"]["en"]: each for each in load_examples(EXAMPLES, tmp_path_factory.mktemp("pictures"))}


def test_every_example_is_tested(gallery):
    assert set(gallery) == set(EXPECTED)


@pytest.mark.slow
@pytest.mark.parametrize("title", EXPECTED)
def test_the_shipped_model_is_right_about_the_shipped_clips(gallery, title):
    example = gallery[title]
    conversation = Conversation().ask(example["question"]["en"], example["files"])
    answered = answer(load(str(POCKET), device="cpu"), conversation).finish().text
    if title == "The time of each word":
        words = parse_words(answered)
        assert all(0 <= word.start < word.end <= 3.6 for word in words)
        answered = " ".join(word.word for word in words)
    expected, answered = (normalize(text, "whisper_english") for text in (EXPECTED[title], answered))
    [errors], [count] = edit_counts([expected], [answered], "word")
    assert errors <= 0.15 * count, answered
