"""A graph of sub-tasks on the page: run, told in words, stopped, refused."""

from __future__ import annotations

import json

import pytest

from tests.page.test_use import tables

pytestmark = pytest.mark.asyncio(loop_scope="session")

GRAPH = {
    "defaults": {"mode": "device", "max_tokens": 8, "seed": 3},
    "tasks": {"a": {"prompt": "x"}, "b": {"prompt": "y {{ a }}"}, "bad": {"prompt": "{{ a }}", "max_tokens": 253}},
}


async def ask(page, graph):
    await page.click("#graph summary")
    await page.fill("#graph-body", json.dumps(graph))
    await page.click("#graph .begin")


async def rows_of(page):
    """Name, state in its first words, and what is written, of each row."""
    found = await page.locator("#graph li").evaluate_all(
        "rows => rows.map(row => [...row.querySelectorAll('span')].map(s => s.textContent))"
    )
    return {name.removeprefix("◆ "): (state.split(",")[0], text) for name, state, text in found}


async def test_a_graph_is_run_and_each_sub_task_says_by_sign_and_word_how_it_ended(opened):
    async with tables() as url:
        page = await opened(url)
        await ask(page, GRAPH)
        await page.wait_for_selector("#graph .begin:enabled")
        await page.get_by_text("failed in").wait_for()
        rows = await rows_of(page)
        assert {name: state for name, (state, _) in rows.items()} == {"a": "✓ done", "b": "✓ done", "bad": "✗ failed"}
        assert rows["a"][1]
        assert "max_tokens must be at most" in rows["bad"][1]
        assert "2 of 3 done; decided by a, then b." in await page.locator("#graph .told").text_content()
        widths = await page.locator("#graph rect").evaluate_all("bars => bars.map(bar => Number(bar.getAttribute('width')))")
        assert widths[0] > 0


async def test_what_is_refused_says_why_and_a_graph_can_be_stopped(opened):
    async with tables() as url:
        page = await opened(url, expects=["400"])
        await ask(page, {"tasks": {"a": {"prompt": "{{ a }}"}}})
        await page.get_by_text("The sub-tasks go in a circle: a waits for a").wait_for()
        await page.fill("#graph-body", "{")
        await page.click("#graph .begin")
        await page.get_by_text("This is no JSON").wait_for()
        await page.fill("#graph-body", json.dumps({"tasks": {"a": {"prompt": "x", "mode": "device", "max_tokens": 240}}}))
        await page.click("#graph .begin")
        await page.click("#graph .leave:enabled")
        await page.get_by_text("Stopped.").first.wait_for()
        await page.wait_for_selector("#graph .begin:enabled")


async def test_what_was_not_over_is_told_as_cancelled_once_the_graph_is_stopped(opened):
    async with tables() as url:
        page = await opened(url)
        long = {"prompt": "x", "mode": "device", "max_tokens": 240}
        await ask(page, {"tasks": {"a": long, "b": {"prompt": "y {{ a }}", "max_tokens": 3}}})
        await page.get_by_text("▶ running").wait_for()
        await page.click("#graph .leave")
        await page.get_by_text("0 of 2 done; what was not over is cancelled.").wait_for()
        assert {name: state for name, (state, _) in (await rows_of(page)).items()} == {"a": "■ cancelled", "b": "■ cancelled"}


ANSWERED = """([told, isCut]) => {
  const real = fetch;
  const body = { start(stream) {
    stream.enqueue(new TextEncoder().encode(told));
    if (isCut) setTimeout(() => stream.error(new TypeError("network error")), 100);
    else stream.close();
  } };
  window.fetch = async (url, how) => url.endsWith("/v1/tasks") ? new Response(new ReadableStream(body)) : real(url, how);
}"""


@pytest.mark.parametrize("is_cut", [False, True])
async def test_a_graph_whose_connection_ends_before_it_is_done_is_told_as_cancelled(opened, is_cut):
    head = {"event": "graph", "seq": 0, "graph_id": "g", "max_at_once": 1, "tasks": [{"task": "a", "state": "waiting"}]}
    running = {"event": "task", "seq": 1, "task": "a", "state": "running", "at_ms": 1.5, "error": None}
    async with tables() as url:
        page = await opened(url)
        await page.evaluate(ANSWERED, ["".join(f"data: {json.dumps(event)}\n\n" for event in (head, running)), is_cut])
        await ask(page, {"tasks": {"a": {"prompt": "x"}}})
        await page.get_by_text("The connection to the agent ended before the graph was done.").wait_for()
        await page.get_by_text("0 of 1 done; what was not over is cancelled.").wait_for()
        assert (await rows_of(page))["a"][0] == "■ cancelled"
