"""Qwen-Audio-Chat: talk about many audios in many turns, anywhere."""

import importlib
import os

# Before PyTorch is imported: threads that spin while they wait make each other many times slower as soon as anything
# else runs on this machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Imported when first used: a help text, or the process that decodes a file, need not wait for PyTorch.
_PUBLIC = {
    "Audio": ".audio.audio", "AudioChat": ".chat", "Conversation": ".prompts.conversation",
    "GenerationOptions": ".engine.sampling", "UserError": ".errors", "answer": ".answering", "load": ".loading",
}  # fmt: skip

__all__ = list(_PUBLIC)


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name], __name__), name)
