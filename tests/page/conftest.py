"""One Chromium and one pair of real services for all these tests, and what a page may not do in any of them."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
import pytest_asyncio

from benchmarks.browser import chromium, missing
from outrider.local import Emulation, local_agent

LIMIT_S = 60
"""A test that hangs says where, long before the whole suite does."""

DESKTOP = {"width": 1140, "height": 640}
EMULATION = Emulation("dimensity-9300", "5g-nsa-low", "mi300x")


def pytest_collection_modifyitems(items):
    lack = missing()
    for item in items:
        if lack is not None and "browser" in item.fixturenames:
            item.add_marker(pytest.mark.skip(reason=lack))


@pytest_asyncio.fixture(loop_scope="session", scope="session")
async def browser():
    async with chromium() as made:
        yield made


@pytest_asyncio.fixture(loop_scope="session", scope="session")
async def agent():
    """The URL of a real agent with a real verifier behind it: the bundled pair, the default emulation."""
    async with local_agent(EMULATION) as url:
        yield url


@pytest_asyncio.fixture(loop_scope="session")
async def opened(browser):
    """Opens the page at a URL; at the end it must have been without an error, a refused resource or a broken rule of its
    policy, but for those that the test ``expects``, by a part of what the console says."""
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(asyncio.timeout(LIMIT_S))
        shouts: list[str] = []
        expected: list[str] = []

        async def open_at(url, expects=(), **options):
            expected.extend(expects)
            context = await browser.new_context(**{"viewport": DESKTOP} | options)
            stack.push_async_callback(context.close)
            page = await context.new_page()
            page.on("console", lambda message: shouts.append(f"{message.type}: {message.text}"))
            page.on("pageerror", lambda error: shouts.append(f"thrown: {error}"))
            await page.goto(url)
            await page.wait_for_selector("html[data-ready]")
            return page

        yield open_at
    assert [shout for shout in shouts if not any(part in shout for part in expected)] == []
