"""Settings of glibc's allocator: without them, memory grows with each visitor although nothing is kept."""

import ctypes
import sys

_M_ARENA_MAX = -8  # glibc's constant for the number of heaps


def use_one_heap() -> None:
    """Let all threads share one heap; otherwise each thread has its own, with gaps that no other thread fills.

    Must be called before threads are started.
    """
    if libc := _libc_with("mallopt"):
        libc.mallopt(_M_ARENA_MAX, 1)


def return_freed_memory() -> None:
    """Return freed memory to the system; glibc would keep it."""
    if libc := _libc_with("malloc_trim"):
        libc.malloc_trim(0)


def _libc_with(function: str) -> ctypes.CDLL | None:
    """The C library, if it has this function, which only glibc has."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    return libc if hasattr(libc, function) else None
