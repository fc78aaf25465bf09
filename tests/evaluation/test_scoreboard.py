"""The scoreboard over a small work folder, with stand-ins for the models; Whisper's plumbing on a tiny random one."""

import json

import pytest
import soundfile
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import WhisperConfig, WhisperForConditionalGeneration, WhisperTokenizerFast
from transformers.models.whisper.tokenization_whisper import LANGUAGES

from qwen_audio_chat.evaluation.baselines import evenly_spaced, most_frequent
from qwen_audio_chat.evaluation.data import DataError
from qwen_audio_chat.evaluation.held_out import held_out_sets
from qwen_audio_chat.evaluation.predictions import Prediction
from qwen_audio_chat.evaluation.prompting import Request
from qwen_audio_chat.evaluation.scoreboard import (
    CHANCE,
    FLOOR,
    POCKET_CHAT,
    POCKET_TAGS,
    WHISPER,
    figures,
    markdown,
    measure,
    whisper_for,
)
from qwen_audio_chat.evaluation.whisper import WhisperPredictor, is_language_name
from qwen_audio_chat.tags import TaskPrompt


@pytest.fixture
def work(tmp_path, clip):
    """A work folder with held-out speech, sounds, silence, phrases, languages, notes and words, and training lines."""
    (tmp_path / "clips").mkdir()
    (tmp_path / "manifests").mkdir()
    for number in range(6):
        soundfile.write(tmp_path / "clips" / f"{number}.wav", clip(0.5 + 0.1 * number, 300 + 100 * number), 16000)

    def write(name, rows):
        common = {"split": "test", "seconds": 1.0}
        lines = [json.dumps({"audio": f"../clips/{n}.wav"} | common | row) for n, row in enumerate(rows)]
        (tmp_path / "manifests" / f"{name}.jsonl").write_text("\n".join(lines))

    write("speech-human-test", [{"text": text} for text in ("one", "two", "two", "four")])
    write("speech-flite-0001", [{"text": "never measured", "split": "train"}])
    sound = {"task": "keyword", "audio_language": "unknown", "instruction": "event"}
    labels = ("dog", "dog", "cat", "bell", "unknown")
    write("sounds", [*(sound | {"text": text} for text in labels), sound | {"text": "horn", "split": "train"}])
    phrase = {"task": "translate", "text_language": "en", "audio_language": "fr"}
    name = {"task": "question", "question": "Which language is this?", "audio_language": "unknown"}
    write(
        "languages-x",
        [phrase | {"text": "hat"}, phrase | {"text": "sun"}, name | {"text": "French"}, name | {"text": "Russian"}],
    )
    words = {"task": "transcribe", "timestamps": True}
    write("words", [words | {"text": "one two", "words": [[0.0, 0.2, "one"], [0.2, 0.5, "two"]]}])
    note = "<|pitch|><|midi_pitch_60|><|velocity|><|midi_velocity_75|><|instrument|>organ"
    write("notes", [sound | {"instruction": "note_analysis", "text": note}])
    return tmp_path


SETS = {
    "speech-human: speech recognition": "asr",
    "sounds: sounds": "sound",
    "sounds: silence and noise": "chat",
    "languages-x: speech translation": "s2tt",
    "languages-x: spoken language": "lid",
    "words: speech recognition with word times": "srwt",
    "notes: musical notes": "mna",
    "several audios: which one": "chat",
}


def constant(text: str):
    return lambda requests: [text] * len(requests)


def sets_of(work, **options):
    return {item.name: item for item in held_out_sets(work, "test", work / "out", **options)}


def scored(work, pocket, whisper, weights="old"):
    sets = sets_of(work)
    for item in sets.values():
        measure(item, pocket, whisper, work / "out", weights=weights, batch_size=2)
    return sets


def test_held_out_lines_are_found_and_told_apart(work):
    sets = sets_of(work)
    assert {name: item.task.name for name, item in sets.items()} == SETS
    assert [sample.references[0] for sample in sets["sounds: sounds"].samples] == ["dog", "dog", "cat", "bell"]
    assert sets["sounds: sounds"].chance == pytest.approx(1 / 3)
    which = sets["several audios: which one"]
    assert all(2 <= len(sample.audios) <= 4 and sample.references[0].startswith("Audio") for sample in which.samples)
    assert 0.25 <= which.chance <= 0.5
    assert "never measured" not in str(sets) and "horn" not in str([sample.references for sample in which.samples])


def test_a_limit_spreads_over_the_set(work):
    samples = sets_of(work, limit=2)["speech-human: speech recognition"].samples
    assert [(sample.index, sample.references[0]) for sample in samples] == [(0, "one"), (1, "two")]


def test_nothing_held_out_is_told(work):
    with pytest.raises(DataError, match='no "dev" lines'):
        held_out_sets(work, "dev", work / "out")


def test_systems_stand_side_by_side(work):
    def whisper(held_out):
        return constant("two") if held_out.task.name == "asr" else None

    sets = scored(work, constant("I can't tell, a dog."), whisper)
    value = {
        name: {system: {n: m.value for n, m in scores.items()} for system, scores in item.scores.items()}
        for name, item in sets.items()
    }
    speech, sounds = value["speech-human: speech recognition"], value["sounds: sounds"]
    assert speech[POCKET_TAGS]["wer"] == 6.0  # "i can not tell a dog": six errors for each word
    assert speech[WHISPER]["wer"] == speech[FLOOR]["wer"] == 0.5
    assert sounds[POCKET_CHAT]["named_accuracy"] == 0.5
    assert sounds[POCKET_CHAT]["accuracy"] == 0
    assert sounds[POCKET_CHAT]["declined"] == 1
    assert sounds[FLOOR]["accuracy"] == 0.5
    assert WHISPER not in sounds
    words = value["words: speech recognition with word times"]
    assert words[POCKET_TAGS]["median_shift_ms"] is None
    assert words[FLOOR]["median_shift_ms"] == pytest.approx(25)  # of 0, 50, 50 and 0 ms: 0.25 s where 0.2 is right
    assert value["languages-x: spoken language"][CHANCE]["accuracy"] == 0.5
    assert value["sounds: silence and noise"][POCKET_CHAT]["declined"] == 1
    assert POCKET_TAGS not in value["several audios: which one"]

    table = markdown(list(sets.values()))
    [row] = [line for line in table.splitlines() if line.startswith("| sounds: sounds | 4 | accuracy")]
    assert row.split(" | ")[3] == "0 (0 to 0)"
    assert row.split(" | ")[4].startswith("0.5 (")  # a chat is scored by the label it names
    assert row.endswith(" – |")
    assert json.loads(json.dumps(figures(list(sets.values()))))["sounds: sounds"][CHANCE]["accuracy"] == 0.33333


def test_a_second_call_asks_nothing_again(work):
    scored(work, constant("x"), lambda held_out: None)

    def fail(requests):
        raise AssertionError("asked again")

    name = "speech-human: speech recognition"
    assert scored(work, fail, lambda held_out: None)[name].scores[POCKET_TAGS]["wer"].value == 1
    # Newly trained weights are asked anew.
    fresh = scored(work, constant("two"), lambda held_out: None, weights="new")
    assert fresh[name].scores[POCKET_TAGS]["wer"].value == 0.5


def test_whisper_answers_what_it_can(work):
    loads = []

    def load():
        loads.append(1)
        return tiny_whisper()

    choose = whisper_for(load)
    assert {name for name, item in sets_of(work).items() if choose(item)} == {
        "speech-human: speech recognition",
        "languages-x: speech translation",
        "languages-x: spoken language",
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
    seen.clear()
    unknown = [Request([clip(0.5)], TaskPrompt("translate", "unknown"), 8)]
    predictor(unknown)  # hears the language first
    assert seen[-1][0].tolist() and tokenizer.convert_ids_to_tokens(seen[1][0].tolist())[2] == "<|translate|>"
    names = WhisperPredictor(model, tokenizer, names_language=True)(requests)
    assert all(is_language_name(name) for name in names)


def test_baselines_by_hand():
    def prediction(reference, seconds=1.0):
        return Prediction(0, "a.wav", (reference,), "x", seconds=seconds)

    rows = [prediction("dog"), prediction("cat"), prediction("dog")]
    assert [row.prediction for row in most_frequent(rows)] == ["dog"] * 3
    [row] = evenly_spaced([prediction("<|0.00|><|sil|><|0.30|>one<|0.50|>two<|0.90|>", 2.0)])
    assert row.prediction == "<|0.00|>one<|1.00|>two<|2.00|>"
