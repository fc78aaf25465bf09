"""What commands share: how they tell an error, and numbers within bounds."""

import argparse
import math
import sys
from collections.abc import Callable


def run_command(command: Callable[[], int | None]) -> int:
    """Run a command, and return its exit code; what the user did wrong is one sentence on standard error, and 2."""
    try:
        return command() or 0
    except (ValueError, OSError) as error:
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

    parse.__name__ = "number"  # argparse names it when the text is none
    return parse
