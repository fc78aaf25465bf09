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
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import InferenceClient

from ..chatml import Conversation, conversation_audios
from .dialogues import facts, manifest_line
from .manifest import Clip, Dialogue, read_manifests, seconds

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


class EndpointError(RuntimeError):
    """The endpoint isn't there, or refuses."""


class UnusableReply(ValueError):
    """The language model didn't reply in the form that was asked for."""


def parse_reply(reply: str) -> list[tuple[str, str]]:
    """Questions and answers from a reply; text around the JSON list is ignored, as models like to add some.

    Raises:
        UnusableReply: there is no such list.
    """
    found = re.search(r"\[.*\]", reply, re.DOTALL)
    try:
        pairs = [(str(item["question"]).strip(), str(item["answer"]).strip()) for item in json.loads(found[0])]
    except (TypeError, KeyError, ValueError) as error:
        raise UnusableReply(f"The reply is not a JSON list of questions and answers: {reply[:200]!r}") from error
    return [(question, answer) for question, answer in pairs if question and answer]


def write_about(clip: Clip, client: InferenceClient, model: str, count: int) -> list[Dialogue]:
    """Ask the language model about one clip.

    Args:
        clip: a labelled clip; one without facts gives no dialogue.
        client: of the endpoint.
        model: the language model's name there.
        count: questions to ask for.

    Raises:
        EndpointError: it isn't there, or refuses.
        UnusableReply: see `parse_reply`.
    """
    labels = "\n".join(LABELS[fact.kind].format(fact.answer) for fact in facts(clip))
    if not labels:
        return []
    messages = [{"role": "user", "content": INSTRUCTION.format(labels=labels, count=count)}]
    try:
        reply = client.chat_completion(messages, model=model, max_tokens=200 * count)
    except Exception as error:  # the client's errors, and those of the HTTP library below it, have no common class
        raise EndpointError(f"The endpoint can't be used: {error}") from error
    pairs = parse_reply(reply.choices[0].message.content or "")
    length = seconds(clip)
    return [
        Dialogue(clip.origin, tuple(Conversation().ask(question, [clip.audio]).answer(answer)), length)
        for question, answer in pairs
    ]


def unwritten(clips: Sequence[Clip], output: Path) -> list[Clip]:
    """The clips that `output` has nothing about yet; a last line that was cut when a run was stopped is removed."""
    if not output.exists():
        return list(clips)
    text = output.read_text(encoding="utf-8")
    complete = text[: text.rfind("\n") + 1]
    if complete != text:
        output.write_text(complete, encoding="utf-8")
    messages = [json.loads(line)["messages"] for line in complete.splitlines()]
    done = {(output.parent / audio).resolve() for each in messages for audio in conversation_audios(each)}
    return [clip for clip in clips if clip.audio.resolve() not in done]


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line; called again, it goes on with the clips that are left."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--manifest", type=Path, nargs="+", required=True, help="labelled clips (JSONL)")
    parser.add_argument("--output", type=Path, required=True, help="manifest of dialogues to write or go on with")
    parser.add_argument("--base-url", required=True, help="of the endpoint, such as http://localhost:8000/v1")
    parser.add_argument("--model", required=True, help="the language model's name there")
    parser.add_argument("--count", type=int, default=3, help="questions for each clip (default: 3)")
    args = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    client = InferenceClient(base_url=args.base_url, api_key=os.environ.get("OPENAI_API_KEY"), timeout=120)
    examples = read_manifests(args.manifest, split="train", check_audio=False)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    for clip in unwritten([example for example in examples if isinstance(example, Clip)], args.output):
        try:
            talks = write_about(clip, client, args.model, args.count)
        except UnusableReply as error:
            log.warning("%s: %s", clip.origin, error)
            continue
        except EndpointError as error:
            parser.exit(2, f"{args.base_url}: {error}\n")
        with args.output.open("a", encoding="utf-8") as file:
            file.writelines(manifest_line(talk, args.output.parent) for talk in talks)


if __name__ == "__main__":
    main()
