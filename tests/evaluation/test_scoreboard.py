"""The scoreboard over a small work folder, with stand-ins for the models; Whisper's plumbing on a tiny random one."""

import json

import pytest
import soundfile
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import WhisperConfig, WhisperForConditionalGeneration, WhisperTokenizerFast
from transformers.models.whisper.tokenization_whisper import LANGUAGES

from qwen_audio_chat.evaluation.baselines import chance, evenly_spaced, most_frequent
from qwen_audio_chat.evaluation.data import DataError
from qwen_audio_chat.evaluation.predictions import Prediction
from qwen_audio_chat.evaluation.prompting import Request
from qwen_audio_chat.evaluation.scoreboard import (
    CHANCE,
    FLOOR,
    POCKET_CHAT,
    POCKET_TAGS,
    WHISPER,
    held_out_sets,
    markdown,
    measure,
    whisper_for,
)
from qwen_audio_chat.evaluation.whisper import WhisperPredictor, is_language_name
from qwen_audio_chat.tags import TaskPrompt


@pytest.fixture
def work(tmp_path, clip):
    """A work folder with a held-out set of speech, sounds, languages, words and dialogues, and a training shard."""
    (tmp_path / "clips").mkdir()
    (tmp_path / "manifests").mkdir()
    for number in range(4):
        soundfile.write(tmp_path / "clips" / f"{number}.wav", clip(0.5 + 0.1 * number, 300 + 100 * number), 16000)

    def write(name, rows):
        lines = [json.dumps({"audio": f"../clips/{n}.wav", "split": "test"} | row) for n, row in enumerate(rows)]
        (tmp_path / "manifests" / f"{name}.jsonl").write_text("\n".join(lines))

    write("speech-test", [{"text": text} for text in ("one", "two", "two", "four")])
    write("speech-0001", [{"text": "never measured"}])
    sound = {"task": "keyword", "audio_language": "unknown", "instruction": "event"}
    write("sounds-test", [sound | {"text": text} for text in ("dog", "dog", "cat", "bell")])
    speech = {"task": "translate", "text_language": "en"}
    write(
        "phrases-dev",
        [speech | {"audio_language": code, "text": text} for code, text in (("fr", "hat"), ("it", "sun"))],
    )
    words = {"task": "transcribe", "timestamps": True}
    write("words-test", [words | {"text": "one two", "words": [[0.0, 0.2, "one"], [0.2, 0.5, "two"]]}])
    messages = [
        {"role": "user", "content": [{"type": "audio", "audio": "../clips/0.wav"}, {"type": "text", "text": "What?"}]},
        {"role": "assistant", "content": "A tone."},
    ]
    (tmp_path / "manifests" / "dialogues-test.jsonl").write_text(json.dumps({"messages": messages}))
    return tmp_path


def constant(text: str):
    return lambda requests: [text] * len(requests)


def scored(work, pocket, whisper, weights="old"):
    sets = {item.name: item for item in held_out_sets(work)}
    for item in sets.values():
        measure(item, pocket, whisper, work / "out", weights=weights, batch_size=2)
    return sets


def test_held_out_manifests_are_found_and_told_apart(work):
    assert {item.name: item.task.name for item in held_out_sets(work)} == {
        "speech-test": "asr",
        "sounds-test": "sound",
        "words-test": "srwt",
        "dialogues-test": "chat",
        "phrases-dev": "s2tt",
        "phrases-dev, language": "lid",
    }


def test_mixed_or_missing_manifests_are_told(work, tmp_path):
    rows = [{"audio": "../clips/0.wav", "text": "x", "task": task} for task in ("transcribe", "caption")]
    (work / "manifests" / "mixed-test.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(DataError, match="mixes the tasks aac, asr"):
        held_out_sets(work)
    with pytest.raises(DataError, match="no held-out manifests"):
        held_out_sets(tmp_path / "nowhere")


def test_systems_stand_side_by_side(work):
    applies = {}

    def whisper(held_out):
        applies[held_out.name] = held_out.task.name == "asr"
        return constant("two") if applies[held_out.name] else None

    sets = scored(work, constant("A dog."), whisper)
    value = {
        name: {system: {n: m.value for n, m in scores.items()} for system, scores in item.scores.items()}
        for name, item in sets.items()
    }
    assert value["speech-test"][POCKET_TAGS]["wer"] == 2.0  # two wrong words for each right one
    assert value["speech-test"][WHISPER]["wer"] == 0.5
    assert value["speech-test"][FLOOR]["wer"] == 0.5
    assert value["sounds-test"][POCKET_CHAT]["named_accuracy"] == 0.5
    assert value["sounds-test"][POCKET_CHAT]["accuracy"] == 0
    assert value["sounds-test"][FLOOR]["accuracy"] == 0.5
    assert value["sounds-test"][CHANCE]["accuracy"] == pytest.approx(1 / 3)
    assert WHISPER not in value["sounds-test"]
    assert value["words-test"][POCKET_TAGS]["median_shift_ms"] is None
    assert value["words-test"][FLOOR]["median_shift_ms"] == pytest.approx(25)  # 0.25 s where 0.2 s is right, twice of 4
    assert value["phrases-dev, language"][FLOOR]["accuracy"] == 0.5
    assert value["dialogues-test"][POCKET_CHAT]["contains_reference"] == 0

    table = markdown(list(sets.values()))
    [row] = [line for line in table.splitlines() if line.startswith("| sounds-test")]
    assert row.split(" | ")[2:4] == ["accuracy", "0 (0 to 0)"]
    assert row.split(" | ")[4].startswith("0.5 (")  # a chat is scored by the label it names
    assert row.endswith(" – |")


def test_a_second_call_asks_nothing_again(work):
    scored(work, constant("x"), lambda held_out: None)

    def fail(requests):
        raise AssertionError("asked again")

    assert scored(work, fail, lambda held_out: None)["speech-test"].scores[POCKET_TAGS]["wer"].value == 1
    # Newly trained weights are asked anew.
    fresh = scored(work, constant("two"), lambda held_out: None, weights="new")
    assert fresh["speech-test"].scores[POCKET_TAGS]["wer"].value == 0.5


def test_whisper_answers_what_it_can(work):
    loads = []

    def load():
        loads.append(1)
        return tiny_whisper()

    choose = whisper_for(load)
    chosen = {item.name: choose(item) is not None for item in held_out_sets(work)}
    assert chosen == {
        "speech-test": True,
        "sounds-test": False,
        "words-test": False,
        "dialogues-test": False,
        "phrases-dev": True,
        "phrases-dev, language": True,
    }
    assert len(loads) == 1
    assert is_language_name("French") and not is_language_name("dog")


def tiny_whisper() -> tuple[WhisperForConditionalGeneration, WhisperTokenizerFast]:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_tokens(sorted(pre_tokenizers.ByteLevel.alphabet()))
    special = ["<|endoftext|>", "<|startoftranscript|>", *(f"<|{code}|>" for code in LANGUAGES)]
    special += [
        "<|translate|>",
        "<|transcribe|>",
        "<|startoflm|>",
        "<|startofprev|>",
        "<|nospeech|>",
        "<|notimestamps|>",
    ]
    backend.add_special_tokens(special)
    tokenizer = WhisperTokenizerFast(tokenizer_object=backend)
    config = WhisperConfig(
        vocab_size=len(tokenizer), d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, pad_token_id=256, bos_token_id=256,
        eos_token_id=256, decoder_start_token_id=257, suppress_tokens=None, begin_suppress_tokens=None,
    )  # fmt: skip
    return WhisperForConditionalGeneration(config), tokenizer


def test_whisper_is_asked_in_the_language_of_each_clip(clip, monkeypatch):
    model, tokenizer = tiny_whisper()
    requests = [
        Request([clip(seconds)], TaskPrompt("transcribe", language, language), 8)
        for seconds, language in ((0.5, "en"), (1.0, "fr"))
    ]
    predictor = WhisperPredictor(model, tokenizer)
    seen = []
    forward = model.model.decoder.forward
    monkeypatch.setattr(
        model.model.decoder,
        "forward",
        lambda *args, **kwargs: (seen.append(kwargs["input_ids"]), forward(*args, **kwargs))[1],
    )
    assert len(predictor(requests)) == 2
    assert [tokenizer.convert_ids_to_tokens(row) for row in seen[0].tolist()] == [
        ["<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>"],
        ["<|startoftranscript|>", "<|fr|>", "<|transcribe|>", "<|notimestamps|>"],
    ]
    names = WhisperPredictor(model, tokenizer, names_language=True)(requests)
    assert all(is_language_name(name) for name in names)


def test_baselines_by_hand():
    def prediction(reference, seconds=1.0):
        return Prediction(0, "a.wav", (reference,), "x", seconds=seconds)

    rows = [prediction("dog"), prediction("cat"), prediction("dog")]
    assert [row.prediction for row in most_frequent(rows)] == ["dog"] * 3
    assert chance(rows) == 0.5
    [row] = evenly_spaced([prediction("<|0.00|><|sil|><|0.30|>one<|0.50|>two<|0.90|>", 2.0)])
    assert row.prediction == "<|0.00|>one<|1.00|>two<|2.00|>"
