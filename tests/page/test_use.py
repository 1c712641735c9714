"""The page for everybody: by keyboard alone, on a narrow screen, by names; with a key; and when the verifier is gone."""

from __future__ import annotations

import contextlib
import re

import pytest

from device_agent.server import serve
from speculation.links.memory import MemoryConnector
from tests.device_agent.doubles import DraftEngine, SlowEngine, agent_of, config, verifier
from tests.page.hands import PROMPT, fill, final_text, lane, write
from tests.support.keys import ALICE, WRONG, key_file

pytestmark = pytest.mark.asyncio(loop_scope="session")

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


@contextlib.asynccontextmanager
async def tables(connected=True, **changes):
    """An agent over real HTTP whose models are tables; its verifier is in this process, or away."""
    async with verifier(SlowEngine(0.002)) as made:
        connector = MemoryConnector(made) if connected else None
        agent = agent_of(connector, DraftEngine(0.7, step_s=0.001), **changes)
        async with serve(config(**changes), agent=agent) as running:
            yield running.url


async def test_by_keyboard_alone_an_answer_is_asked_for_stopped_and_asked_for_again(agent, opened):
    page = await opened(agent)
    await page.keyboard.press("Tab")
    assert await page.evaluate("document.activeElement.className") == "skip"
    while await page.evaluate("document.activeElement.id") != "prompt":
        await page.keyboard.press("Tab")
    outline = await page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    await page.keyboard.press("Control+a")
    await page.keyboard.type(PROMPT)
    await page.keyboard.press("Control+Enter")
    await lane(page).locator(".answer").get_by_text(re.compile(r"\w")).first.wait_for()
    await page.keyboard.press("Escape")
    await page.wait_for_selector("#start:enabled")
    assert await lane(page).locator(".status").text_content() == "Stopped."
    while await page.evaluate("document.activeElement.id") != "start":
        await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    await page.wait_for_selector("#stop:enabled")
    assert await page.evaluate("document.activeElement.id") == "stop"
    await page.keyboard.press("Enter")
    await page.wait_for_selector("#start:enabled")
    assert await page.evaluate("document.activeElement.id") == "start"


FRAMES = """() => new Promise((resolve) => {
  const asked = window.requestAnimationFrame;
  let count = 0;
  window.requestAnimationFrame = (draw) => (count += 1, asked.call(window, draw));
  setTimeout(() => { window.requestAnimationFrame = asked; resolve(count); }, 300);
})"""


async def test_behind_an_answer_that_was_stopped_nothing_is_drawn_any_more(agent, opened):
    page = await opened(agent)
    await fill(page, tokens=400)
    await page.click("#start")
    await lane(page).locator(".answer").get_by_text(re.compile(r"\w")).first.wait_for()
    await page.keyboard.press("Escape")
    await page.wait_for_selector("#start:enabled")
    await page.wait_for_selector("del.revoked", state="detached")
    assert await page.evaluate(FRAMES) == 0


async def test_who_skips_to_the_answers_finds_what_was_filled_in_as_it_was(agent, opened):
    page = await opened(agent)
    await fill(page, tokens=7)
    await page.focus(".skip")
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/#results")
    await page.wait_for_timeout(300)  # in which it would have asked for the defaults
    assert await page.input_value("#max-tokens") == "7"


async def test_on_a_phone_nothing_has_to_be_scrolled_sideways_and_what_starts_and_stops_is_in_reach(agent, opened):
    page = await opened(agent, **PHONE)
    for ended in (False, True):
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        button = await page.locator("#start").bounding_box()
        assert 0 < button["y"] < PHONE["viewport"]["height"] - button["height"]
        assert button["height"] >= 44
        if not ended:
            await write(page, order="beside", tokens=8)
    tops = [(await lane(page, mode).bounding_box())["y"] for mode in ("collaborate", "cloud", "device")]
    assert tops == sorted(set(tops))


async def test_every_control_has_a_name_of_its_own_and_only_final_text_is_announced(agent, opened):
    page = await opened(agent)
    await page.click("#prompts .more")
    await page.select_option("#reveal", "stable")
    seen = await page.locator("body").aria_snapshot()
    controls = re.findall(r"- (button|textbox|combobox|slider|radio|spinbutton|link|searchbox)\b(.*)", seen)
    assert len(controls) > 50
    assert [kind + rest for kind, rest in controls if not re.match(r' "[^"]+"', rest)] == []
    names = [name for kind, name in controls if kind != "radio"]
    assert len(names) == len(set(names))
    await page.select_option("#reveal", "all")
    live = await page.locator("[aria-live]").evaluate_all("nodes => nodes.map(node => [node.id, node.ariaLive])")
    assert live == [["live", "polite"]]
    await page.evaluate("""() => {
        window.told = "";
        new MutationObserver(() => window.told += document.getElementById("live").textContent)
            .observe(document.getElementById("live"), {childList: true});
    }""")
    await write(page)
    assert await page.evaluate("window.told") == await final_text(page)


async def test_with_keys_the_page_asks_for_one_and_takes_one_from_its_address_out_of_sight(tmp_path, opened):
    async with tables(keys=key_file(tmp_path), allowed_hosts=()) as url:
        page = await opened(url, expects=["status of 401"])
        assert await page.is_visible("#key-form")
        await page.fill("#key", WRONG)
        await page.keyboard.press("Enter")
        await page.get_by_role("alert").get_by_text("does not know the key").wait_for()
        await page.fill("#key", "“ключ”")  # which no header can carry
        await page.keyboard.press("Enter")
        await page.get_by_role("alert").get_by_text("A key is one word of plain characters").wait_for()
        await page.reload()
        await page.wait_for_selector("#key-form", state="visible")
        await page.fill("#key", ALICE)
        await page.keyboard.press("Enter")
        await page.wait_for_selector("#key-form", state="hidden")
        assert await page.is_hidden("#fault")
        await write(page, prompt="the prompt")
        assert await final_text(page)

        other = await opened(f"{url}/#key={ALICE}")
        assert ALICE not in other.url
        assert await other.is_hidden("#key-form")
        await write(other, prompt="the prompt")
        assert await final_text(other) == await final_text(page)


async def test_without_a_verifier_the_cloud_says_why_and_the_device_writes_on_tentatively(opened):
    async with tables(connected=False, verifier=None) as url:
        page = await opened(url, expects=["status of 400"])
        assert "the device is alone" in await page.text_content("#about")
        await fill(page, prompt="the prompt", order="beside", tokens=8)
        await page.click("#start")
        await page.wait_for_selector("#start:enabled")
        assert "needs a verifier" in await lane(page, "cloud").locator(".status").text_content()
        assert await lane(page).locator(".tentative").count() == 8
        assert "full model has not seen it" in await lane(page).locator(".note").text_content()


async def test_where_the_agent_is_gone_the_page_says_what_to_start(opened):
    async with tables() as url:
        page = await opened(url, expects=["ERR_CONNECTION"])
        await fill(page, prompt="the prompt")
    await page.click("#start")
    told = page.get_by_role("alert").get_by_text("No answer from the agent")
    await told.wait_for()
    assert (await told.text_content()).endswith("start one with: outrider agent.")


async def test_text_that_looks_like_a_page_is_text(agent, opened):
    page = await opened(agent)
    prompt = "<img src=x onerror=alert(1)><b>bold</b>"
    await write(page, prompt=prompt, tokens=4)
    assert await lane(page).locator(".answer [data-before]").get_attribute("data-before") == prompt
    assert await lane(page).locator("b, img").count() == 0


async def test_where_an_agent_has_no_room_the_page_waits_as_long_as_it_says_and_asks_again(opened):
    async with tables(max_streams=1, retry_after_s=0.2) as url:
        page = await opened(url, expects=["status of 429"])
        await write(page, prompt="the prompt", order="beside", tokens=6)
        assert await lane(page).locator(".same").text_content() == "yes"
        assert await lane(page, "device").locator(".answer").text_content()
