"""The page as a visitor meets it, in a browser."""

import numpy as np
import pytest
import soundfile

from qwen_audio_chat.audio.decoding import load_audio
from qwen_audio_chat.prompts.questions import question

pytestmark = pytest.mark.browser


@pytest.mark.slow
def test_two_clips_answer_and_follow_up(visit, clips, demo):
    visitor = visit()
    visitor.say("Which one is higher?", clips["low"], clips["high"])
    first = visitor.wait_answer()
    assert visitor.page.locator(".qa-clip figcaption b").all_inner_texts() == ["Audio 1", "Audio 2"]
    assert visitor.page.locator(".qa-clip .qa-time").all_inner_texts() == ["0.0 / 2.0 s", "0.0 / 1.2 s"]
    widths = visitor.page.eval_on_selector_all(".qa-clip img", "images => images.map(i => i.naturalWidth)")
    assert widths == [200, 120], "the log-mel pictures have a pixel for each 10 ms"
    assert visitor.questions() == ["Which one is higher?"]
    assert visitor.page.input_value("#qa-box textarea") == ""

    visitor.say("And now?", clips["low"])
    visitor.wait_answer(2)
    assert visitor.answers()[0] == first
    assert visitor.page.locator(".qa-clip figcaption b").all_inner_texts() == ["Audio 1", "Audio 2", "Audio 3"]
    status = visitor.page.inner_text("#qa-status")
    assert "tiny" in status and "tokens/s" in status and "reused" in status


def test_answer_streams_in(visit, clips, page_chat):
    visitor = visit()
    visitor.page.evaluate(
        """() => { window.seen = new Set();
        new MutationObserver(() => {
            const answer = document.querySelector('#qa-chat .bot:not(.pending) .message-content');
            if (answer) window.seen.add(answer.innerText.length); })
        .observe(document.querySelector('#qa-chat'), {subtree: true, childList: true, characterData: true}); }"""
    )
    page_chat.pause = 0.1
    visitor.say("What is it?", clips["low"])
    visitor.page.wait_for_function("window.seen.size > 4")
    assert visitor.visitors.num_answering()
    page_chat.pause = 0.0
    visitor.wait_answer()


def test_what_waits_to_be_sent_has_its_name(visit, clips):
    visitor, names = visit(), [clips["low"].name, clips["high"].name]
    waiting = "names => [...document.querySelectorAll('#qa-box .thumbnail-item')].map(x => x.title).join() === names"
    visitor.attach(clips["low"], clips["high"])
    visitor.page.wait_for_function(waiting, arg=",".join(names))
    visitor.press("#qa-box .delete-button")
    visitor.page.wait_for_function(waiting, arg=names[1])


def test_audio_alone_gets_a_question(visit, clips):
    visitor = visit()
    visitor.say("", clips["low"])
    visitor.wait_answer()
    assert visitor.questions() == ["What do you hear?"]


def test_stop_keeps_the_text_and_continue_adds_to_it(visit, clips, page_chat):
    visitor = visit()
    page_chat.pause = 0.1
    visitor.say("Tell me all.", clips["low"])
    visitor.page.wait_for_function(
        "document.querySelector('#qa-chat .bot:not(.pending) .message-content')?.innerText.length > 6"
    )
    visitor.press("#qa-box .stop-button")
    visitor.wait_answer()
    stopped = list(visitor.last_message()["token_ids"])
    assert len(stopped) > 3
    assert "Stopped" in visitor.page.inner_text(".qa-notices")
    page_chat.pause = 0.0
    visitor.press("#qa-chat .option")
    visitor.page.wait_for_function("!document.querySelector('#qa-chat .option')")
    visitor.wait_answer()
    longer = visitor.last_message()["token_ids"]
    assert longer[: len(stopped)] == stopped and len(longer) > len(stopped)
    assert len(visitor.answers()) == 1


@pytest.mark.slow
def test_a_long_transcript_continues_with_the_part_in_which_it_was_stopped(visit, tmp_path, page_chat):
    speech = tmp_path / "long.wav"
    soundfile.write(speech, 0.1 * np.random.default_rng(0).standard_normal(25 * 16000), 16000)
    visitor = visit()
    visitor.say(question("transcribe"), speech)
    whole = visitor.wait_answer()
    page_chat.pause = 0.02
    visitor.press("#qa-chat button[aria-label='Retry']")
    visitor.page.wait_for_function(
        "length => document.querySelector('#qa-chat .bot .message-content')"
        "?.innerText.length > length && document.querySelector('#qa-box .stop-button')",
        arg=len(whole) // 2,
    )
    visitor.press("#qa-box .stop-button")
    visitor.wait_answer()
    stopped = visitor.last_message()
    assert stopped["finish_reason"] == "cancelled" and 0 < stopped["progress"].parts < 3
    page_chat.pause = 0.0
    visitor.press("#qa-chat .option")
    visitor.page.wait_for_function("!document.querySelector('#qa-chat .option')")
    assert visitor.wait_answer() == whole


def test_retry_undo_edit_and_new_chat(visit, clips):
    visitor = visit()
    visitor.say("Which one is higher?", clips["low"], clips["high"])
    first = visitor.wait_answer()
    visitor.press("#qa-chat button[aria-label='Retry']")
    visitor.page.wait_for_selector("#qa-box .stop-button", state="attached")
    assert visitor.wait_answer() == first, "greedy answers can be reproduced"

    visitor.say("Why?")
    visitor.wait_answer(2)
    visitor.press("#qa-chat button[aria-label='Undo']")
    visitor.page.wait_for_function("document.querySelector('#qa-box textarea').value === 'Why?'")
    assert visitor.questions() == ["Which one is higher?"] and visitor.answers() == [first]

    visitor.page.fill("#qa-box textarea", "")
    visitor.press("#qa-chat button[aria-label='Edit']")
    visitor.page.fill("#qa-chat textarea", "Which one is <b>lower</b>?")
    visitor.press("#qa-chat button[aria-label='Submit']")
    visitor.page.wait_for_function("!document.querySelector('#qa-chat textarea')")
    visitor.page.wait_for_selector("text=lower")
    visitor.wait_answer()
    assert visitor.questions() == ["Which one is <b>lower</b>?"]
    assert visitor.page.locator(".qa-clip").count() == 2

    visitor.press("#qa-chat button[aria-label='Undo']")
    visitor.page.wait_for_function("document.querySelector('#qa-box textarea').value.includes('lower')")
    for name in ("low.wav", "high.wav"):
        visitor.page.wait_for_selector(f"#qa-box .thumbnail-item[data-name='{name}']")
    visitor.page.press("#qa-box textarea", "Enter")
    visitor.wait_answer()
    assert visitor.page.locator(".qa-name").all_inner_texts() == ["low.wav", "high.wav"]

    visitor.press("#qa-new")
    visitor.page.wait_for_selector(".qa-welcome")
    assert visitor.page.locator(".qa-clip").count() == 0


def test_microphone(visit, demo):
    visitor = visit(permissions=["microphone"])
    visitor.press("#qa-box .microphone-button")
    visitor.press("#qa-box .record-button")
    visitor.page.wait_for_timeout(1500)
    visitor.press("#qa-box .stop-button")
    visitor.press("#qa-box .confirm-button")
    visitor.page.wait_for_selector("#qa-box .thumbnail-item")
    visitor.page.press("#qa-box textarea", "Enter")
    visitor.wait_answer()
    assert visitor.page.locator(".qa-clip").count() == 1
    seconds = float(visitor.page.get_attribute(".qa-clip", "data-seconds"))
    assert 0.3 < seconds < 30

    visitor.say("And what else?")
    visitor.wait_answer(2)
    assert visitor.page.locator(".qa-clip").count() == 1, "a recording is sent once"


def test_example_and_preset(visit):
    visitor = visit()
    visitor.press("#qa-chat .example")
    visitor.wait_answer()
    assert visitor.questions() == ["Which one is higher?"]
    assert visitor.page.locator(".qa-clip").count() == 2
    visitor.press("text=Emotion")
    visitor.page.wait_for_function("document.querySelector('#qa-box textarea').value.includes('emotion')")
    visitor.page.wait_for_function("document.activeElement.matches('#qa-box textarea')")
    visitor.page.keyboard.press("Enter")
    visitor.wait_answer(2)
    assert visitor.questions()[1] == "Which emotion does the speaker show?"


def test_chinese_browser(visit, clips):
    visitor = visit(locale="zh-CN")
    visitor.page.wait_for_selector("text=聊聊任何声音")
    assert visitor.page.get_attribute("#qa-box textarea", "placeholder") == "聊聊您的音频"
    visitor.page.wait_for_selector("text=转写")
    visitor.say("这是什么？", clips["low"])
    visitor.wait_answer()
    assert visitor.page.inner_text(".qa-clip b") == "音频 1"
    assert "上下文" in visitor.page.inner_text("#qa-status")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_phone(visit, clips, scheme):
    visitor = visit(viewport={"width": 390, "height": 780}, color_scheme=scheme, has_touch=True, is_mobile=True)
    visitor.say("A question that is long enough to fill more than one line of a phone.", clips["low"])
    visitor.wait_answer()
    assert visitor.page.evaluate("document.documentElement.scrollWidth") <= 390, "nothing sticks out"
    box = visitor.page.locator("#qa-box").bounding_box()
    assert box["y"] + box["height"] <= 780, "the box is in sight"
    background = visitor.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, background[4:-1].split(",")[:3])) < 200) == (scheme == "dark")


def test_the_closed_bar_is_not_reached_by_keyboard(visit):
    visitor = visit()
    visitor.page.focus("#qa-side .toggle-button")
    for _ in range(6):
        visitor.page.keyboard.press("Tab")
        assert not visitor.page.evaluate("document.activeElement.closest('.sidebar-content') !== null")
    visitor.open_sidebar()
    visitor.page.wait_for_selector("#qa-delete", state="visible")
    visitor.page.focus("#qa-delete")
    assert visitor.page.evaluate("document.activeElement.id") == "qa-delete"


def test_a_chosen_file_leaves_the_keyboard_in_the_box(visit, clips):
    visitor = visit()
    visitor.attach(clips["low"])
    visitor.page.wait_for_function("document.activeElement === document.querySelector('#qa-box textarea')")
    visitor.page.keyboard.type("What is it?")
    visitor.page.keyboard.press("Enter")
    visitor.wait_answer()
    assert visitor.questions() == ["What is it?"]


def test_copied_text_is_what_was_written(visit):
    visitor = visit()
    visitor.say("<b>x</b> & <i>")
    visitor.wait_answer()
    visitor.page.evaluate(
        """() => { window.copied = []; const write = navigator.clipboard.writeText;
        document.addEventListener('copy', (event) => window.copied.push(event.clipboardData.getData('text/plain')));
        getSelection().selectAllChildren(document.querySelector('#qa-chat .user .message-content'));
        document.execCommand('copy'); }"""
    )
    assert visitor.page.evaluate("window.copied") == ["<b>x</b> & <i>"]


def test_keyboard_only(visit, clips):
    visitor = visit()
    visitor.say("What is it?", clips["low"])
    visitor.wait_answer()
    for _ in range(40):
        visitor.page.keyboard.press("Shift+Tab")
        if visitor.page.evaluate("document.activeElement.matches('.qa-seek')"):
            break
    visitor.page.keyboard.press("ArrowRight")
    visitor.page.wait_for_function("document.activeElement.getAttribute('aria-valuenow') === '1.0'")
    visitor.page.keyboard.press("Shift+Tab")
    assert visitor.page.evaluate("document.activeElement.matches('.qa-play')")
    visitor.page.keyboard.press("Enter")
    visitor.page.wait_for_selector(".qa-clip.qa-playing")


def test_player_gets_exactly_what_the_model_hears(visit, clips):
    visitor = visit()
    visitor.say("What is it?", clips["high"])
    visitor.wait_answer()
    data = visitor.page.evaluate(
        """async () => { const card = document.querySelector('.qa-clip');
        const bytes = new Uint8Array(await (await fetch(new URL(card.dataset.src, document.baseURI))).arrayBuffer());
        return Array.from(bytes); }"""
    )
    assert (load_audio(bytes(data)) == load_audio(clips["high"])).all()


@pytest.mark.slow
def test_a_reload_keeps_the_conversation(visit, clips, page_chat):
    visitor = visit()
    visitor.say("What is it?", clips["low"])
    answer = visitor.wait_answer()
    page_chat.pause = 0.1
    visitor.say("And what else?")
    visitor.page.wait_for_function(
        "document.querySelectorAll('#qa-chat .bot:not(.pending) .message-content')[1]?.innerText.length > 6"
    )
    visitor.page.reload()
    visitor.wait_answer(2)
    # Gradio tells the console that the reload broke off its stream.
    visitor.errors[:] = [error for error in visitor.errors if "Connection errored out" not in error]
    assert visitor.questions() == ["What is it?", "And what else?"]
    assert visitor.answers()[0] == answer and len(visitor.answers()[1]) > 6, "the half answer is kept as it was"
    page_chat.pause = 0.0
    visitor.say("Go on.")
    visitor.wait_answer(3)

    twin = visit()
    twin.page.evaluate(
        "key => sessionStorage.setItem('qa-tab', key)", visitor.page.evaluate("sessionStorage['qa-tab']")
    )
    twin.page.reload()
    twin.page.wait_for_selector(".qa-welcome")
    twin.page.wait_for_timeout(4000)
    assert twin.questions() == [], "a tab that is still open is nobody else's"
    assert len(visitor.questions()) == 3


def test_a_reload_keeps_what_was_typed(visit):
    visitor = visit()
    draft = "document.querySelector('#qa-box textarea')?.value === {0!r} && sessionStorage['qa-draft'] === {0!r}"
    visitor.page.fill("#qa-box textarea", "Not yet sent")
    visitor.page.wait_for_function(draft.format("Not yet sent"))
    visitor.page.reload()
    visitor.page.wait_for_function(draft.format("Not yet sent"))
    visitor.open_sidebar()
    visitor.press("#qa-delete")
    visitor.page.wait_for_function(draft.format(""))
