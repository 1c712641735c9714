"""Takes the pictures of the page that the documentation shows: ``python -m docs.screenshots``.

Both services start here, with a phone whose heat is known, and a real Chromium without a window asks. Temperature and seed are
set, so the text is always the same one; where in the middle of an answer a picture falls is not.
"""

from __future__ import annotations

import asyncio
import io
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.browser import chromium, missing
from outrider.client import Client
from outrider.local import Emulation, local_agent
from speculation.shaping.phone_state import Heat
from speculation.shaping.profiles import DEFAULT_CLOUD, DEFAULT_NETWORK

FOLDER = Path(__file__).with_name("images")
EMULATION = Emulation("apple-a19-pro", DEFAULT_NETWORK, DEFAULT_CLOUD, heat=Heat.ON)
"""A phone whose heat is known."""

LIMIT_BYTES = 150_000
NUM_COLOURS = 256
FIELDS = {"#temperature": "0.8", "#seed": "7", "#max-tokens": "160"}
PROMPT_NUMBER = 2
DESKTOP = {"viewport": {"width": 1280, "height": 1080}}
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
IN_THE_MIDDLE = """() => {
  const lane = document.querySelector("[data-mode=collaborate]");
  const text = lane.querySelector(".answer").textContent;
  return text.length > 260 && lane.querySelector("del") !== null && lane.querySelectorAll(".tentative").length > 3;
}"""


@dataclass(frozen=True, slots=True)
class Picture:
    """One file: a page opened with ``options``, when it is taken, and who writes."""

    name: str
    is_ended: bool
    options: Mapping[str, Any] = field(default_factory=lambda: DESKTOP)
    order: str = "beside"


PICTURES = (
    Picture("page.png", False),
    Picture("page-ended.png", True),
    Picture("page-dark.png", False, DESKTOP | {"color_scheme": "dark"}),
    Picture("page-phone.png", False, PHONE, "alone"),
    Picture("page-phone-ended.png", True, PHONE | {"color_scheme": "dark"}, "alone"),
)


async def take_all() -> None:
    """Raises ``ConfigurationError`` where there is no browser, ``ValueError`` for a picture that is too large to keep."""
    async with local_agent(EMULATION) as url, chromium("--force-color-profile=srgb", "--hide-scrollbars") as browser:
        await _warm_up(url)
        for picture in PICTURES:
            size = await _take(browser, url, picture)
            print(f"{FOLDER / picture.name}: {size} bytes")
            if size > LIMIT_BYTES:
                raise ValueError(f"{picture.name} has {size} bytes; at most {LIMIT_BYTES} are kept")


async def _warm_up(url: str) -> None:
    """An answer before the first picture, so that no figure in one holds what only a first answer costs."""
    async with Client(url) as client:
        async for _ in client.stream("The module provides", max_tokens=4):
            pass


async def _take(browser: Any, url: str, picture: Picture) -> int:
    context = await browser.new_context(**picture.options)
    page = await context.new_page()
    await page.goto(url)
    await page.wait_for_selector("html[data-ready]")
    await _ask(page, picture.order)
    if picture.is_ended:
        await page.wait_for_selector("#start:enabled", timeout=120_000)
        await page.wait_for_selector("del.revoked", state="detached")
    else:
        await page.wait_for_function(IN_THE_MIDDLE, polling="raf")
    shot = await page.screenshot()
    await page.keyboard.press("Escape")  # an answer whose page merely closes goes on for a while, and takes time of the next
    await page.wait_for_selector("#start:enabled")
    await context.close()
    return await asyncio.to_thread(_keep, shot, FOLDER / picture.name)


def _keep(shot: bytes, path: Path) -> int:
    """With a palette, which is a third of the bytes: of the colours that cover most, as they are; others become the nearest."""
    pixels = np.array(Image.open(io.BytesIO(shot)).convert("RGB"))
    colours, which, counts = np.unique(pixels.reshape(-1, 3), axis=0, return_inverse=True, return_counts=True)
    palette = colours[np.argsort(-counts)[:NUM_COLOURS]]
    apart = colours[:, None].astype(int) - palette
    nearest = (apart**2).sum(axis=2).argmin(axis=1).astype(np.uint8)
    image = Image.fromarray(nearest[which].reshape(pixels.shape[:2]), "P")
    image.putpalette(palette.tobytes())
    image.save(path, optimize=True)
    return path.stat().st_size


async def _ask(page: Any, order: str) -> None:
    await page.locator("#prompts .chip").nth(PROMPT_NUMBER).click()
    for place, value in FIELDS.items():
        await page.fill(place, value)
    await page.check(f"[name=order][value={order}]")
    await page.click("#start")


if __name__ == "__main__":
    if (lack := missing()) is not None:
        sys.exit(lack)
    asyncio.run(take_all())
