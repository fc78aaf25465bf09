"""The data of the recipe: spoken forms, shards that survive interruption, splits, notes, downloads; its last steps."""

import json
import random
import re
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from num2words import num2words

from qwen_audio_chat.errors import UserError
from qwen_audio_chat.model import QwenAudioForConditionalGeneration
from qwen_audio_chat.model.checkpoint import load_model
from qwen_audio_chat.pocket import languages, notes, recipe, sentences, sounds, sources
from qwen_audio_chat.pocket.phrases import phrases
from qwen_audio_chat.pocket.release import release
from qwen_audio_chat.pocket.restore import restore
from qwen_audio_chat.pocket.shards import read_manifest, write_clip, write_shard
from qwen_audio_chat.pocket.spoken_form import spoken_form, transcript
from qwen_audio_chat.prompts.tags import parse_note
from qwen_audio_chat.training.alignment import AlignmentHead, load_head, save_head

SECOND = 16_000


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("Mr. Darcy paid $12.50 for 3 books.", "mister darcy paid twelve dollars and fifty cents for three books"),
        ("It was the 21st of June, 1805.", "it was the twenty first of june eighteen oh five"),
        ("The train leaves at 4:05.", "the train leaves at four oh five"),
        ("About 57% of 1,234 people", "about fifty seven percent of one thousand two hundred and thirty four people"),
        ("He wrote 3.14, didn't he?", "he wrote three point one four didn't he"),
        ("On March 3, 2007 it rained.", "on march third two thousand and seven it rained"),
        ("‘Well-known’ — said the café's owner…", "well known said the cafe's owner"),
    ],
)
def test_text_is_transcribed_as_a_reader_says_it(written, text):
    assert transcript(spoken_form(written)) == text


@pytest.mark.parametrize("written", ["The NASA report", "Louis XIV reigned", "a = b", "привет", "www.example.com"])
def test_uncertain_readings_are_refused(written):
    assert transcript(spoken_form(written)) is None


def test_every_generated_phrase_has_a_transcript_and_depends_on_the_seed_alone():
    made = list(phrases(400, random.Random(3)))
    assert made == list(phrases(400, random.Random(3)))
    texts = [transcript(spoken_form(phrase)) for phrase in made]
    refused = sum(text is None for text in texts)
    assert refused < 40, "only a few phrases may be refused"
    ordinals = {ordinal for phrase in made for ordinal in re.findall(r"\d+(?:st|nd|rd|th)\b", phrase)}
    assert ordinals and ordinals <= {num2words(day, to="ordinal_num") for day in range(1, 32)}


def test_restored_weights_lie_between_trained_and_original(tiny_folder, tiny_chat, tmp_path):
    original = load_pretrained(tiny_folder)
    for parameter in tiny_chat.model.parameters():
        torch.nn.init.constant_(parameter, 1.0)
    tiny_chat.model.save_pretrained(tmp_path / "trained")
    tiny_chat.processor.save_pretrained(tmp_path / "trained")
    save_head(AlignmentHead(48, [1, 2, 5]), tmp_path / "trained")
    restore(tmp_path / "trained", tiny_folder, 0.25, tmp_path / "restored")
    restored = load_pretrained(tmp_path / "restored")
    for name, value in restored.items():
        moved = "language_model" in name and "embed_tokens" not in name
        torch.testing.assert_close(value, 0.75 + 0.25 * original[name] if moved else torch.ones_like(value))
    assert load_head(tmp_path / "restored").vocabulary.tolist() == [1, 2, 5]


def load_pretrained(folder: Path) -> dict[str, torch.Tensor]:
    return dict(QwenAudioForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).named_parameters())


@pytest.fixture
def tone():
    return (0.3 * np.sin(2 * np.pi * 440 * np.arange(3 * SECOND) / SECOND)).astype(np.float32)


def test_an_interrupted_shard_continues_where_it_stopped(tmp_path):
    path, made = tmp_path / "manifests/speech-0001.jsonl", []

    def make(item):
        if item == "c" and not stopped:
            stopped.append(item)
            raise KeyboardInterrupt
        made.append(item)
        return None if item == "b" else {"audio": f"{item}.flac", "text": item}

    stopped = []
    with pytest.raises(KeyboardInterrupt):
        write_shard(path, "abcd", make)
    assert not path.exists(), "a shard appears only when it is complete"
    with path.with_suffix(".jsonl.partial").open("a") as partial:
        partial.write('{"id": "c", "li')  # killed while it wrote
    lines = write_shard(path, "abcd", make)
    assert made == ["a", "b", "c", "d"], "nothing is made twice"
    assert [line["text"] for line in lines] == ["a", "c", "d"] == [line["text"] for line in read_manifest(path)]
    assert not list(path.parent.glob("*.partial"))
    assert write_shard(path, "abcd", make) == lines and len(made) == 4


def test_clips_are_16_khz_flac(tmp_path, tone):
    assert write_clip(tmp_path / "deep/er/a.flac", tone) == 3.0
    info = soundfile.info(tmp_path / "deep/er/a.flac")
    assert (info.samplerate, info.channels, info.format) == (SECOND, 1, "FLAC")


def test_sources_are_pinned_and_licensed():
    names = [source.name for source in sources.SOURCES]
    assert len(names) == len(set(names))
    for source in sources.SOURCES:
        assert len(source.sha256) == 64 and int(source.sha256, 16) and source.version and source.licence and source.use
        assert source.purpose in ("train", "tool", "evaluation")


def test_a_package_with_another_hash_is_refused(tmp_path):
    source = sources.SOURCES[0]
    archive = tmp_path / "downloads" / f"{source.name}-{source.version}" / "a.deb"
    archive.parent.mkdir(parents=True)
    archive.write_bytes(b"not the package")
    with pytest.raises(UserError, match="SHA-256"):
        sources.fetch(source.name, tmp_path)
    assert not archive.exists() and not (tmp_path / "packages").exists()


def test_notes_are_split_by_program_and_named_by_tags():
    for family, programs in notes.FAMILIES.items():
        splits = {notes.split_of(family, program) for program in programs}
        assert splits == {"train", "dev", "test"}, family
    used = [program for programs in notes.FAMILIES.values() for program in programs]
    assert len(used) == len(set(used)), "a program belongs to one family"
    note = parse_note(notes.note_text(60, 75, "organ"))
    assert (note.pitch, note.velocity, note.instrument) == (60, 75, "organ")


def test_the_midi_file_holds_the_notes():
    data = notes.midi_file([(19, 60, 100, 1.0), (40, 72, 30, 0.5)], slot_s=4.0)
    assert data[:4] == b"MThd" and struct.unpack(">I", data[18:22])[0] == len(data) - 22
    assert bytes([0xC0, 19, 0, 0x90, 60, 100]) in data and bytes([0xC0, 40, 0, 0x90, 72, 30]) in data


def test_translation_never_shares_a_phrase_between_splits():
    samples = np.zeros(SECOND, np.float32)
    splits: dict[str, set[str]] = {}
    for language in ("fr", "ru", "es"):
        for english in ("A red apple.", "A cat.", "Three blue birds", "The tower", "An old horse", "A 25 cent piece"):
            recording = languages.Recording(
                f"x-{language}-{english}", samples, language, english, "tuxpaint-stamps-default"
            )
            for line in languages.lines_of(recording, Path("a.flac"), 1.0):
                json.dumps(line)
                if line["task"] == "translate":
                    splits.setdefault(line["text"], set()).add(line["split"])
                    assert line["audio_language"] in ("fr", "es", "unknown")
                else:
                    assert line["text"] == languages.NAMES[language] and line["question"]
    assert splits and all(len(found) == 1 for found in splits.values())


def test_a_clip_that_is_held_out_for_one_task_trains_no_other():
    samples, kinds = np.zeros(SECOND, np.float32), set()
    for source in ("tuxpaint-stamps-default", "ktuberling-data", "asterisk-fr"):
        for number in range(60):
            english = "" if source.startswith("asterisk") else f"object {number}"
            recording = languages.Recording(f"{source}-{number}", samples, "fr", english, source)
            splits = {line["split"] for line in languages.lines_of(recording, Path("a.flac"), 1.0)}
            assert splits and (splits == {"train"} or "train" not in splits)
            kinds.add((source, min(splits, key=["train", "test", "dev"].index)))
    assert {("tuxpaint-stamps-default", "train"), ("tuxpaint-stamps-default", "test")} <= kinds
    assert {("ktuberling-data", "test"), ("asterisk-fr", "train")} <= kinds and (
        "ktuberling-data",
        "train",
    ) not in kinds


def test_evaluation_clips_are_recognised_in_the_prose():
    prose = "and he might even have been made amiable himself"
    clip = sentences.ngrams("had he married a more amiable woman he might even have been made amiable himself for")
    assert not clip.isdisjoint(sentences.ngrams(prose))
    assert clip.isdisjoint(sentences.ngrams("he might have been made more amiable than he was himself"))
    assert sentences.ngrams("go forward") == {("go", "forward")}


def test_labels_of_sounds():
    assert sounds.label_of("gcompris/dog") == ("dog", "animal")
    assert sounds.label_of("sonic-pi-samples/misc_crow") == ("crow", "animal")
    assert sounds.label_of("wesnoth-1.16-data/chat-1") is None
    kinds = {kind for kind, _ in sounds.unanswerable(8)}
    assert kinds == {"silence", "noise"}


def test_a_sample_catalogue_gives_names_and_files(tmp_path):
    entries = [(b'"Ship horn". By A. License: CC0', b"RIFFone"), (b'"Truck/old bus start, pull away"', b"RIFFtwo2")]
    table, body = b"", b""
    for title, wave in entries:
        start = 8 * len(entries) + len(body)
        table += struct.pack("<II", start, len(wave))
        body += bytes([len(title)]) + title + wave
    path = tmp_path / "a.cat"
    path.write_bytes(table + body)
    assert list(sounds.opensfx(path)) == [("ship horn", b"RIFFone"), ("truck or old bus start pull away", b"RIFFtwo2")]
    assert sounds.label_of("openttd-opensfx/ship horn") == ("ship", "vehicle")


def test_no_held_out_line_is_in_a_mixture(tmp_path):
    def write(name, *lines):
        (tmp_path / "manifests").mkdir(exist_ok=True)
        (tmp_path / f"manifests/{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    question = {"role": "user", "content": [{"type": "audio", "audio": "b.flac"}, {"type": "text", "text": "What?"}]}
    write("sounds", *({"audio": f"{name}.flac", "text": name, "split": "train"} for name in "ab"))
    write("dialogues", {"messages": [question, {"role": "assistant", "content": "b"}]})
    write("speech-dev", {"audio": "c.flac", "text": "c", "split": "dev"})
    run = recipe.Run("all", "joint", {"sounds": 5, "dialogues": 1, "speech-*": 3}, ())
    mixed = [json.loads(line) for line in recipe.mix(run, tmp_path).read_text().splitlines()]
    assert sorted(line.get("text", "talk") for line in mixed) in (
        ["a"] * 3 + ["b"] * 2 + ["talk"],
        ["a"] * 2 + ["b"] * 3 + ["talk"],
    )
    write("other", {"audio": "b.flac", "text": "b", "split": "test"})
    with pytest.raises(UserError, match="1 clips are both held out and in the training data, such as b.flac"):
        recipe.mix(run, tmp_path)


def test_release_replaces_the_weights_and_leaves_the_card(tiny_folder, tmp_path):
    (tmp_path / "README.md").write_text("a card")
    (tmp_path / "model-00001-of-00009.safetensors").write_bytes(b"old weights")
    release(tiny_folder, tmp_path)
    assert (tmp_path / "README.md").read_text() == "a card"
    assert not (tmp_path / "model-00001-of-00009.safetensors").exists()
    model, processor = load_model(tmp_path, device="cpu")
    assert model.precision == "packed 8-bit" and processor.tokenizer.convert_tokens_to_ids("<audio>") is not None
    assert load_head(tmp_path) is None


def test_the_alignment_head_is_released_too(tiny_folder, tmp_path):
    shutil.copytree(tiny_folder, tmp_path / "trained")
    save_head(AlignmentHead(48, [1, 2, 5]), tmp_path / "trained")
    release(tmp_path / "trained", tmp_path / "released")
    assert load_head(tmp_path / "released").vocabulary.tolist() == [1, 2, 5]
    load_model(tmp_path / "released", device="cpu")
