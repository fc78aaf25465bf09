"""More questions and answers than templates have: a language model writes them from the labels of clips.

Any endpoint with OpenAI's chat completions will do. It gets the labels as text, never the audio, as in the paper (arXiv
2311.07919, section 2.3), so the instruction asks for questions that the label answers.
"""

import json
import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path

import httpx2  # openai's HTTP client
import openai

from ..audio.decoding import AudioError
from ..errors import UserError
from ..prompts.messages import conversation_audios
from .dialogues import exchange, facts, manifest_line, read_labelled
from .manifest import Clip, Dialogue, audio_seconds

log = logging.getLogger(__name__)

FACT_SENTENCES = {
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
"""Statuses that are the same for every clip, and what to do about them."""
TOKENS_PER_PAIR = 200  # longest question with its answer
TIMEOUT = 60  # seconds without a sign of the endpoint
MAX_RETRIES = 3
MAX_FAILED_CLIPS = 3  # clips in a row without a reply, after which no other is tried
_LINE_START = b'{"messages": '  # of each line that `manifest_line` writes
_SURROGATE = re.compile("[\ud800-\udfff]")  # half a character, which JSON can hold and a file can't


class EndpointError(UserError):
    """The endpoint isn't there, or refuses: other clips will fare no better."""


class NoReplyError(UserError):
    """The endpoint failed for one clip."""


class UnusableReplyError(UserError):
    """The language model didn't reply in the form that was asked for."""


def connect(base_url: str) -> openai.OpenAI:
    """A client of an endpoint. It sends the key in OPENAI_API_KEY, and no other one that the environment holds.

    An endpoint that is busy, broken or silent is asked again, after the pause that it asks for.

    Raises:
        UserError: the address is malformed.
    """
    try:
        scheme = httpx2.URL(base_url).scheme
    except httpx2.InvalidURL as error:
        raise UserError("--base-url {url!r} is no address ({reason}).", url=base_url, reason=error) from error
    if scheme not in ("http", "https"):
        raise UserError("--base-url must begin with http:// or https://, unlike {url!r}.", url=base_url)
    return openai.OpenAI(
        base_url=base_url,
        api_key=os.environ.get("OPENAI_API_KEY", "").strip(),
        admin_api_key="",  # None would read it from the environment
        timeout=TIMEOUT,
        max_retries=MAX_RETRIES,
        http_client=openai.DefaultHttpxClient(follow_redirects=False),  # the labels go to this address only
    )


def ask(client: openai.OpenAI, model: str, prompt: str, max_tokens: int) -> str:
    """The text of a chat completion.

    Raises:
        EndpointError: the endpoint refuses.
        NoReplyError: it failed each time, or can't take this request.
        UnusableReplyError: the reply isn't a chat completion with text.
    """
    left_out = ["OpenAI-Organization", "OpenAI-Project"] + ["Authorization"] * (not client.api_key)
    try:
        completion = client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": prompt}],
            max_tokens=max_tokens,
            extra_headers=dict.fromkeys(left_out, openai.omit),
        )
    except openai.APIStatusError as error:
        status = error.status_code
        if status in REFUSALS:
            raise EndpointError(
                "{url} refuses with status {status}: {remedy}.",
                url=client.base_url,
                status=status,
                remedy=REFUSALS[status],
            ) from error
        raise NoReplyError("status {status}", status=status) from error
    except openai.APIConnectionError as error:
        cause = error.__cause__ or error
        raise NoReplyError("{kind}: {reason}", kind=type(cause).__name__, reason=cause) from error
    except (openai.APIError, ValueError) as error:
        raise UnusableReplyError("The reply is not a chat completion: {reason}", reason=error) from error
    try:
        text = completion.choices[0].message.content
    except (LookupError, TypeError, AttributeError):  # openai doesn't check what it received
        text = None
    if not isinstance(text, str):
        raise UnusableReplyError("The reply is not a chat completion with text: {reply}", reply=str(completion)[:200])
    return text.strip()


def parse_reply(reply: str) -> list[tuple[str, str]]:
    """Questions and answers from a reply: its last JSON list of them, since models tend to think and chat around it.

    Raises:
        UnusableReplyError: there is no such list.
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
        raise UnusableReplyError("The reply is not a JSON list of questions and answers: {reply!r}", reply=reply[:200])
    return pairs


def _is_pair(item: object) -> bool:
    """Whether this is a question with its answer, both of them text that a file can hold."""
    texts = [item.get("question"), item.get("answer")] if isinstance(item, dict) else [None]
    return all(isinstance(text, str) and text.strip() and not _SURROGATE.search(text) for text in texts)


def write_about(clip: Clip, client: openai.OpenAI, model: str, count: int) -> list[Dialogue]:
    """Ask the language model about one clip.

    Args:
        clip: a labelled clip, with facts.
        client: of the endpoint.
        model: the language model's name there.
        count: questions to ask for.

    Raises:
        AudioError: the clip can't be read.
        EndpointError, NoReplyError, UnusableReplyError: see `ask` and `parse_reply`.
    """
    seconds = audio_seconds(clip)
    labels = "\n".join(FACT_SENTENCES[fact.kind].format(fact.answer) for fact in facts(clip))
    reply = ask(client, model, INSTRUCTION.format(labels=labels, count=count), TOKENS_PER_PAIR * count)
    return [
        Dialogue(clip.origin, tuple(exchange(question, [clip.audio], answer)), seconds)
        for question, answer in parse_reply(reply)
    ]


def clips_left(clips: Sequence[Clip], output: Path) -> list[Clip]:
    """The clips about which `output` has nothing yet. Of a stopped run, half a last line is removed from the file.

    Raises:
        UserError: `output` isn't a manifest of dialogues; it stays as it is.
    """
    if output.is_dir():
        raise UserError("{output} is a folder: name a file with --output.", output=str(output))
    if not output.exists():
        return list(clips)
    *lines, last = output.read_bytes().split(b"\n")  # bytes, since half a line may end within a character
    is_half = _is_half_line(last)
    try:
        dialogues = [json.loads(line)["messages"] for line in lines + [last] * (not is_half) if line.strip()]
        done = {(output.parent / audio).resolve() for each in dialogues for audio in conversation_audios(each)}
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(
            "{output} holds something other than dialogues: choose another --output.", output=str(output)
        ) from error
    if is_half:
        os.truncate(output, output.stat().st_size - len(last))
    else:
        with output.open("ab") as file:
            file.write(b"\n")
    return [clip for clip in clips if clip.audio.resolve() not in done]


def _is_half_line(line: bytes) -> bool:
    """Whether this is the beginning of a line with a dialogue, perhaps none of it, but not all."""
    try:
        json.loads(line)
    except ValueError:
        return line.startswith(_LINE_START) or _LINE_START.startswith(line)
    return False


def write_all(manifests: Sequence[Path], output: Path, base_url: str, model: str, count: int) -> str:
    """Append dialogues about all clips that are left to a manifest; a stopped run continues when called again.

    Args:
        manifests: of labelled clips.
        output: the manifest of dialogues.
        base_url: of the endpoint, such as "http://localhost:8000/v1".
        model: the language model's name there.
        count: questions to ask for about each clip.

    Returns:
        What was written, as one sentence.

    Raises:
        UserError: what is wrong with the arguments, the data or the endpoint.
    """
    clips = read_labelled(manifests)
    try:
        left = clips_left(clips, output)
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError("{output} can't be written ({reason}).", output=str(output), reason=error.strerror) from error
    client = connect(base_url)
    num_dialogues = num_clips = num_unusable = failed_in_a_row = 0
    for clip in left:
        try:
            dialogues = write_about(clip, client, model, count)
        except (NoReplyError, UnusableReplyError, AudioError) as error:
            log.warning("skipped %s: %s", clip.origin, error)
            num_unusable += isinstance(error, UnusableReplyError)
            failed_in_a_row = failed_in_a_row + 1 if isinstance(error, NoReplyError) else 0
            if failed_in_a_row == MAX_FAILED_CLIPS:
                raise EndpointError(
                    "{url} can't be used: {count} clips in a row failed ({reason}); the same command continues later.",
                    url=base_url,
                    count=failed_in_a_row,
                    reason=error,
                ) from error
            continue
        with output.open("a", encoding="utf-8") as file:
            file.writelines(manifest_line(dialogue, output.parent) for dialogue in dialogues)
        num_dialogues, num_clips, failed_in_a_row = num_dialogues + len(dialogues), num_clips + 1, 0
    if left and not num_dialogues:
        raise UserError("Not a single dialogue could be written: the warnings tell why.")
    return f"{num_dialogues} dialogues about {num_clips} clips; {num_unusable} replies were unusable."
