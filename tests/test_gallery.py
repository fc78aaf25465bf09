"""The shipped model on the shipped clips: the gallery promises what visitors then get."""

import pytest

from qwen_audio_chat.answering import answer
from qwen_audio_chat.demo.examples import load_examples
from qwen_audio_chat.evaluation.metrics import edit_counts
from qwen_audio_chat.evaluation.normalization import normalize
from qwen_audio_chat.loading import POCKET, load
from qwen_audio_chat.prompts.conversation import Conversation
from qwen_audio_chat.prompts.tags import parse_words
from qwen_audio_chat.resources import EXAMPLES

RIGHT = {
    "A voice menu": "press one to enter an extension, press two to use the directory",
    "Two prompts at once": "I'm sorry, that number is not valid",
    "The time of each word": "please enter your new password followed by the pound key",
    "What is playing?": "guitar",
    "Two instruments": "Audio 2.",
}


@pytest.fixture(scope="module")
def gallery(tmp_path_factory):
    return {each["title"]["en"]: each for each in load_examples(EXAMPLES, tmp_path_factory.mktemp("pictures"))}


def test_every_example_is_asked(gallery):
    assert set(gallery) == set(RIGHT)


@pytest.mark.parametrize("title", RIGHT)
def test_the_shipped_model_is_right_about_the_shipped_clips(gallery, title):
    example = gallery[title]
    talk = Conversation().ask(example["question"]["en"], example["files"])
    said = answer(load(str(POCKET), device="cpu"), talk).finish().text
    if title == "The time of each word":
        words = parse_words(said)
        assert all(0 <= word.start < word.end <= 3.6 for word in words)
        said = " ".join(word.word for word in words)
    wanted, said = (normalize(text, "whisper_english") for text in (RIGHT[title], said))
    [wrong], [count] = edit_counts([wanted], [said], "word")
    assert wrong <= 0.15 * count, said
