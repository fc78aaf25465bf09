"""More questions and answers than templates know: a language model writes them from the labels of clips.

    python -m qwen_audio_chat.training.written_dialogues --manifest clips.jsonl --output written.jsonl \\
        --base-url http://localhost:8000/v1 --model NAME

Any endpoint that speaks OpenAI's chat completions will do. It gets the labels as text, never the audio, as in the paper
(arXiv 2311.07919, section 2.3); so it is told to ask only what the label answers.
"""

import argparse
import json
import logging
import os
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import httpx

from ..audio.decoding import AudioError
from ..commands.arguments import number, run_command
from ..prompts.conversation import Conversation
from ..prompts.messages import conversation_audios
from .dialogues import facts, manifest_line, read_labelled
from .manifest import Clip, Dialogue, seconds

log = logging.getLogger(__name__)

LABELS = {
    "transcribe": "A person says: {}", "sound": "The sound is: {}", "language": "The language spoken is: {}",
    "translate": "What is said means in English: {}", "note": "A single note is played: {}", "nothing": "{}",
}  # fmt: skip
INSTRUCTION = """\
You write training data for a model that listens to audio. Here is all that is known about one audio clip:

{labels}

Write {count} different questions that a person who hears the clip could ask about it, each with its answer. Ask only
what the lines above answer; the answers are short and speak of the audio, never of "the label". Reply with a JSON list
and nothing else: [{{"question": "...", "answer": "..."}}]"""
REFUSALS = {
    401: "give its key in OPENAI_API_KEY",
    403: "the key in OPENAI_API_KEY may not do this",
    404: "look at --base-url and --model",
}
"""Statuses that no other clip will change, and what to do."""
TIMEOUT = 60  # seconds without a sign of the endpoint
PAUSES, LONGEST_PAUSE = (1, 3, 6), 30  # seconds before each new try, and how many the endpoint may ask for
FAILURES = 3  # clips in a row without a reply, after which no other is tried
_LINE_START = b'{"messages": '  # of each line, as `manifest_line` writes it
_SURROGATE = re.compile("[\ud800-\udfff]")  # half a character, which JSON can tell and a file can't hold


class EndpointError(ValueError):
    """The endpoint isn't there, or refuses: no other clip will fare better."""


class NoReply(RuntimeError):
    """The endpoint failed about one clip."""


class UnusableReply(ValueError):
    """The language model didn't reply in the form that was asked for."""


def ask(client: httpx.Client, body: dict) -> httpx.Response:
    """Ask for a chat completion; an endpoint that is busy, broken or silent is asked again after a while.

    Raises:
        EndpointError: it refuses.
        NoReply: it failed each time, or can't take this request.
    """
    for pause in (*PAUSES, None):
        try:
            response = client.post("chat/completions", json=body)
            status, reason = response.status_code, f"status {response.status_code}"
            told = response.headers.get("Retry-After", "")  # seconds; or a date, which is not honoured
        except httpx.RequestError as error:
            status, reason, told = 503, f"{type(error).__name__}: {error}", ""
        if status in REFUSALS:
            raise EndpointError(f"{client.base_url} refuses with status {status}: {REFUSALS[status]}.")
        if status < 300:
            return response
        if pause is None or (status < 500 and status not in (408, 429)):
            raise NoReply(reason)
        if told.isdecimal() and pause < int(told) <= LONGEST_PAUSE:
            pause = int(told)
        log.warning("%s; asking again in %d s", reason, pause)
        time.sleep(pause)


def parse_reply(reply: str) -> list[tuple[str, str]]:
    """Questions and answers from a reply: its last JSON list of them, as models like to think and to chat around it.

    Raises:
        UnusableReply: there is no such list.
    """
    pairs, position = [], 0
    while (start := reply.find("[", position)) >= 0:
        position = start + 1
        try:
            items, end = json.JSONDecoder().raw_decode(reply, start)
        except (ValueError, RecursionError):
            continue
        if found := [(item["question"].strip(), item["answer"].strip()) for item in items if _is_pair(item)]:
            pairs, position = found, end
    if not pairs:
        raise UnusableReply(f"The reply is not a JSON list of questions and answers: {reply[:200]!r}")
    return pairs


def _is_pair(item: object) -> bool:
    """Whether this is a question with its answer, both of them text that a file can hold."""
    texts = [item.get("question"), item.get("answer")] if isinstance(item, dict) else [None]
    return all(isinstance(text, str) and text.strip() and not _SURROGATE.search(text) for text in texts)


def write_about(clip: Clip, client: httpx.Client, model: str, count: int) -> list[Dialogue]:
    """Ask the language model about one clip.

    Args:
        clip: a labelled clip, with facts.
        client: of the endpoint.
        model: the language model's name there.
        count: questions to ask for.

    Raises:
        AudioError: the clip can't be read.
        EndpointError: see `ask`.
        NoReply: see `ask`.
        UnusableReply: the reply is no chat completion with text, or see `parse_reply`.
    """
    length = seconds(clip)
    labels = "\n".join(LABELS[fact.kind].format(fact.answer) for fact in facts(clip))
    messages = [{"role": "user", "content": INSTRUCTION.format(labels=labels, count=count)}]
    response = ask(client, {"model": model, "messages": messages, "max_tokens": 200 * count})
    try:
        reply = response.json()["choices"][0]["message"]["content"].strip()
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UnusableReply(f"The reply is not a chat completion with text: {response.text[:200]!r}") from error
    return [
        Dialogue(clip.origin, tuple(Conversation().ask(question, [clip.audio]).answer(answer)), length)
        for question, answer in parse_reply(reply)
    ]


def unwritten(clips: Sequence[Clip], output: Path) -> list[Clip]:
    """The clips that `output` has nothing about yet; a last line that was cut when a run was stopped is removed.

    Raises:
        ValueError: `output` is something else than a manifest of dialogues; it stays as it is.
    """
    if output.is_dir():
        raise ValueError(f"{output} is a folder: name a file with --output.")
    if not output.exists():
        return list(clips)
    *lines, last = output.read_bytes().split(b"\n")  # of bytes, as a torn line may end within a character
    torn = _is_torn(last)
    try:
        talks = [json.loads(line)["messages"] for line in lines + [last] * (not torn) if line.strip()]
        done = {(output.parent / audio).resolve() for talk in talks for audio in conversation_audios(talk)}
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{output} holds something else than dialogues: choose another --output.") from error
    if torn:
        os.truncate(output, output.stat().st_size - len(last))
    else:
        with output.open("ab") as file:
            file.write(b"\n")
    return [clip for clip in clips if clip.audio.resolve() not in done]


def _is_torn(line: bytes) -> bool:
    """Whether this is the beginning of a line with a dialogue, or nothing, but not a whole one."""
    try:
        json.loads(line)
    except ValueError:
        return line.startswith(_LINE_START) or _LINE_START.startswith(line)
    return False


def run(args: argparse.Namespace) -> None:
    """Write about all clips that are left.

    Raises:
        ValueError: one sentence on what is wrong with arguments, data or endpoint.
    """
    left = unwritten(read_labelled(args.manifest), args.output)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    # Hugging Face's client would send the user's token to this address, if there is no other key.
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        client = httpx.Client(base_url=args.base_url, headers=headers, timeout=TIMEOUT)
    except httpx.InvalidURL as error:
        raise ValueError(f"--base-url {args.base_url!r} is no address ({error}).") from error
    if client.base_url.scheme not in ("http", "https"):
        raise ValueError(f"--base-url must begin with http:// or https://, unlike {args.base_url!r}.")
    written = about = unusable = failed = 0
    for clip in left:
        try:
            talks = write_about(clip, client, args.model, args.count)
        except (NoReply, UnusableReply, AudioError) as error:
            log.warning("skipped %s: %s", clip.origin, error)
            unusable += isinstance(error, UnusableReply)
            failed = failed + 1 if isinstance(error, NoReply) else 0
            if failed == FAILURES:
                reason = f"{failed} clips in a row failed ({error}); the same command goes on later"
                raise EndpointError(f"{args.base_url} can't be used: {reason}.") from error
            continue
        with args.output.open("a", encoding="utf-8") as file:
            file.writelines(manifest_line(talk, args.output.parent) for talk in talks)
        written, about, failed = written + len(talks), about + 1, 0
    print(f"{written} dialogues about {about} clips; {unusable} replies were unusable.")
    if left and not written:
        raise ValueError("Not a single dialogue could be written: the warnings tell why.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; called again, it goes on with the clips that are left."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--manifest", type=Path, nargs="+", required=True, help="labelled clips (JSONL)")
    parser.add_argument("--output", type=Path, required=True, help="manifest of dialogues to write or go on with")
    parser.add_argument("--base-url", required=True, help="of the endpoint, such as http://localhost:8000/v1")
    parser.add_argument("--model", required=True, help="the language model's name there")
    parser.add_argument("--count", type=number(int, 1), default=3, help="questions for each clip (default: 3)")
    args = parser.parse_args(arguments)
    logging.basicConfig(format="%(levelname)s %(message)s")
    return run_command(lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
