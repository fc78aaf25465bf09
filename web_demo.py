"""Opens the page: `python web_demo.py`, `import web_demo; web_demo.launch()` in a notebook, and as a hosted Space."""

import sys

from qwen_audio_chat.__main__ import main
from qwen_audio_chat.commands.serve_command import launch

__all__ = ["launch"]

if __name__ == "__main__":
    sys.exit(main(["serve", *sys.argv[1:]]))
