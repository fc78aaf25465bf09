"""Times of words by the letters that an audio spells."""

import itertools

import numpy as np
import pytest
import torch

from qwen_audio_chat.audio.audio import Audio
from qwen_audio_chat.ctc.forced_alignment import forced_alignment, word_times
from qwen_audio_chat.engine.sampling import GenerationOptions
from qwen_audio_chat.prompts.tags import TaskPrompt, TimedWord, parse_words, write_words
from qwen_audio_chat.training.alignment import CTC_ALPHABET
from qwen_audio_chat.transcripts.task_reply import TaskReply
from qwen_audio_chat.transcripts.timed_words import readable


def merged(path) -> tuple[int, ...]:
    return tuple(label for label, _ in itertools.groupby(path) if label)


@pytest.mark.parametrize("classes", [(), (1,), (2, 1), (1, 1), (1, 2, 1), (2, 2, 1)])
@pytest.mark.parametrize("seed", range(5))
def test_the_best_path_is_the_best_of_all_paths(classes, seed):
    log_probs = torch.randn(7, 3, generator=torch.Generator().manual_seed(seed)).log_softmax(-1).numpy()
    paths = [path for path in itertools.product(range(3), repeat=7) if merged(path) == classes]
    best = max(paths, key=lambda path: log_probs[range(7), path].sum())
    starts = [i for i, label in enumerate(best) if label and (i == 0 or best[i - 1] != label)]
    assert forced_alignment(log_probs, classes).tolist() == starts


def test_a_long_text_is_followed_to_its_end():
    classes = [1 + n % 2 for n in range(200)]
    log_probs = np.full((400, 3), np.log(0.01))
    log_probs[np.arange(400), [label for each in classes for label in (each, 0)]] = np.log(0.98)
    assert forced_alignment(log_probs, classes).tolist() == list(range(0, 400, 2))


def test_too_few_frames_have_no_path():
    log_probs = np.log(np.full((3, 3), 1 / 3))
    assert forced_alignment(log_probs, (1, 1)).tolist() == [0, 2]  # the same letter twice needs a blank between
    assert forced_alignment(log_probs, (1, 1, 2)) is None
    assert word_times("far too many letters", np.zeros((5, 1 + len(CTC_ALPHABET))), CTC_ALPHABET) == []


def heard(*letters: tuple[int, str], frames: int) -> np.ndarray:
    """Log-probabilities of a clip in which each (frame, letter) is heard clearly, and nothing between."""
    logits = np.zeros((frames, 1 + len(CTC_ALPHABET)))
    logits[:, 0] = 8
    for frame, letter in letters:
        logits[frame] = 0
        logits[frame, 1 + CTC_ALPHABET.index(letter)] = 8
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def test_words_stand_where_their_letters_are_heard():
    log_probs = heard((10, "h"), (12, "i"), (13, " "), (15, "m"), (19, "e"), (40, "o"), (44, "k"), frames=60)
    words = word_times("Hi, me 5 ok", log_probs, CTC_ALPHABET)
    assert words == [
        TimedWord(0.40, 0.56, "Hi,"),  # the gap of two frames to the next word is shared
        TimedWord(0.56, 0.80, "me"),
        TimedWord(0.80, 0.84, "5"),  # without letters, it takes one frame
        TimedWord(1.60, 1.80, "ok"),
    ]
    assert parse_words("<|0.00|>" + write_words(words)) == words


def test_numbers_in_digits_are_neither_lost_nor_beyond_the_end():
    log_probs = heard((10, "h"), (12, "i"), (19, "o"), frames=20)
    words = word_times("1984 hi 5 o 7", log_probs, CTC_ALPHABET)
    text = write_words(words)
    assert readable("<|0.00|>" + write_words(words[:-1])) == "1984 hi 5 o"
    assert [word.word for word in parse_words("<|0.00|>" + text)] == ["1984", "hi", "5", "o", "7"]
    assert words[0] == TimedWord(0.0, 0.04, "1984") and words[-1].end == 0.8


def test_a_model_that_spells_answers_with_times(tiny_chat, clip):
    task, options = TaskPrompt("transcribe", timestamps=True), GenerationOptions(max_new_tokens=6)
    reply = TaskReply(tiny_chat, task, Audio.load(clip(3.0)), options).finish()
    words = parse_words(reply.text)
    assert reply.text.startswith("<|0.00|>") and words
    assert all(0 <= word.start <= word.end <= 3 for word in words)
    assert tiny_chat.tokenizer.decode(reply.token_ids) == reply.text
