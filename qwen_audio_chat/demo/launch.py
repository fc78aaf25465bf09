"""One way to launch the page for the command line, a Space and a notebook, so that all have the same settings."""

import signal
import threading
import time
from pathlib import Path

from gradio.themes import Base
from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.routing import Route

from ..errors import UserError
from .api_handlers import MCP_TOOL, has_mcp
from .blocked_routes import BlockUnusedRoutes
from .gradio_internals import fetch_no_addresses, keep_only_tool
from .page import Page
from .render import model_name
from .texts import I18N

FOLDER = Path(__file__).resolve().parent
SCRIPTS = ("player.js", "page.js")
MAX_FILE_SIZE = "256mb"  # as `audio.decoding.MAX_FILE_BYTES`
MAX_REQUESTS = 200  # in Gradio's queues; those for the model are bounded by `page_state.MAX_WAITING`
DRAIN_SECONDS = 30

THEME = Base(
    primary_hue="indigo",
    secondary_hue="indigo",
    neutral_hue="slate",
    radius_size="lg",
    font=["ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans SC", "sans-serif"],
    font_mono=["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"],
)


def launch(
    demo: Page,
    *,
    host: str | None = None,
    port: int | None = None,
    share: bool = False,
    auth: tuple[str, str] | None = None,
    inline: bool | None = None,
    inbrowser: bool = False,
    quiet: bool = False,
) -> Page:
    """Serve the page of `build_demo` in the background, with all its settings, and return it once the model is warm.

    Args:
        host: address to listen on; None for this machine only (or what a hosting service sets), "0.0.0.0" for all.
        port: None takes the first free port from 7860 on.
        share: also open a public link through gradio.live.
        auth: (user, password) that visitors must enter.
        inline: show the page in a notebook; None does so if this is one.
        inbrowser: open the page in a browser.
        quiet: print nothing.

    Raises:
        UserError: the page can't be served at this address.
    """
    fetch_no_addresses()
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
            css_paths=FOLDER / "style.css",
            head="".join(f"<script>{(FOLDER / name).read_text(encoding='utf-8')}</script>" for name in SCRIPTS),
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
                "middleware": [Middleware(BlockUnusedRoutes)],
                "docs_url": None,
                "redoc_url": None,
            },
        )
    except OSError as error:
        raise UserError(
            "The page can't be served at {address}: {reason}", address=host or "this machine", reason=error
        ) from error
    keep_only_tool(demo, MCP_TOOL)
    if host not in (None, "127.0.0.1", "localhost", "::1") and not quiet:
        print("* Browsers allow the microphone on HTTPS and localhost only; put HTTPS in front, or upload files.")
    demo.page_state.chat.warm_up()  # the page is served already, and its first visitor is still choosing a file
    return demo


def serve(demo: Page, **options) -> None:
    """`launch`, then serve until SIGINT or SIGTERM, and `drain`."""
    stopped = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: stopped.set())
    launch(demo, **options)
    stopped.wait()
    drain(demo)


def drain(demo: Page, seconds: float = DRAIN_SECONDS) -> None:
    """Refuse new questions, wait for the answers under way, then close the server and delete the visitors' data."""
    demo.page_state.draining = True
    end = time.monotonic() + seconds
    while demo.page_state.num_answering() and time.monotonic() < end:
        time.sleep(0.1)
    demo.close(verbose=False)
    demo.page_state.visitors.forget_all()


def _health(demo: Page):
    async def health(_request) -> JSONResponse:
        """200 while questions are taken, 503 while the server drains, with figures of the model and its visitors."""
        state = demo.page_state
        info = state.chat.info
        status = "draining" if state.draining else "ok"
        body = {
            "status": status,
            "model": model_name(info),
            "device": info.device,
            "precision": info.precision,
            "visitors": len(state.visitors),
            "answering": state.num_answering(),
        }
        return JSONResponse(body, 200 if status == "ok" else 503)

    return health
