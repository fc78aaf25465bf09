"""The C library's heaps, where it is glibc: without this, memory grows with each visitor though nothing is kept."""

import ctypes
import sys

_ARENA_MAX = -8  # glibc's name for the number of heaps, M_ARENA_MAX


def use_one_heap() -> None:
    """Let all threads allocate from one heap; each has one of its own otherwise, with gaps that nobody else fills.

    To be called before there are threads.
    """
    if libc := _libc("mallopt"):
        libc.mallopt(_ARENA_MAX, 1)


def give_back() -> None:
    """Return freed memory to the system, which glibc would keep."""
    if libc := _libc("malloc_trim"):
        libc.malloc_trim(0)


def _libc(function: str) -> ctypes.CDLL | None:
    """The C library, if it has this function of glibc's."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    return libc if hasattr(libc, function) else None
