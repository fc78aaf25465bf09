"""Routes of Gradio that the page has no use for are answered with 404."""

import re

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from .gradio_internals import DIGEST

# Proxies, editors, screen recordings, published states.
BLOCKED_PREFIXES = (
    "file=http",
    "file/",
    "proxy=",
    "process_recording",
    "vibe-",
    "undo-vibe-",
    "deep_link",
    "component_server",
)

# An upload lies in a folder named by a hash of its content, so anybody with the same file could find it. Uploads are
# therefore not served: the page plays its own copy, in a folder with an unguessable name. The exception is
# `audio.wav`, the recorder's name for what it has just recorded; no two recordings are the same.
_UPLOAD = re.compile(rf"file=.*[/\\]{DIGEST}[/\\](?!audio\.wav$)")


class BlockUnusedRoutes:
    """ASGI middleware that answers 404 to what the page never asks for."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path = scope["path"].removeprefix("/gradio_api").lstrip("/").lower()
            if path.startswith(BLOCKED_PREFIXES) or _UPLOAD.match(path):
                return await PlainTextResponse("Not found", 404)(scope, receive, send)
        return await self.app(scope, receive, send)
