"""What commands share: how a user's mistake is reported, and numbers within bounds."""

import argparse
import math
import sys
from collections.abc import Callable

from ..errors import UserError


def run_command(command: Callable[[], int | None]) -> int:
    """Run a command and return its exit code: 2, with one sentence on standard error, for a mistake of the user."""
    try:
        return command() or 0
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def number(kind: type[int] | type[float], low: float, high: float = math.inf) -> Callable[[str], int | float]:
    """A type for `argparse`: a finite number from `low` to `high`."""

    def parse(text: str) -> int | float:
        value = kind(text)
        if not low <= value <= high or math.isinf(value):
            most = "" if math.isinf(high) else f" and at most {high:g}"
            raise argparse.ArgumentTypeError(f"must be at least {low:g}{most}, not {text}")
        return value

    parse.__name__ = "number"  # argparse says it where the text is not a number
    return parse
