"""One way to launch the page for the command line, a Space and a notebook, so that none of them lacks a setting."""

import re
import signal
import socket
import threading
import time
from pathlib import Path

import gradio as gr
from gradio import processing_utils
from starlette.middleware import Middleware
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

from .api_handlers import MCP_TOOL, has_mcp
from .render import model_name
from .texts import I18N

HERE = Path(__file__).resolve().parent
MAX_FILE_SIZE = "256mb"  # what `audio.load_audio` accepts
MAX_REQUESTS = 200  # waiting for a thread, of any kind; what waits for the model is bounded by `context.MAX_WAITING`
DRAIN_SECONDS = 30

# Ways into Gradio that this page has no use for: proxies, editors, recordings of the screen, published states.
_SHUT = ("file=http", "file/", "proxy=", "process_recording", "vibe-", "undo-vibe-", "deep_link", "component_server")

THEME = gr.themes.Base(
    primary_hue="indigo",
    secondary_hue="indigo",
    neutral_hue="slate",
    radius_size="lg",
    font=["ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans SC", "sans-serif"],
    font_mono=["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"],
)


# What visitors uploaded lies in folders named by a hash of the content, which who has the same file can tell. Nobody
# gets it from there: the page plays its own copy, in a folder that can't be guessed. Only the recorder plays what it
# has uploaded, under this name; no two recordings are the same.
_UPLOAD = re.compile(r"file=.*[/\\][0-9a-f]{64}[/\\](?!audio\.wav$)")


class LaunchError(ValueError):
    """Why the page can't be served, as one sentence for the user."""


class ShutDoors:
    """Answer 404 to what the page never asks for."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope["type"] == "http":
            path = scope["path"].removeprefix("/gradio_api").lstrip("/").lower()
            if path.startswith(_SHUT) or _UPLOAD.match(path):
                return await PlainTextResponse("Not found", 404)(scope, receive, send)
        return await self.app(scope, receive, send)


def launch(
    demo: gr.Blocks,
    *,
    host: str | None = None,
    port: int | None = None,
    share: bool = False,
    auth: tuple[str, str] | None = None,
    inline: bool | None = None,
    inbrowser: bool = False,
    quiet: bool = False,
) -> gr.Blocks:
    """Serve the page of `build_demo` in the background, with all its settings, and return it once its model is warm.

    Args:
        host: address to listen on; None for this machine only (or what a hosting service sets), "0.0.0.0" for all.
        port: None takes the first free one from 7860 on.
        share: open a public link through gradio.live as well.
        auth: (user, password) to ask visitors for.
        inline: show the page in a notebook; None finds out.

    Raises:
        LaunchError: the page can't be served there.
    """
    processing_utils.async_ssrf_protected_download = _refuse_address
    demo.queue(max_size=MAX_REQUESTS, api_open=False)
    try:
        demo.launch(
            server_name=host,
            server_port=port,
            share=share,
            auth=auth,
            inline=inline,
            inbrowser=inbrowser,
            quiet=quiet,
            prevent_thread_lock=True,
            theme=THEME,
            css_paths=HERE / "style.css",
            head=f"<script>{(HERE / 'player.js').read_text(encoding='utf-8')}</script>",
            i18n=I18N,
            max_file_size=MAX_FILE_SIZE,
            allowed_paths=[],
            footer_links=[],
            run_history=False,
            enable_monitoring=False,
            ssr_mode=False,
            pwa=False,
            show_error=False,
            mcp_server=has_mcp(),
            app_kwargs={
                "routes": [Route("/health", _health(demo))],
                "middleware": [Middleware(ShutDoors)],
                "docs_url": None,
                "redoc_url": None,
            },
        )
    except OSError as error:
        raise LaunchError(f"The page can't be served at {host or 'this machine'}: {error}") from error
    if demo.mcp_server_obj is not None:
        tools = demo.mcp_server_obj.tool_to_endpoint
        for name in set(tools) - {MCP_TOOL}:
            del tools[name]
    if host not in (None, "127.0.0.1", "localhost", "::1") and not quiet:
        print("* Browsers allow the microphone on HTTPS and localhost only; put HTTPS in front, or upload files.")
    demo.page_context.chat.warm_up()  # now, for the page is there while its visitor still looks for a file
    return demo


def serve(demo: gr.Blocks, **options) -> None:
    """`launch`, then stay until SIGINT or SIGTERM; answers under way may end, new ones are refused."""
    stopped = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: stopped.set())
    launch(demo, **options)
    stopped.wait()
    drain(demo)


def drain(demo: gr.Blocks, seconds: float = DRAIN_SECONDS) -> None:
    """Refuse new questions, wait for the answers under way, then close the server and delete the visitors' data."""
    demo.page_context.draining = True
    end = time.monotonic() + seconds
    while demo.page_context.answering() and time.monotonic() < end:
        time.sleep(0.1)
    demo.close(verbose=False)
    demo.page_context.visitors.forget_all()


def is_taken(port: int) -> bool:
    """Whether another program listens on this machine's port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


async def _refuse_address(*_args, **_options):
    # Gradio would fetch any public address that a request names in place of an uploaded file.
    raise gr.Error("Upload a file; web addresses are not fetched.", print_exception=False)


def _health(demo: gr.Blocks):
    async def health(_request) -> JSONResponse:
        """200 while questions are taken, 503 while the server drains; model, visitors and line in figures."""
        context = demo.page_context
        info = context.chat.info
        status = "draining" if context.draining else "ok"
        body = {
            "status": status,
            "model": model_name(info),
            "device": info.device,
            "precision": info.precision,
            "visitors": len(context.visitors),
            "answering": context.answering(),
        }
        return JSONResponse(body, 200 if status == "ok" else 503)

    return health
