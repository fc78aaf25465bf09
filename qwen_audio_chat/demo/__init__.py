"""The web page: many audios, many turns, in a browser."""

from .launch import LaunchError, launch, serve
from .page import build_demo

__all__ = ["LaunchError", "build_demo", "launch", "serve"]
