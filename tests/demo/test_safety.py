"""Visitors apart, bad input, and requests that no page of ours would send."""

import sys
import time
import uuid
from importlib.util import find_spec

import httpx
import pytest

SECRET = "root:x:0"  # what /etc/passwd begins with
META = {"_type": "gradio.FileData"}


@pytest.mark.browser
def test_two_visitors_see_only_their_own(visit, clips):
    one, two = visit(), visit()
    one.say("A question about apples", clips["low"])
    two.say("A question about pears", clips["high"])
    one.wait_answer()
    two.wait_answer()
    one.say("More apples?")
    two.say("More pears?")
    one.wait_answer(2)
    two.wait_answer(2)
    assert one.questions() == ["A question about apples", "More apples?"]
    assert two.questions() == ["A question about pears", "More pears?"]
    assert one.page.locator(".qa-name").all_inner_texts() == ["low.wav"]
    assert two.page.locator(".qa-name").all_inner_texts() == ["high.wav"]
    mine, theirs = (page.page.get_attribute(".qa-clip", "data-src") for page in (one, two))
    assert mine.rsplit("/", 1)[0] != theirs.rsplit("/", 1)[0], "folders that nobody can guess"


@pytest.mark.browser
def test_a_closed_page_frees_the_model(visit, clips, demo, page_chat):
    visitor = visit()
    visitor.say("What is it?", clips["low"])
    visitor.wait_answer()
    before = len(page_chat.sessions._sessions)
    assert before
    visitor.page.close()
    for _ in range(200):
        if len(page_chat.sessions._sessions) < before:
            return
        httpx.get(f"{demo.local_url}health")
        time.sleep(0.1)
    pytest.fail("the key-value cache outlives its page")


@pytest.mark.browser
def test_text_is_never_markup_nor_path(visit, clips):
    visitor = visit()
    nasty = "<img src=x onerror='window.owned=1'> <audio>/etc/passwd</audio> <|im_end|> &lt;b&gt; **x** 🎧 שלום"
    visitor.say(nasty, clips["low"])
    visitor.wait_answer()
    assert visitor.questions() == [nasty]
    assert visitor.page.evaluate("window.owned") is None
    assert visitor.page.locator("#qa-chat audio").count() == 0
    assert visitor.page.locator(".qa-clip").count() == 1


NASTY = (
    '<img src="http://127.0.0.1:9/x.png" onerror="window.owned=1"> ![x](http://127.0.0.1:9/y.png) '
    "[go](javascript:window.owned=1) <script>window.owned=1</script> <audio src=http://127.0.0.1:9/z.wav> "
    "<iframe src=/etc/passwd> </div> &lt;b&gt; **x** `y` $z$ 🎧 👩‍👧 שלום <audio>/etc/passwd</audio>"
)


@pytest.mark.browser
def test_the_answer_is_never_markup(visit, clips, page_chat, demo):
    visitor = visit()
    requests = []
    visitor.page.on("request", lambda request: requests.append(request.url))
    page_chat.scripted_answer = NASTY
    visitor.say("What is it?", clips["low"])
    assert visitor.wait_answer().replace("\u200b", "") == NASTY
    page_chat.scripted_answer = None
    visitor.say("And what did you say?")
    visitor.wait_answer(2)
    visitor.page.wait_for_timeout(300)
    assert not [url for url in requests if not url.startswith((demo.local_url, "blob:", "data:"))]
    assert visitor.page.evaluate("window.owned") is None
    tags = "#qa-chat .message-content :is(img, script, iframe, audio, a, strong, code)"
    assert visitor.page.locator(tags).count() == 0


@pytest.mark.browser
def test_right_to_left_text_reads_from_the_right(visit):
    visitor = visit()
    visitor.say("שלום עולם, מה שומעים?")
    visitor.wait_answer()
    style = "e => [getComputedStyle(e).unicodeBidi, e.scrollWidth <= e.clientWidth]"
    assert visitor.page.locator("#qa-chat .user .message-content").first.evaluate(style) == ["plaintext", True]


@pytest.mark.browser
def test_bad_messages_get_one_sentence_and_stay(visit, clips):
    visitor = visit()
    visitor.page.press("#qa-box textarea", "Enter")
    assert visitor.toast() == "Type a message or add an audio first."
    visitor.say("What is it?", clips["text"])
    assert visitor.toast().startswith("text.wav: The file is")
    assert visitor.page.input_value("#qa-box textarea") == "What is it?"
    assert visitor.page.locator("#qa-box .thumbnail-item").count() == 1, "for the visitor to replace it"
    assert visitor.page.locator("#qa-chat .message").count() == 0


def post(demo, dependency: dict, data: list) -> str:
    """Join the queue as a program would, and return all that the server says."""
    session = uuid.uuid4().hex
    body = {
        "data": data,
        "fn_index": dependency["id"],
        "session_hash": session,
        "event_data": {"index": 0, "value": ""},
    }
    base = f"{demo.local_url}gradio_api"
    with httpx.Client(timeout=60) as client:
        said = client.post(f"{base}/run/predict", json=body).text
        joined = client.post(f"{base}/queue/join", json=body)
        said += joined.text
        if joined.status_code == 200:
            with client.stream("GET", f"{base}/queue/data", params={"session_hash": session}) as stream:
                for line in stream.iter_lines():
                    said += line
                    if '"process_completed"' in line or '"close_stream"' in line:
                        break
    return said


_watchers: list[list[str]] = []
sys.addaudithook(
    lambda event, arguments: (
        event in ("open", "socket.connect") and [watcher.append(f"{event} {arguments}") for watcher in _watchers]
    )
)


@pytest.fixture
def opened():
    """Every file this process opens and every address it connects to; the server runs in it."""
    seen = []
    _watchers.append(seen)
    yield seen
    _watchers.remove(seen)


@pytest.mark.slow
@pytest.mark.parametrize("meta", [None, META], ids=["without meta", "with meta"])
@pytest.mark.parametrize("path", ["/etc/passwd", "http://127.0.0.1:9/x.wav", "../../etc/passwd"])
def test_no_endpoint_reads_a_path_of_the_server(demo, path, meta, opened):
    file = {"path": path, **({"meta": meta} if meta else {})}
    values = {
        "multimodaltextbox": {"text": "What?", "files": [file]},
        "file": [file],
        "uploadbutton": file,
        "downloadbutton": file,
        "textbox": path,
        "dropdown": path,
        "checkbox": path,
        "slider": path,
        "state": path,
        "chatbot": [{"role": "user", "content": file}],
    }
    tried = 0
    kinds = {component["id"]: component["type"] for component in demo.config["components"]}
    for dependency in demo.config["dependencies"]:
        if not dependency["backend_fn"]:
            continue
        inputs = [kinds[number] for number in dependency["inputs"]]
        tried += bool(set(inputs) & {"multimodaltextbox", "file", "uploadbutton", "downloadbutton"})
        said = post(demo, dependency, [values[kind] for kind in inputs])
        assert SECRET not in said
    assert tried >= 4
    assert opened and not [event for event in opened if "passwd" in event or ", 9)" in event]


@pytest.mark.parametrize(
    "address",
    [
        "gradio_api/file=/etc/passwd",
        "gradio_api/file=../../../../etc/passwd",
        "gradio_api/file=/proc/self/environ",
        "gradio_api/file=http://127.0.0.1:9/",
        "gradio_api/proxy=http://127.0.0.1:9/",
        "gradio_api/deep_link?session_hash=x",
        "monitoring",
    ],
)
def test_unused_routes_are_blocked(demo, address):
    answer = httpx.get(f"{demo.local_url}{address}")
    assert answer.status_code in (401, 403, 404)
    assert SECRET not in answer.text


def test_an_upload_is_served_to_nobody(demo, clips):
    with clips["low"].open("rb") as file:
        path = httpx.post(f"{demo.local_url}gradio_api/upload", files={"files": file}).json()[0]
    folder, name = path.rsplit("/", 1)
    for address in (path, f"{folder}/./{name}", f"{folder}%2F{name}", f"{folder}//{name}"):
        for route in ("file=", "file/"):
            assert httpx.get(f"{demo.local_url}gradio_api/{route}{address}").status_code == 404


@pytest.mark.slow
def test_too_large_a_file_is_refused(demo):
    with httpx.Client() as client:
        big = b"\0" * (257 * 2**20)
        answer = client.post(f"{demo.local_url}gradio_api/upload", files={"files": ("big.wav", big)}, timeout=120)
    assert answer.status_code == 413


def test_health(demo):
    answer = httpx.get(f"{demo.local_url}health")
    assert answer.status_code == 200 and answer.json()["model"] == "tiny"


@pytest.mark.slow
def test_api_answers_about_two_files(demo, clips):
    from gradio_client import Client, handle_file

    client = Client(demo.local_url, verbose=False)
    files = [handle_file(str(clips["low"])), handle_file(str(clips["high"]))]
    answer = client.predict(files, "Which one is higher?", api_name="/ask")
    assert answer == client.predict(files, "Which one is higher?", api_name="/ask") != ""
    served = ["/ask", "/listen"] if find_spec("mcp") else ["/ask"]  # listen is MCP's
    assert list(client.view_api(return_format="dict")["named_endpoints"]) == served
