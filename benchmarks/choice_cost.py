"""What the choice costs a row, as NumPy makes it and as machine code does (extra ``compiled``), beside the same rule in plain
numpy: noise for every token, a full sort for top-p.

    python -m benchmarks.choice_cost [--quick] [--json FILE] [--fill PAGE]

The logits are made: 4.5 ln(rank) below the highest, plus normal noise of 1.5, which at temperature 0.8 leaves nuclei of some
dozens of tokens, as a trained model does. Figures are CPU time of this process, the best of several runs.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from benchmarks.clock import reading_s
from benchmarks.report import Grid, add_arguments, publish
from speculation.choice import choose, choose_by
from speculation.compiled import use_compiled
from speculation.noise_rows import KEPT
from speculation.parameters import SamplingParameters

SIZES = (4096, 151_936)
BATCHES = (1, 16)
NUM_CALLS = 8
WAYS = {
    "greedy": SamplingParameters(),
    "temperature 0.8": SamplingParameters(temperature=0.8, seed=7),
    "and top_p 0.9": SamplingParameters(temperature=0.8, top_p=0.9, seed=7),
    "and top_k 40": SamplingParameters(temperature=0.8, top_k=40, seed=7),
    "and min_p 0.05": SamplingParameters(temperature=0.8, min_p=0.05, seed=7),
}


def made_logits(num_rows: int, size: int) -> NDArray[np.float32]:
    """Rows [num_rows, size] that look like a language model's; always the same."""
    random = np.random.default_rng(20)
    falling = -4.5 * np.log(np.arange(1, size + 1))
    # Far down, logits of trained models fall no further: what is left is their spread.
    falling = np.maximum(falling, -18)
    rows = falling + 1.5 * random.standard_normal((num_rows, size))
    return random.permuted(rows, axis=1).astype(np.float32)


def plain_noise(seed: int, position: int, size: int) -> NDArray[np.float64]:
    """Gumbel noise of every token: Philox4x32-10 in plain uint64 arithmetic."""
    low = np.uint64(0xFFFFFFFF)
    half = np.uint64(32)
    blocks = np.arange(-(-size // 4), dtype=np.uint64)
    others = (position & 0xFFFFFFFF, position >> 32, 1)
    words = [blocks, *(np.full(len(blocks), other, dtype=np.uint64) for other in others)]
    key0, key1 = seed & 0xFFFFFFFF, seed >> 32
    for _ in range(10):
        product0, product2 = words[0] * np.uint64(0xD2511F53), words[2] * np.uint64(0xCD9E8D57)
        word0, word2 = product2 >> half ^ words[1] ^ np.uint64(key0), product0 >> half ^ words[3] ^ np.uint64(key1)
        words = [word0, product2 & low, word2, product0 & low]
        key0, key1 = (key0 + 0x9E3779B9) & 0xFFFFFFFF, (key1 + 0xBB67AE85) & 0xFFFFFFFF
    uniform = (np.stack(words, axis=1).ravel()[:size] + 0.5) / 2**32
    gumbel: NDArray[np.float64] = -np.log(-np.log(uniform))
    return gumbel


def plain_choice(logits: NDArray[np.float32], position: int, asked: SamplingParameters) -> int:
    """One row by the rule, with nothing left out."""
    if asked.is_greedy:
        return int(np.argmax(logits))
    scores = logits.astype(np.float64) / asked.temperature
    sums = scores + plain_noise(asked.seed, position, len(scores))
    if asked.top_p == 1 and not asked.top_k and not asked.min_p:
        return int(np.argmax(sums))
    order = np.argsort(-scores, kind="stable")[: asked.top_k or None]
    weights = np.rint(np.exp(scores[order] - scores[order[0]]) * 2.0**32)
    if asked.top_p < 1:
        order = order[: np.searchsorted(np.cumsum(weights), asked.top_p * weights.sum()) + 1]
    if asked.min_p:
        order = order[scores[order] - scores[order[0]] >= np.log(asked.min_p)]
    left = np.sort(order)
    return int(left[np.argmax(sums[left])])


def best_us(work: Callable[[int], object], seconds: float, num_calls: int = NUM_CALLS) -> float:
    """CPU time of one call in microseconds: the best of the runs that fit into ``seconds``, at least three.

    A run calls ``num_calls`` times, each time with the number of calls before it. No run finds the noise that an earlier one
    has drawn. What reading the clock takes is taken off: it is as long as a greedy choice, and runs of one call hold all of it.
    """
    runs, clock_us = list[float](), 1e6 * reading_s(time.process_time)
    end = time.monotonic() + seconds
    while len(runs) < 3 or time.monotonic() < end:
        KEPT.clear()
        start = time.process_time_ns()
        for number in range(num_calls):
            work(number)
        runs.append(((time.process_time_ns() - start) / 1e3 - clock_us) / num_calls)
    return max(0.0, min(runs))


def positions_of(number: int, num_rows: int) -> list[int]:
    """One position after the other, as a text is written."""
    first = 100 + number * num_rows
    return list(range(first, first + num_rows))


def measured(size: int, num_rows: int, way: str, seconds: float) -> dict[str, object]:
    """All ways of choosing over the same rows: that they agree, and what a row costs."""
    logits, asked = made_logits(num_rows, size), WAYS[way]

    def ours(number: int) -> list[int]:
        return [int(token_id) for token_id in choose(logits, positions_of(number, num_rows), [asked] * num_rows).token_ids]

    def plain(number: int) -> list[int]:
        return [plain_choice(*pair, asked) for pair in zip(logits, positions_of(number, num_rows), strict=True)]

    figures: dict[str, object] = {"vocabulary": size, "rows": num_rows, "way": way}
    for name, choose_so in (("us_per_row", lambda: choose_by(None)), ("compiled_us_per_row", use_compiled)):
        if choose_so() is False:
            figures[name] = "-"
            continue
        if ours(0) != plain(0):
            raise AssertionError(f"two ways differ: {way}, {size} tokens")
        figures[name] = round(best_us(ours, seconds) / num_rows, 1)
    return figures | {"plain_us_per_row": round(best_us(plain, seconds, 1) / num_rows, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    arguments = parser.parse_args()
    seconds = 0.02 if arguments.quick else 0.5
    batches = BATCHES[:1] if arguments.quick else BATCHES
    figures = [measured(size, rows, way, seconds) for size in SIZES for rows in batches for way in WAYS]
    cells = [[str(figure[name]) for name in figure] for figure in figures]
    columns = ["vocabulary", "rows", "way", "us a row", "as machine code", "plain numpy"]
    publish(arguments, "choice-cost", [Grid("CPU time of a choice", columns, cells)], figures)


if __name__ == "__main__":
    main()
