"""The page's controls act while an answer is written, and its timeline shows what they did."""

from __future__ import annotations

import httpx
import pytest
import pytest_asyncio

from tests.page.conftest import EMULATION
from tests.page.hands import fill, lane
from tests.page.test_use import tables

pytestmark = pytest.mark.asyncio(loop_scope="session")

ROUTE = "/v1/emulation"
FLIGHT_MS = "Number(/flight to the cloud ([0-9]+) ms/.exec(document.querySelector('#timeline-words').textContent)?.[1])"


@pytest_asyncio.fixture(loop_scope="session")
async def emulation(agent):
    """A client of what is emulated; at the end all is as it was."""
    async with httpx.AsyncClient(base_url=agent, timeout=30) as client:
        yield client
        as_it_was = {"phone": EMULATION.phone, "network": EMULATION.network, "cloud": EMULATION.cloud, "patience": "auto"}
        assert (await client.patch(ROUTE, json=as_it_was)).status_code == 200


async def played(client):
    return (await client.get(ROUTE)).json()


async def changed(page, client, key, value):
    """Waits until the agent plays it."""
    await page.wait_for_function("() => document.querySelector('.said').textContent.startsWith('Set: ')")
    for _ in range(50):
        if (await played(client))[key] == value:
            return
        await page.wait_for_timeout(20)
    raise AssertionError(f"{key} is {(await played(client))[key]}, not {value}")


async def test_a_network_that_is_chosen_while_an_answer_is_written_slows_it_down_there_and_then(agent, opened, emulation):
    page = await opened(agent)
    await fill(page, tokens=400)
    await page.click("#start")
    await page.wait_for_function(f"() => {FLIGHT_MS} > 10")
    assert await page.evaluate(f"() => {FLIGHT_MS}") < 150
    await page.select_option("#network", "satellite")
    await changed(page, emulation, "network", "satellite")
    await page.wait_for_function(f"() => {FLIGHT_MS} > 250")
    assert await page.is_disabled("#start")
    assert "network satellite" in await page.text_content("#about")
    assert "was changed while this was written" in await lane(page).locator(".note").text_content()
    words = await page.text_content("#timeline-words")
    assert "a draft step" in words
    assert "a pass" in words
    await page.keyboard.press("Escape")
    await page.wait_for_selector("#start:enabled")


async def test_a_slider_moved_by_keys_overrides_a_figure_until_it_is_reset(agent, opened, emulation):
    page = await opened(agent)
    await page.focus("#rtt")
    await page.keyboard.press("Home")
    await changed(page, emulation, "overrides", {"rtt_ms": 1.0})
    assert await page.get_attribute("#rtt", "aria-valuetext") == "1 ms"
    await page.click("[data-slider=rtt_ms] button")
    await changed(page, emulation, "overrides", {})
    await page.wait_for_selector("[data-slider=rtt_ms] button:disabled")  # the agent plays it before it has told the page
    assert await page.get_attribute("#rtt", "aria-valuetext") == "60 ms"


async def test_a_scene_is_one_choice_of_several_and_patience_is_the_verifiers(agent, opened, emulation):
    page = await opened(agent)
    await page.get_by_role("button", name="Mid-range phone, LTE").click()
    await changed(page, emulation, "network", "lte")
    assert (await played(emulation))["phone"] == "snapdragon-7-gen-3"
    assert "Snapdragon 7 Gen 3" in await page.text_content("#phone-hint")
    await page.select_option("#patience", "200")
    await changed(page, emulation, "patience", 200)


async def test_what_cannot_be_changed_says_why(opened, emulation):
    async with tables() as url:
        page = await opened(url)
        for name in ("phone", "network", "cloud", "patience"):
            assert await page.is_disabled(f"#{name}")
            assert (await page.text_content(f"#{name}-hint")).startswith("Stays as it is: ")
        assert await page.locator("[data-slider] input:enabled").count() == 0
