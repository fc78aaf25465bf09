"""Open the page for a browser.

The command `serve`, which `web_demo.py` runs as well, and `launch`, the same for a notebook.
"""

import argparse
import os
import sys

from ..loading import add_model_arguments, load_from

AUTH_VARIABLE = "QWEN_AUDIO_CHAT_AUTH"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`serve --port 7860 --share --auth user:password`."""
    add_model_arguments(parser)
    parser.add_argument("--host", help="address to listen on (default: this machine only; 0.0.0.0 for the network)")
    parser.add_argument("--port", type=int, help="default: the first free one from 7860 on")
    parser.add_argument("--share", action="store_true", help="open a public link as well")
    parser.add_argument(
        "--auth", metavar="USER:PASSWORD", help=f"ask visitors for a login; better in the variable {AUTH_VARIABLE}"
    )
    parser.add_argument("--open", action="store_true", help="open the page in a browser")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Load the model, serve the page until stopped."""
    from ..demo.launch import serve

    options = _options(args)
    serve(_build(args), **options)
    return 0


def launch(**arguments):
    """Show the page in a notebook; takes the arguments of the command line by name, as in `launch(share=True)`.

    Returns the Gradio page, which serves until its `close()`.

    Raises:
        TypeError: an argument that the command line doesn't have.
    """
    from ..demo.launch import launch as launch_page

    parser = argparse.ArgumentParser()
    add_arguments(parser)
    unknown = set(arguments) - set(vars(parser.parse_args([])))
    if unknown:
        raise TypeError(f"launch() has no argument {', '.join(sorted(unknown))}")
    args = parser.parse_args([])
    vars(args).update(arguments)
    options = _options(args)
    return launch_page(_build(args), **options, quiet=True)


def _options(args: argparse.Namespace) -> dict:
    """Options of `launch`, checked before a model is loaded."""
    from ..demo.launch import LaunchError, is_taken

    if args.port is not None and not 0 < args.port < 2**16:
        raise LaunchError(f"There is no port {args.port}; choose one from 1 to 65535.")
    if args.port is not None and is_taken(args.port):
        raise LaunchError(f"Port {args.port} is in use; choose another one, or give none to take the first free one.")
    auth = _login(args.auth or os.environ.get(AUTH_VARIABLE))
    if args.share and auth is None:
        print(
            "WARNING: --share without a login makes a PUBLIC link: whoever has it can use this machine.\n"
            f"Set a login with --auth user:password or in the variable {AUTH_VARIABLE}.",
            file=sys.stderr,
        )
    return {"host": args.host, "port": args.port, "share": args.share, "auth": auth, "inbrowser": args.open}


def _login(login: str | tuple[str, str] | None) -> tuple[str, str] | None:
    """(user, password) of "user:password"; a notebook may give them apart, as Gradio takes them.

    Raises:
        ValueError: one of them is missing.
    """
    if not login:
        return None
    user, _, password = login.partition(":") if isinstance(login, str) else (login[0], "", login[-1])
    if not user or not password:
        raise ValueError('A login is written as "user:password".')
    return user, password


def _build(args: argparse.Namespace):
    """The page over the model that the arguments name."""
    from gradio.utils import is_zero_gpu_space

    from ..demo.memory import use_one_heap

    use_one_heap()
    print("Loading the model ...", file=sys.stderr, flush=True)
    if is_zero_gpu_space():  # there is no GPU yet, and bitsandbytes would want one
        if args.quantization == "auto":
            args.quantization = "none"
        from ..demo.zero_gpu import ZeroGPUChat

        chat = ZeroGPUChat(load_from(args))
    else:
        chat = load_from(args)
    from ..demo.page import build_demo

    return build_demo(chat)
