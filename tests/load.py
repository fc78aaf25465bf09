"""Many visitors at once, by HTTP as a browser does it: `python -m tests.load` measures a page over the pocket model.

Prints the longest queue, the time to the first token of single visitors, and the server's own memory after
20 and after 200 requests.
"""

import argparse
import json
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import soundfile

from qwen_audio_chat.audio.decoding import load_audio

REPOSITORY = Path(__file__).parents[1]
SETTINGS = [False, 1.0, 0.5, 0, 1.0, 16, ""]  # greedy, 16 new tokens; in the order of the page


@dataclass
class Visit:
    """What a visitor got: the places in the queue that were shown, when the answer began and ended, and its text."""

    places: list[int] = field(default_factory=list)
    started: float = 0.0
    finished: float = 0.0
    answer: str = ""
    first_token: float = 0.0  # seconds, as the status line shows


class Page:
    """A served page, by its address."""

    def __init__(self, address: str):
        self.address = f"{address.rstrip('/')}/gradio_api"
        config = httpx.get(f"{address.rstrip('/')}/config", timeout=60).json()
        self.functions = {each["api_name"]: each["id"] for each in config["dependencies"]}

    def visit(self, audio: Path, question: str = "What does the person say?") -> Visit:
        """Open the page, ask about a file, read the answer, close the page."""
        visit, session = Visit(), uuid.uuid4().hex
        with httpx.Client(timeout=600) as client:
            with client.stream("GET", f"{self.address}/heartbeat/{session}"):  # when it ends, the page counts as closed
                with audio.open("rb") as file:
                    path = client.post(f"{self.address}/upload", files={"files": file}).json()[0]
                uploaded = {"path": path, "orig_name": audio.name, "meta": {"_type": "gradio.FileData"}}
                message = {"text": question, "files": [uploaded]}
                self._call(client, session, "submit", [message, False], Visit())  # a page that shows no conversation
                chatbot, _, status = self._call(client, session, "answer", SETTINGS, visit)
        visit.answer = "".join(part["text"] for part in chatbot[-1]["content"] if part["type"] == "text")
        visit.first_token = float(re.search(r"first word after ([\d.]+) s", status).group(1))
        return visit

    def _call(self, client: httpx.Client, session: str, name: str, data: list, visit: Visit) -> list:
        """Join the queue of a handler and wait; returns the last outputs."""
        body = {"data": data, "fn_index": self.functions[name], "session_hash": session}
        client.post(f"{self.address}/queue/join", json=body).raise_for_status()
        with client.stream("GET", f"{self.address}/queue/data", params={"session_hash": session}) as stream:
            for line in stream.iter_lines():
                event = json.loads(line.removeprefix("data:")) if line else {"msg": ""}
                if event["msg"] == "estimation":
                    visit.places.append(event["rank"])
                elif event["msg"] == "process_starts":
                    visit.started = time.monotonic()
                elif event["msg"] == "process_completed":
                    visit.finished = time.monotonic()
                    if not event["success"]:
                        raise RuntimeError(str(event["output"]))
                    return event["output"]["data"]
        raise RuntimeError("The server ended the stream.")


def visit_at_once(page: Page, audios: list[Path]) -> list[Visit]:
    """One visitor for each file, all at once; in the order in which they were served."""
    with ThreadPoolExecutor(len(audios)) as pool:
        return sorted(pool.map(page.visit, audios), key=lambda visit: visit.started)


def own_memory(process: int) -> float:
    """Megabytes of a process (on Linux) without mapped files."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(re.search(r"RssAnon:\s+(\d+) kB", status).group(1)) / 1024


def clips(folder: Path, count: int, seconds: float = 5.0) -> list[Path]:
    """`count` different clips of speech from the examples, each exactly `seconds` long."""
    spoken = [REPOSITORY / f"assets/examples/{name}.flac" for name in ("menu", "new-password", "not-valid")]
    speech = np.concatenate([load_audio(path) for path in spoken])
    length, paths = int(seconds * 16000), []
    for number in range(count):
        paths.append(folder / f"clip-{number}.wav")
        soundfile.write(paths[-1], np.take(speech, np.arange(length) + number * 9973, mode="wrap"), 16000)
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=7899)
    parser.add_argument("--singles", type=int, default=20, help="visitors one by one, for the time to the first token")
    parser.add_argument("--rounds", type=int, default=10, help="rounds of 20 visitors at once, for the memory")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("Stopped."))  # runs `finally`, which stops the server
    began = time.monotonic()
    server = subprocess.Popen([sys.executable, "web_demo.py", "--port", str(args.port)], cwd=REPOSITORY)
    try:
        address = f"http://127.0.0.1:{args.port}"
        while True:
            try:
                httpx.get(f"{address}/health", timeout=60).raise_for_status()
                break
            except httpx.TransportError:
                if server.poll() is not None:
                    sys.exit("The server didn't start.")
                time.sleep(0.1)
        print(f"page up after {time.monotonic() - began:.1f} s", flush=True)
        page = Page(address)
        with tempfile.TemporaryDirectory() as folder:
            audios = clips(Path(folder), max(20, args.singles))
            times = sorted(page.visit(audio).first_token for audio in audios[: args.singles])
            if times:
                p95 = times[max(0, -(-len(times) * 95 // 100) - 1)]
                print(
                    f"first token of {len(times)}: median {statistics.median(times):.2f} s, p95 {p95:.2f} s", flush=True
                )
            for number in range(1, args.rounds + 1):
                visits = visit_at_once(page, audios[:20])
                longest = max(place for visit in visits for place in visit.places)
                in_order = all(a.finished <= b.finished for a, b in zip(visits, visits[1:], strict=False))
                memory = own_memory(server.pid)
                print(
                    f"{number * 20} requests: {len(visits)} answered, in order: {in_order}, "
                    f"longest queue {longest + 1}, {memory:.0f} MB",
                    flush=True,
                )
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
