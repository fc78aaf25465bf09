"""Qwen-Audio-Chat: talk about many audios in many turns, anywhere."""

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what `__getattr__` imports at run time
    from .answering import answer
    from .audio.audio import Audio
    from .chat import AudioChat
    from .engine.sampling import GenerationOptions
    from .errors import UserError
    from .loading import load
    from .prompts.conversation import Conversation

# Set before PyTorch is imported: threads that spin while they wait slow each other down many times when anything else
# runs on this machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Imported when first used, so that a help text, or the process that decodes a file, doesn't wait for PyTorch.
_PUBLIC = {
    "Audio": ".audio.audio", "AudioChat": ".chat", "Conversation": ".prompts.conversation",
    "GenerationOptions": ".engine.sampling", "UserError": ".errors", "answer": ".answering", "load": ".loading",
}  # fmt: skip

__all__ = ["Audio", "AudioChat", "Conversation", "GenerationOptions", "UserError", "answer", "load"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name], __name__), name)
