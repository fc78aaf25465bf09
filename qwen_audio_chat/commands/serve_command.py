"""Serve the page to browsers.

`python web_demo.py` is the same, and `launch` does it in a notebook.
"""

import argparse
import os
import socket
import sys
from typing import TYPE_CHECKING, cast

from ..errors import UserError
from ..loading import add_model_arguments, load_from

if TYPE_CHECKING:
    from ..chat import AudioChat
    from ..demo.page import Page

# The page is imported inside functions and late: `--help` and wrong arguments don't wait for Gradio and PyTorch.

AUTH_VARIABLE = "QWEN_AUDIO_CHAT_AUTH"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`serve --port 7860 --share --auth user:password`."""
    add_model_arguments(parser)
    parser.add_argument(
        "--host", help="address to listen on; 0.0.0.0 lets the whole network in (default: this machine only)"
    )
    parser.add_argument("--port", type=int, help="port to listen on (default: the first free one from 7860 on)")
    parser.add_argument("--share", action="store_true", help="also open a public link through gradio.live")
    parser.add_argument(
        "--auth",
        metavar="USER:PASSWORD",
        help=f"login that visitors must enter; the variable {AUTH_VARIABLE} keeps it out of the list of processes",
    )
    parser.add_argument("--open", action="store_true", help="open the page in a browser")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Load the model, and serve the page until stopped."""
    options = _options(args)
    from ..demo.launch import serve

    serve(_build(args), **options)
    return 0


def launch(**arguments) -> "Page":
    """Show the page in a notebook; takes the arguments of the command line by name, as in `launch(share=True)`.

    Returns:
        The Gradio page, which is served until its `close()`.

    Raises:
        TypeError: the command line has no such argument.
        UserError: as on the command line.
    """
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    args = parser.parse_args([])
    unknown = set(arguments) - set(vars(args))
    if unknown:
        raise TypeError(f"launch() has no argument {', '.join(sorted(unknown))}")
    vars(args).update(arguments)
    options = _options(args)
    from ..demo.launch import launch as launch_page

    return launch_page(_build(args), **options, quiet=True)


def _options(args: argparse.Namespace) -> dict:
    """Options of `demo.launch.launch`, checked before a model is loaded."""
    if args.port is not None and not 0 < args.port < 2**16:
        raise UserError("There is no port {port}; choose one from 1 to 65535.", port=args.port)
    if args.port is not None and _is_taken(args.port):
        raise UserError(
            "Port {port} is in use; choose another one, or give none to take the first free one.", port=args.port
        )
    auth = _login(args.auth or os.environ.get(AUTH_VARIABLE))
    if args.share and auth is None:
        print(
            "WARNING: --share without a login makes a PUBLIC link: whoever has it can use this machine.\n"
            f"Set a login with --auth user:password or in the variable {AUTH_VARIABLE}.",
            file=sys.stderr,
        )
    return {"host": args.host, "port": args.port, "share": args.share, "auth": auth, "inbrowser": args.open}


def _is_taken(port: int) -> bool:
    """Whether another program listens on this port of this machine."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def _login(login: str | tuple[str, str] | None) -> tuple[str, str] | None:
    """(user, password) of "user:password"; in a notebook also of a pair, as Gradio takes it.

    Raises:
        UserError: one of them is missing.
    """
    if not login:
        return None
    user, _, password = login.partition(":") if isinstance(login, str) else (login[0], "", login[-1])
    if not user or not password:
        raise UserError('A login is written as "user:password".')
    return user, password


def _build(args: argparse.Namespace) -> "Page":
    """The page over the model that the arguments name."""
    from ..demo import page
    from ..demo.gradio_internals import is_zero_gpu_space
    from ..demo.memory import use_one_heap
    from ..demo.zero_gpu import ZeroGPUChat

    use_one_heap()
    print("Loading the model ...", file=sys.stderr, flush=True)
    if not is_zero_gpu_space():
        return page.build_demo(load_from(args))
    if args.quantization == "auto":
        args.quantization = "none"  # bitsandbytes would need a GPU now, before there is one
    return page.build_demo(cast("AudioChat", ZeroGPUChat(load_from(args))))
