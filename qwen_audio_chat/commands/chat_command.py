"""Ask about audio files, once or in a conversation.

The answer goes to standard output and everything else to standard error, so that the answer can be piped. What needs
PyTorch is imported where it is used, so that a help text doesn't wait for it.
"""

import argparse
import sys
from typing import TYPE_CHECKING

from ..errors import UserError
from ..loading import add_model_arguments, load_from

if TYPE_CHECKING:
    from ..chat import AudioChat
    from ..engine.sampling import GenerationOptions
    from ..engine.sessions import Session
    from ..prompts.conversation import Conversation


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`chat --audio a.wav --audio b.mp3 --text "..."`."""
    add_model_arguments(parser)
    parser.add_argument("--audio", action="append", default=[], metavar="FILE", help="an audio file; may be repeated")
    parser.add_argument("--text", help="the question; without it, talk interactively")
    parser.add_argument("--max-new-tokens", type=int, default=512, help="longest answer, in tokens (default: 512)")
    parser.add_argument("--sample", action="store_true", help="sample instead of taking the most likely words")
    parser.add_argument("--temperature", type=float, default=1.0, help="with --sample: higher varies more (default: 1)")
    parser.add_argument("--top-p", type=float, default=0.5, help="with --sample: probability kept (default: 0.5)")
    parser.add_argument("--seed", type=int, help="with --sample: gives the same answer again")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Answer once, or turn by turn until the end of input."""
    from ..audio.audio import Audio
    from ..engine.sampling import GenerationOptions
    from ..prompts.conversation import Conversation

    options = GenerationOptions(
        args.max_new_tokens, args.sample, temperature=args.temperature, top_p=args.top_p, seed=args.seed
    )
    audios = [Audio.load(path) for path in args.audio]  # before the model, so that a wrong file is reported at once
    chat = load_from(args)
    session, conversation = chat.new_session(), Conversation()
    if args.text is not None:
        _say(chat, conversation.ask(args.text, audios), options, session)
        return 0
    print('Type a question; "/audio FILE" adds an audio, an empty line or Ctrl-D ends.', file=sys.stderr)
    while line := _read_line():
        turns = len(conversation)
        try:
            if line.startswith("/audio "):
                audios.append(Audio.load(line.removeprefix("/audio ").strip()))
            else:
                asked, audios = audios, []  # also where they turn out too long: the next question must not repeat them
                _say(chat, conversation.ask(line, asked), options, session)
        except UserError as error:
            del conversation[turns:]
            print(f"Error: {error}", file=sys.stderr)
    return 0


def _read_line() -> str:
    print("> ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip()


def _say(
    chat: "AudioChat", conversation: "Conversation", options: "GenerationOptions", session: "Session | None"
) -> None:
    from ..answering import answer

    reply = answer(chat, conversation, options, session=session)
    for piece in reply:
        print(piece, end="", flush=True)
    print(flush=True)
    for notice in reply.notices:
        print(notice, file=sys.stderr)
    conversation.answer(reply.text, reply.token_ids)
