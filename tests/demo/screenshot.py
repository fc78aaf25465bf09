"""Pictures of the page with the pocket model: `python -m tests.demo.screenshot` writes `assets/screenshot.png`.

`--all FOLDER` also writes the page on a phone, in the dark, empty, and with its sidebar open, to look at.
"""

import argparse
import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

import qwen_audio_chat
from qwen_audio_chat.demo.launch import launch
from qwen_audio_chat.demo.page import build_demo

REPOSITORY = Path(__file__).parents[2]
EXAMPLES = REPOSITORY / "assets" / "examples"
DESKTOP = {"viewport": {"width": 1200, "height": 980}}
PHONE = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "is_mobile": True, "has_touch": True}
TALK = [
    ("What is said in Audio 2?", ["new-password.flac", "not-valid.flac"]),
    ("What sound is this?", ["guitar.flac"]),
]


def take(browser: Browser, address: str, path: Path, talk, *, sidebar: bool = False, **options) -> None:
    """Hold a conversation, then write a picture of the page."""
    page = browser.new_context(**options).new_page()
    page.set_default_timeout(120_000)
    page.goto(address)
    page.wait_for_selector("#qa-box textarea")
    for number, (question, names) in enumerate(talk, start=1):
        page.set_input_files("#qa-box input[type=file]", [str(EXAMPLES / name) for name in names])
        page.wait_for_selector(f"#qa-box .thumbnail-item >> nth={len(names) - 1}")
        page.fill("#qa-box textarea", question)
        page.press("#qa-box textarea", "Enter")
        page.wait_for_function(
            "n => document.querySelectorAll('#qa-chat .bot:not(.pending) .message-content').length >= n"
            " && !document.querySelector('#qa-box .stop-button, #qa-chat .pending')",
            arg=number,
        )
        page.wait_for_timeout(1000)
    if sidebar:
        page.click("#qa-side .toggle-button")
    page.mouse.move(0, 0)
    page.wait_for_timeout(1000)
    page.screenshot(path=path)
    page.context.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--all", type=Path, metavar="FOLDER")
    args = parser.parse_args()
    chat = qwen_audio_chat.load(str(REPOSITORY / "assets" / "pocket"), device="cpu")
    demo = launch(build_demo(chat), quiet=True, inline=False)
    picture = REPOSITORY / "assets" / "screenshot.png"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        take(browser, demo.local_url, picture, TALK, device_scale_factor=1.5, **DESKTOP)
        Image.open(picture).quantize(192, dither=Image.Dither.NONE).save(picture, optimize=True)
        print(f"{picture}: {picture.stat().st_size / 1000:.0f} kB")
        if args.all:
            args.all.mkdir(parents=True, exist_ok=True)
            take(browser, demo.local_url, args.all / "dark.png", TALK, color_scheme="dark", **DESKTOP)
            take(browser, demo.local_url, args.all / "phone.png", TALK[1:], **PHONE)
            take(browser, demo.local_url, args.all / "phone-dark.png", [], color_scheme="dark", **PHONE)
            take(browser, demo.local_url, args.all / "welcome.png", [], **DESKTOP)
            take(browser, demo.local_url, args.all / "sidebar.png", [], sidebar=True, **DESKTOP)
            take(browser, demo.local_url, args.all / "chinese.png", TALK[1:], locale="zh-CN", **DESKTOP)
        browser.close()
    demo.close(verbose=False)


if __name__ == "__main__":
    main()
