"""Checkpoints on PyTorch: neither way to answer pays for what is done for the first time, nor is always the first."""

from benchmarks import checkpoint_runs
from benchmarks.checkpoint_runs import Asked, row

PROMPTS = ["a", "b", "c", "d"]
FIRST_TIME_S, ANSWER_S = 100.0, {"cloud": 2.0, "collaborate": 1.0}


async def test_what_is_done_for_the_first_time_is_in_no_rate(monkeypatch):
    asked: list[tuple[str, str]] = []
    now_s = 0.0

    async def answered(client, prompt, mode, temperature, num_tokens):
        nonlocal now_s
        now_s += ANSWER_S[mode] + (FIRST_TIME_S if mode not in dict(asked) else 0.0)
        asked.append((mode, prompt))
        return (1, 2, 3, 4)

    monkeypatch.setattr(checkpoint_runs, "answered", answered)
    monkeypatch.setattr(checkpoint_runs.time, "monotonic", lambda: now_s)
    found = await row(None, "model", 0.0, Asked(PROMPTS, 4, "cpu"))
    assert (found.cloud_tokens_per_s, found.tokens_per_s) == (2.0, 4.0)
    assert (found.num_texts, found.num_same) == (4, 4)
    counted = asked[2:-4]
    assert [mode for mode, _ in counted[::2]] == ["cloud", "collaborate"] * 2, "either is first in turn"
    assert [prompt for _, prompt in counted[::2]] == PROMPTS
