"""Times that play, transcripts, exports and imports, in a browser."""

import base64
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from gradio.utils import get_upload_folder

from qwen_audio_chat.demo.texts import text

TIMED_WORDS = "<|0.00|><|sil|><|0.40|>please<|0.80|>press<|1.10|>one<|1.45|><|sil|><|2.00|>"

pytestmark = pytest.mark.browser


@pytest.fixture
def exported(clips, tmp_path):
    """A conversation as a file: two clips, words with times for the first of them."""
    audio = [
        {"type": "audio", "name": f"{name}.wav", "wav": base64.b64encode(clips[name].read_bytes()).decode()}
        for name in ("low", "high")
    ]
    messages = [
        {"role": "user", "content": [*audio, {"type": "text", "text": "When is each word of Audio 1 said?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": TIMED_WORDS}]},
    ]
    path = tmp_path / "talk.json"
    path.write_text(json.dumps({"format": "qwen-audio-chat conversation", "version": 1, "messages": messages}))
    return path


def import_file(visitor, path):
    visitor.open_sidebar()
    visitor.page.set_input_files("#qa-side input[type=file]", str(path))


def test_a_time_plays_exactly_its_span(visit, exported):
    visitor = visit()
    visitor.page.evaluate(
        """() => { window.started = []; const start = AudioBufferSourceNode.prototype.start;
        AudioBufferSourceNode.prototype.start = function (...times) {
            window.started.push([...times, this.buffer.duration]); return start.apply(this, times); }; }"""
    )
    import_file(visitor, exported)
    visitor.page.wait_for_selector(".qa-piece")
    assert visitor.answers() == ["please press one"]
    assert visitor.page.locator(".qa-piece b").all_inner_texts() == ["please", "press", "one"]
    cards = visitor.page.eval_on_selector_all(".qa-clip", "cards => cards.map(card => card.dataset.src)")
    visitor.press(".qa-piece >> nth=1")
    visitor.page.wait_for_function("window.started.length === 1")
    when, offset, length, total = visitor.page.evaluate("window.started[0]")
    assert (when, offset) == (0, 0.8) and abs(length - 0.3) < 1e-9
    assert abs(total - 2.0) < 0.01, "the audio is the first one, of 2 s"
    assert visitor.page.get_attribute(".qa-piece", "data-src") == cards[0] != cards[1]
    visitor.page.wait_for_function("!document.querySelector('.qa-piece.qa-playing')")


def test_transcripts_download(visit, exported):
    visitor = visit()
    import_file(visitor, exported)
    visitor.page.wait_for_selector(".qa-download")
    texts = []
    for number in range(2):
        with visitor.page.expect_download() as download:
            visitor.press(f".qa-download >> nth={number}")
        texts.append(download.value.path().read_text())
    assert texts[0] == "1\n00:00:00,400 --> 00:00:01,450\nplease press one\n\n"
    assert texts[1] == "WEBVTT\n\n00:00:00.400 --> 00:00:01.450\nplease press one\n\n"


def test_export_and_import_are_inverse(visit, clips, tmp_path):
    visitor = visit()
    visitor.say("Which <one> is higher?", clips["low"], clips["high"])
    answer = visitor.wait_answer()
    visitor.open_sidebar()
    saved = {}
    for label, name in (("Export with audios (JSON)", "json"), ("Export as Markdown", "md")):
        with visitor.page.expect_download() as download:
            visitor.press(f"#qa-side button:has-text('{label}')")
        saved[name] = tmp_path / f"saved.{name}"
        download.value.save_as(saved[name])
    assert "Which <one> is higher?" in saved["md"].read_text()
    assert "- Audio 2: high.wav (1.2 s)" in saved["md"].read_text()

    other = visit()
    import_file(other, saved["json"])
    other.page.wait_for_selector(".qa-clip >> nth=1")
    assert other.questions() == ["Which <one> is higher?"] and other.answers() == [answer]
    other.say("And now?")
    other.wait_answer(2)


def test_a_wrong_file_changes_nothing(visit, clips, tmp_path):
    visitor = visit()
    visitor.say("What is it?", clips["low"])
    answer = visitor.wait_answer()
    head = '{"format": "qwen-audio-chat conversation", "messages": '
    asked = '[{"role": "user", "content": [{"type": "text", "text": "%s"}]}]}'
    contents = ["no json", "[1, 2]", '{"format": "other"}', head[:-14] + "}", head + "[]}"]
    contents += [head + asked % question for question in ("bad \\ud800 surrogate", "long " * 5000)]
    for number, content in enumerate(contents):
        path = tmp_path / f"wrong-{number}.json"
        path.write_text(content)
        import_file(visitor, path)
        assert "not a conversation" in visitor.toast()
    assert visitor.answers() == [answer]


def test_delete_my_data(visit, clips, demo):
    visitor = visit()
    visitor.say("What is it?", clips["low"])
    visitor.wait_answer()
    address = visitor.page.evaluate("new URL(document.querySelector('.qa-clip').dataset.src, document.baseURI).href")
    assert visitor.page.request.get(address).status == 200
    visitor.attach(clips["high"])  # and not sent
    uploads = [path for path in Path(get_upload_folder()).glob("*/*.wav") if len(path.parent.name) == 64]
    assert {"low.wav", "high.wav"} <= {path.name for path in uploads}
    visitor.open_sidebar()
    visitor.press("#qa-delete")
    assert visitor.toast() == text("deleted", "en")
    visitor.page.wait_for_selector(".qa-welcome")
    assert visitor.page.request.get(address).status == 403
    assert not [path for path in uploads if path.name in ("low.wav", "high.wav") and path.exists()]


def test_an_empty_conversation_is_not_exported(visit):
    visitor = visit()
    visitor.open_sidebar()
    visitor.press("#qa-side button:has-text('Export as Markdown')")
    assert visitor.toast() == text("nothing_to_export", "en")


def test_a_preset_for_times_plays_what_it_finds(visit, clips, page_chat):
    visitor = visit()
    page_chat.scripted_answer = TIMED_WORDS
    visitor.attach(clips["low"])
    visitor.press("text=Timed words")
    visitor.page.wait_for_function("document.querySelector('#qa-box textarea').value.includes('time of each word')")
    visitor.page.press("#qa-box textarea", "Enter")
    assert visitor.wait_answer() == "please press one"
    visitor.press(".qa-piece >> nth=2")
    visitor.page.wait_for_selector(".qa-piece.qa-playing")
    visitor.page.wait_for_function("!document.querySelector('.qa-piece.qa-playing')")


def test_two_times_pressed_at_once_play_the_second(visit, exported):
    visitor = visit()
    import_file(visitor, exported)
    visitor.page.wait_for_selector(".qa-piece")
    visitor.page.evaluate(
        """() => { window.started = []; const start = AudioBufferSourceNode.prototype.start;
        AudioBufferSourceNode.prototype.start = function (...times) {
            window.started.push(times[1]); return start.apply(this, times); };
        const pieces = document.querySelectorAll('.qa-piece'); pieces[0].click(); pieces[1].click(); }"""
    )
    visitor.page.wait_for_function("window.started.length")
    assert visitor.page.locator(".qa-piece.qa-playing").count() == 1
    visitor.page.wait_for_timeout(100)
    assert visitor.page.evaluate("window.started") == [0.8]
    visitor.page.wait_for_function("!document.querySelector('.qa-piece.qa-playing')")


def test_a_deleted_audio_falls_silent(visit, tmp_path):
    visitor = visit()
    visitor.page.evaluate(
        """() => { window.sounds = []; const play = HTMLMediaElement.prototype.play;
        HTMLMediaElement.prototype.play = function () { window.sounds.push(this); return play.apply(this); }; }"""
    )
    soundfile.write(tmp_path / "long.wav", np.zeros(20 * 16000), 16000)
    visitor.say("What is it?", tmp_path / "long.wav")
    visitor.wait_answer()
    visitor.press(".qa-play")
    visitor.page.wait_for_function("window.sounds.length && !window.sounds[0].paused")
    visitor.press("#qa-new")
    visitor.page.wait_for_function("window.sounds[0].paused")
    visitor.page.close()
    # The browser may ask for the rest of the file in between: it is gone by then, as it should.
    visitor.errors[:] = [error for error in visitor.errors if "403" not in error]
