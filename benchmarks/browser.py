"""A real Chromium without a window, for the page's tests, benchmark and pictures. Needs the extra ``page`` and a Chromium."""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
from collections.abc import AsyncIterator
from typing import Any

from speculation.errors import ConfigurationError

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--no-sandbox",  # it refuses one to root, who runs CI; it is shown this project's own page alone
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def missing() -> str | None:
    """What a browser lacks here, and how to get it; None where nothing does."""
    if importlib.util.find_spec("playwright") is None:
        return "playwright is not installed: pip install 'outrider[page]'"
    if _program() is None:
        return "no Chromium is on the path: apt-get install chromium fonts-dejavu-core"
    return None


@contextlib.asynccontextmanager
async def chromium(*flags: str) -> AsyncIterator[Any]:
    """A browser of playwright's, closed at the end. Raises ``ConfigurationError`` where something is missing."""
    if (lack := missing()) is not None:
        raise ConfigurationError(lack)
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=_program(), args=[*FLAGS, *flags])
        try:
            yield browser
        finally:
            await browser.close()


def _program() -> str | None:
    return next(filter(None, map(shutil.which, NAMES)), None)
