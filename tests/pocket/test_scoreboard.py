"""The scoreboard over a small work folder, with stand-ins for the models; Whisper's plumbing on a tiny random one."""

import json
import re

import pytest
import soundfile
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import WhisperConfig, WhisperForConditionalGeneration, WhisperTokenizerFast
from transformers.models.whisper.tokenization_whisper import LANGUAGES

from qwen_audio_chat.audio.audio import Audio
from qwen_audio_chat.data.lines import DataError
from qwen_audio_chat.evaluation.predictions import Prediction
from qwen_audio_chat.evaluation.prompting import Request
from qwen_audio_chat.evaluation.scoring import DECLINING
from qwen_audio_chat.pocket import text_dialogues, text_evaluation
from qwen_audio_chat.pocket.baselines import evenly_spaced, most_frequent
from qwen_audio_chat.pocket.held_out import held_out_sets
from qwen_audio_chat.pocket.scoreboard import (
    CHANCE,
    POCKET_CHAT,
    POCKET_TAGS,
    SMOLLM2,
    WHISPER,
    WITHOUT_LISTENING,
    figures,
    markdown,
    measure,
    parent_chooser,
)
from qwen_audio_chat.pocket.text_evaluation import answer_losses, closed_questions, measure_likelihood
from qwen_audio_chat.pocket.text_questions import CLOSED_QUESTIONS, OPEN_QUESTIONS
from qwen_audio_chat.pocket.whisper_baseline import WhisperPredictor, is_language_name
from qwen_audio_chat.prompts.conversation import Conversation
from qwen_audio_chat.prompts.questions import DECLINE
from qwen_audio_chat.prompts.tags import TaskPrompt
from qwen_audio_chat.reply import Reply


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
    "languages-x: speech translation": "s2tt",
    "languages-x: spoken language": "lid",
    "words: speech recognition with word times": "srwt",
    "notes: musical notes": "mna",
    "several audios: which one": "chat",
    "probes: can it be told": "chat",
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


def test_held_out_lines_are_found_and_grouped_by_task(work):
    sets = sets_of(work)
    assert {name: item.task.name for name, item in sets.items()} == SETS
    assert [sample.references[0] for sample in sets["sounds: sounds"].samples] == ["dog", "dog", "cat", "bell"]
    assert sets["sounds: sounds"].chance == pytest.approx(1 / 3)
    which = sets["several audios: which one"]
    assert all(2 <= len(sample.audios) <= 4 and sample.references[0].startswith("Audio") for sample in which.samples)
    assert 0.25 <= which.chance <= 0.5
    probes = sets["probes: can it be told"].samples
    assert len(probes) == 60
    assert all(sample.references == (DECLINE,) for sample in probes[:20])
    numbers = [(re.search(r"\d", probe.references[0]), len(probe.audios)) for probe in probes[20:30]]
    assert all(int(number[0]) > audios if number else audios == 0 for number, audios in numbers)
    assert not any(DECLINING.search(sample.references[0]) for sample in probes[30:])
    assert "never measured" not in str(sets) and "horn" not in str([sample.references for sample in which.samples])


def test_a_limit_spreads_over_the_set(work):
    samples = sets_of(work, limit=2)["speech-human: speech recognition"].samples
    assert [(sample.index, sample.references[0]) for sample in samples] == [(0, "one"), (1, "two")]


def test_a_split_without_lines_is_reported(work):
    with pytest.raises(DataError, match='no "dev" lines'):
        held_out_sets(work, "dev", work / "out")


@pytest.mark.slow
def test_systems_stand_side_by_side(work):
    def whisper(held_out):
        return (WHISPER, constant("two")) if held_out.task.name == "asr" else None

    sets = scored(work, constant("I can't tell, a dog."), whisper)
    value = {
        name: {system: {n: m.value for n, m in scores.items()} for system, scores in item.scores.items()}
        for name, item in sets.items()
    }
    speech, sounds = value["speech-human: speech recognition"], value["sounds: sounds"]
    assert speech[POCKET_TAGS]["wer"] == 6.0  # "i can not tell a dog": six errors for each word
    assert speech[WHISPER]["wer"] == speech[WITHOUT_LISTENING]["wer"] == 0.5
    assert sounds[POCKET_CHAT]["named_accuracy"] == 0.5
    assert sounds[POCKET_CHAT]["accuracy"] == 0
    assert sounds[POCKET_CHAT]["declined"] == 1
    assert sounds[WITHOUT_LISTENING]["accuracy"] == 0.5
    assert WHISPER not in sounds
    words = value["words: speech recognition with word times"]
    assert words[POCKET_TAGS]["median_shift_ms"] is None
    # Shifts of 0, 50, 50 and 0 ms: 0.25 s where 0.2 is right.
    assert words[WITHOUT_LISTENING]["median_shift_ms"] == pytest.approx(25)
    assert value["languages-x: spoken language"][CHANCE]["accuracy"] == 0.5
    assert value["probes: can it be told"][POCKET_CHAT]["declined"] == 1
    assert value["probes: can it be told"][POCKET_CHAT]["false_refusals"] == 1
    assert value["several audios: which one"][POCKET_CHAT]["false_refusals"] == 1
    assert POCKET_TAGS not in value["several audios: which one"]

    table = markdown(list(sets.values()))
    [row] = [line for line in table.splitlines() if line.startswith("| sounds: sounds | 4 | accuracy")]
    assert row.split(" | ")[3] == "0 (0 to 0)"
    assert row.split(" | ")[4].startswith("0.5 (")  # a chat is scored by the label it names
    assert row.endswith(" – |")
    assert json.loads(json.dumps(figures(list(sets.values()))))["sounds: sounds"][CHANCE]["accuracy"] == 0.33333


@pytest.mark.slow
def test_a_second_call_asks_nothing_again(work):
    scored(work, constant("x"), lambda held_out: None)

    def fail(requests):
        raise AssertionError("asked again")

    name = "speech-human: speech recognition"
    assert scored(work, fail, lambda held_out: None)[name].scores[POCKET_TAGS]["wer"].value == 1
    # Newly trained weights are asked anew.
    fresh = scored(work, constant("two"), lambda held_out: None, weights="new")
    assert fresh[name].scores[POCKET_TAGS]["wer"].value == 0.5


def test_the_parents_answer_what_they_can(work, tiny_chat):
    loads = []

    def load():
        loads.append(1)
        return tiny_whisper()

    choose = parent_chooser(load, lambda: tiny_chat)
    assert {name for name, item in sets_of(work).items() if choose(item)} == {
        "speech-human: speech recognition",
        "languages-x: speech translation",
        "languages-x: spoken language",
    }
    assert len(loads) == 1
    assert choose(closed_questions())[0] == SMOLLM2
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


@pytest.mark.slow
def test_whisper_is_asked_in_the_language_of_each_clip(clip, monkeypatch):
    model, tokenizer = tiny_whisper()
    requests = [
        Request([Audio(clip(seconds))], TaskPrompt("transcribe", language, language), 8)
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
    unknown = [Request([Audio(clip(0.5))], TaskPrompt("translate", "unknown"), 8)]
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


def test_text_questions_were_never_trained_on(monkeypatch, tmp_path):
    words = ["window", "garden", "winter", "friendship", "electricity", "dog"]  # of which the questions are, too
    monkeypatch.setattr(text_dialogues, "common_words", lambda work, part_of_speech, count: words * 30)
    made = set(text_dialogues.prompts(tmp_path))
    assert "Write one sentence about electricity." in made and "Use the word dog in a sentence." in made
    assert len(CLOSED_QUESTIONS) == 50 and not {*CLOSED_QUESTIONS, *OPEN_QUESTIONS} & made


def test_closed_questions_are_right_where_they_hold_the_answer(tmp_path):
    held_out = closed_questions()
    parent = (SMOLLM2, constant("It is 60."))
    measure(held_out, constant("That's Paris!"), lambda _: parent, tmp_path, weights="w", batch_size=8)
    assert held_out.scores[POCKET_CHAT]["contains_reference"].value == 1 / 50
    assert held_out.scores[SMOLLM2]["contains_reference"].value == 2 / 50


def test_likelihood_of_answers_by_hand(tiny_chat, tmp_path, monkeypatch):
    talk = Conversation().ask("What?").answer("today.")
    [loss], [count] = answer_losses(tiny_chat, [talk])
    tokenizer = tiny_chat.processor.tokenizer
    prompt = tiny_chat.processor.apply_chat_template([[talk[0]]], add_generation_prompt=True)["input_ids"][0].tolist()
    answer = [*tokenizer("today.").input_ids, tokenizer.convert_tokens_to_ids("<|im_end|>")]
    logits = tiny_chat.model(input_ids=torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
    expected = -sum(logits[len(prompt) - 1 + place, token].item() for place, token in enumerate(answer))
    assert (loss, count) == (pytest.approx(expected, rel=1e-4), len(answer))

    replies = {"What?": ("today.", "stop"), "Why?": ("Because because", "length")}

    def stream(conversation, options):
        reply = Reply(0, lambda reply: iter(()))
        reply.text, reply.finish_reason = replies[conversation[-1]["content"][0]["text"]]
        return reply

    monkeypatch.setattr(text_evaluation, "OPEN_QUESTIONS", tuple(replies))
    monkeypatch.setattr(tiny_chat, "stream", stream)
    scores = measure_likelihood({SMOLLM2: tiny_chat}, SMOLLM2, tmp_path / "new")
    assert json.loads((tmp_path / "new/smollm2-answers.json").read_text()) == {"What?": "today."}
    assert scores[SMOLLM2]["mean_nll"].value == pytest.approx(expected / len(answer), rel=1e-4)
