"""The page in a real Chromium, before real services: text turns final, revoked text is struck, lanes race, keys work."""

from __future__ import annotations

import json

import httpx
import pytest

from outrider.client import Client
from tests.page.hands import PROMPT, SEED, TEMPERATURE, TOKENS, fill, final_text, lane, write

pytestmark = pytest.mark.asyncio(loop_scope="session")

RECORD = """() => {
  window.seen = {struck: [], tentative: 0};
  const watch = () => {
    for (const del of document.querySelectorAll("[data-mode=collaborate] del")) {
      const style = getComputedStyle(del);
      if (!del.noted) window.seen.struck.push([del.textContent, style.textDecorationLine]);
      del.noted = true;
    }
    for (const span of document.querySelectorAll("[data-mode=collaborate] .tentative")) {
      if (getComputedStyle(span).textDecorationStyle === "dotted") window.seen.tentative += 1;
    }
    requestAnimationFrame(watch);
  };
  watch();
}"""


async def answer_of(url, key=None):
    async with Client(url, key=key) as client:
        events = [event async for event in client.stream(PROMPT, max_tokens=TOKENS, temperature=TEMPERATURE, seed=SEED)]
    return events[-1]


async def test_text_turns_final_revoked_text_is_struck_and_the_end_is_what_the_api_gives(agent, opened):
    page = await opened(agent)
    await page.evaluate(RECORD)
    await write(page)
    assert await final_text(page) == (await answer_of(agent)).text
    seen = await page.evaluate("window.seen")
    assert seen["tentative"] > 0
    assert seen["struck"]
    assert {line for _, line in seen["struck"]} == {"line-through"}
    assert all(text for text, _ in seen["struck"])


async def test_three_ways_race_with_one_seed_and_the_page_says_whether_the_text_is_the_clouds(agent, opened):
    page = await opened(agent)
    for order in ("beside", "after"):
        await write(page, order=order, temperature=0)  # greedy drafts are often accepted several at a time
        assert await final_text(page) == await final_text(page, "cloud")
        assert await lane(page).locator(".same").text_content() == "yes"
        assert (await lane(page, "device").locator(".same").text_content()).startswith("no, from token")
        for mode in ("collaborate", "cloud"):
            for figure in (".first-visible", ".first-final", ".rate"):
                assert float((await lane(page, mode).locator(figure).text_content()).removesuffix(" ms")) > 0
                assert await lane(page, mode).locator(f"{figure}-basis").text_content() == "emulated"
    assert "full model has not seen it" in await lane(page, "device").locator(".note").text_content()


async def test_the_figures_are_the_agents_own(agent, opened):
    page, bodies = await opened(agent), []

    async def keep(route):
        response = await route.fetch()
        bodies.append(await response.text())
        await route.fulfill(response=response)

    await page.route("**/v1/stream", keep)
    await write(page)
    done = json.loads(bodies[0].strip().rpartition("data: ")[2])
    shown = await page.locator("#meters div").evaluate_all("rows => rows.map(row => row.textContent)")
    for label, name, factor in (
        ("acceptance", "acceptance", 100),
        ("revoked after it was read", "revoked_after_read", 100),
        ("sent to the cloud", "bytes_up", 1),
    ):
        (said,) = (row.removeprefix(label) for row in shown if row.startswith(label))
        assert float(said.split()[0]) == pytest.approx(done["figures"][name]["value"] * factor, abs=0.5), label
        assert said.endswith("emulated")


async def test_a_prompt_is_chosen_by_its_chip_and_more_are_shown_when_asked_for(agent, opened):
    page = await opened(agent)
    async with httpx.AsyncClient() as client:
        prompts = (await client.get(f"{agent}/v1/prompts")).json()["prompts"]
    chips = page.locator("#prompts .chip:visible")
    assert await chips.count() == 5
    await chips.nth(1).click()
    assert await page.input_value("#prompt") == prompts[1]["text"]
    await page.click("#prompts .more")
    assert await chips.all_text_contents() == [prompt["title"] for prompt in prompts]


async def test_what_is_shown_can_be_narrowed_and_widened_while_it_is_written(agent, opened):
    page = await opened(agent)
    await fill(page, tokens=128)
    await page.click("#start")
    tentative = lane(page).locator(".tentative:visible")
    await tentative.first.wait_for()
    await page.select_option("#reveal", "final")
    assert await tentative.count() == 0
    await lane(page).locator(".tentative[hidden]").first.wait_for(state="attached")
    await page.select_option("#reveal", "all")
    await tentative.first.wait_for()
    await page.keyboard.press("Escape")
    await page.wait_for_selector("#start:enabled")


async def test_what_the_agent_refuses_is_said_in_its_own_words(agent, opened):
    page = await opened(agent, expects=["status of 400"])
    await write(page, tokens=5000)
    said = await lane(page).locator(".status").text_content()
    assert "ax_tokens must be at most" in said
    assert await page.is_enabled("#start")
