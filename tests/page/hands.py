"""What a person does on the page, and what stands there afterwards."""

from __future__ import annotations

PROMPT, SEED, TOKENS, TEMPERATURE = "The module provides", 7, 16, 0.8


STAYING = """node => {
  const copy = node.cloneNode(true);
  for (const del of copy.querySelectorAll("del")) del.remove();
  return copy.textContent;
}"""


def lane(page, mode="collaborate"):
    return page.locator(f"[data-mode={mode}]")


async def fill(page, prompt=PROMPT, tokens=TOKENS, order="alone", temperature=TEMPERATURE):
    await page.fill("#prompt", prompt)
    await page.fill("#max-tokens", str(tokens))
    await page.fill("#temperature", str(temperature))
    await page.fill("#seed", str(SEED))
    await page.check(f"[name=order][value={order}]")


async def write(page, **asked):
    """An answer, from asking to its end."""
    await fill(page, **asked)
    await page.click("#start")
    await page.wait_for_selector("#start:enabled")


async def final_text(page, mode="collaborate"):
    """What stands there to stay; there must be nothing tentative any more."""
    assert await lane(page, mode).locator(".tentative").count() == 0
    return await lane(page, mode).locator(".answer").evaluate(STAYING)
