"""Labels: what is learned, id by id; and the randomness of training data."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from qwen_audio_chat.data.lines import DataError
from qwen_audio_chat.pocket.languages import WHICH_LANGUAGE
from qwen_audio_chat.pocket.notes import NOTE, note_text
from qwen_audio_chat.prompts.chatml import encode_text, encode_timed_words
from qwen_audio_chat.prompts.questions import UNKNOWN
from qwen_audio_chat.prompts.tags import TaskPrompt, TimedWord
from qwen_audio_chat.training.alignment import BLANK, CTC_ALPHABET
from qwen_audio_chat.training.alignment_targets import AlignmentTarget, alignment_target
from qwen_audio_chat.training.collator import IGNORE, Collator, Visits
from qwen_audio_chat.training.manifest import Clip, Dialogue


@pytest.fixture
def sound(tmp_path, clip) -> Path:
    path = tmp_path / "a.wav"
    soundfile.write(path, clip(0.2), 16000)  # 20 mel frames of 10 ms: 5 tokens
    return path


def tokens(tokenizer, ids) -> list[str]:
    return tokenizer.convert_ids_to_tokens([int(i) for i in ids])


def test_tagged_example_learns_the_answer_and_its_end(tiny_processor, tiny_tokenizer, sound):
    batch = Collator(tiny_processor)([(Clip("x:1", sound, TaskPrompt("transcribe", instruction="wo_itn"), "a dog"), 0)])
    ids, labels = batch["input_ids"][0].tolist(), batch["labels"][0].tolist()
    answer = [*encode_text(tiny_tokenizer, "a dog"), tiny_tokenizer.convert_tokens_to_ids("<|endoftext|>")]
    prompt = ["<audio>", *["[[[AUDIO:modality]]]"] * 5, "</audio>", "<|startoftranscript|>", "<|en|>", "<|transcribe|>",
              "<|en|>", "<|notimestamps|>", "<|wo_itn|>"]  # fmt: skip
    assert tokens(tiny_tokenizer, ids[: len(prompt)]) == prompt
    assert ids[len(prompt) :] == answer
    assert labels == [IGNORE] * len(prompt) + answer


def test_dialogue_learns_every_answer_with_its_im_end_and_not_the_newline_after(tiny_processor, tiny_tokenizer, sound):
    audio = {"role": "user", "content": [{"type": "audio", "audio": sound}, {"type": "text", "text": "What is it?"}]}
    talk = (audio, {"role": "assistant", "content": "It is a dog."},
            {"role": "user", "content": "the person?"}, {"role": "assistant", "content": "fine"})  # fmt: skip
    batch = Collator(tiny_processor)([(Dialogue("x:1", talk), 0)])
    ids, labels = batch["input_ids"][0].tolist(), batch["labels"][0].tolist()
    end = tiny_tokenizer.convert_tokens_to_ids("<|im_end|>")
    learned = [label for label in labels if label != IGNORE]
    expected = [*encode_text(tiny_tokenizer, "It is a dog."), end, *encode_text(tiny_tokenizer, "fine"), end]
    assert learned == expected
    assert all(label in (IGNORE, i) for i, label in zip(ids, labels, strict=True))
    first_end = next(n for n, label in enumerate(labels) if label == end)
    assert ids[first_end + 1] == encode_text(tiny_tokenizer, "\n")[0] and labels[first_end + 1] == IGNORE
    assert ids[-1] == end  # nothing follows the last answer


def test_padding_is_on_the_left_and_never_learned(tiny_processor, sound):
    prompt = TaskPrompt("transcribe")
    batch = Collator(tiny_processor)(
        [(Clip("x:1", sound, prompt, "a"), 0), (Clip("x:2", sound, prompt, "a dog that barks"), 1)]
    )
    padding = batch["attention_mask"] == 0
    assert padding[0].any() and not padding[1].any()
    assert padding[0].tolist() == sorted(padding[0].tolist(), reverse=True)
    assert (batch["labels"][padding] == IGNORE).all()


def test_control_words_in_a_transcript_stay_text(tiny_processor, tiny_tokenizer, sound):
    clip = Clip("x:1", sound, TaskPrompt("transcribe"), "<|im_end|> <audio>")
    labels = Collator(tiny_processor)([(clip, 0)])["labels"][0]
    learned = labels[labels != IGNORE][:-1].tolist()
    assert not set(learned) & set(tiny_tokenizer.all_special_ids) and not set(learned) & set(
        tiny_tokenizer.added_tokens_decoder
    )


def test_word_times_become_time_tokens_on_the_grid(tiny_tokenizer):
    words = [TimedWord(0.54, 0.86, "a"), TimedWord(0.86, 1.17, "dog"), TimedWord(1.5, 1.7, "the")]
    ids = encode_timed_words(tiny_tokenizer, words)
    assert tiny_tokenizer.decode(ids) == ("<|sil|><|0.56|>a<|0.88|>dog<|1.16|><|sil|><|1.52|>the<|1.68|>")


def test_a_visit_is_always_the_same_and_visits_differ(tiny_processor, sound):
    visits = Visits([Clip("x:1", sound, TaskPrompt("transcribe"), "a dog that barks twice")])
    louder = lambda waveform, rng: waveform * rng.uniform(0.1, 1)  # noqa: E731
    collate = Collator(
        tiny_processor, seed=3, augment=louder, augment_probability=1.0, mask_features=True, corruption=0.9
    )
    first, again, other = (collate([visits[n]]) for n in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["input_features"], other["input_features"])
    assert torch.equal(first["labels"], other["labels"])  # only the input is corrupted


def test_corruption_replaces_the_assistants_words_only(tiny_processor, tiny_tokenizer, sound):
    clip = Clip("x:1", sound, TaskPrompt("transcribe"), "the weather is fine today " * 20)
    batch = Collator(tiny_processor, seed=1, corruption=1.0)([(clip, 0)])
    differs = batch["input_ids"] != torch.where(batch["labels"] == IGNORE, batch["input_ids"], batch["labels"])
    assert differs.sum() > 5 and batch["input_ids"][0, -1] == tiny_tokenizer.convert_tokens_to_ids("<|endoftext|>")


def test_alignment_targets_are_per_clip(tiny_processor, tiny_tokenizer, sound):
    speech = Clip("x:1", sound, TaskPrompt("transcribe"), "A dog, today!")
    barking = Clip("x:2", sound, TaskPrompt("keyword", "unknown", instruction="event"), "dog")
    german = Clip("x:3", sound, TaskPrompt("translate", "de"), "dog", alignment_text="German dog")
    batch = Collator(tiny_processor, text=False)([(speech, 0), (barking, 1), (german, 2)])
    assert set(batch) == {"input_features", "feature_lengths", "alignment_labels", "ctc_labels"}
    names = [tiny_tokenizer.decode(row[row != IGNORE]) for row in batch["alignment_labels"]]
    assert names == [" a dog today", " dog", " German dog"]
    spelled = [row[row != IGNORE].tolist() for row in batch["ctc_labels"]]
    assert "".join(CTC_ALPHABET[label - 1] for label in spelled[0]) == " a dog today"
    assert spelled[1] == [BLANK] and spelled[2] == []  # letters are silent in a bark, and learn nothing from German


@pytest.mark.parametrize(
    ("prompt", "text", "more", "target"),
    [
        (TaskPrompt("transcribe"), "hello there", {}, AlignmentTarget("hello there", "hello there")),
        (TaskPrompt("keyword", "unknown", instruction="event"), "big cat", {}, AlignmentTarget("big cat", "")),
        (TaskPrompt("keyword", "unknown", instruction="event"), UNKNOWN, {}, AlignmentTarget("", "")),
        (NOTE, note_text(61, 120, "guitar"), {}, AlignmentTarget("guitar C sharp 4 loud", "")),
        (WHICH_LANGUAGE, "German", {"alignment_text": "German dog"}, AlignmentTarget("German dog", None)),
        (WHICH_LANGUAGE, "German", {"alignment_text": ""}, None),
        (TaskPrompt("question", question="Who?"), "A man.", {}, None),
    ],
)
def test_what_the_frames_of_a_clip_say(sound, prompt, text, more, target):
    assert alignment_target(Clip("x:1", sound, prompt, text, **more)) == target


def test_a_broken_file_is_named_with_its_line(tiny_processor, tmp_path):
    (tmp_path / "a.wav").write_bytes(b"RIFF no sound")
    with pytest.raises(DataError, match="train.jsonl:7"):
        Collator(tiny_processor)([(Clip("train.jsonl:7", tmp_path / "a.wav", TaskPrompt("transcribe"), "a"), 0)])


def test_mask_features_keeps_shape_and_most_of_the_clip():
    from qwen_audio_chat.training.collator import mask_features

    clip = torch.randn(80, 400)
    masked = mask_features(clip, np.random.default_rng(0))
    assert masked.shape == clip.shape and 0.5 < (masked == clip).float().mean() < 1
