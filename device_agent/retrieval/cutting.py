"""Cuts a text into chunks of tokens that overlap, at the end of a paragraph or a line where one is near. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from device_agent.retrieval.documents import Cut, Span

BREAKS = ("\n\n", "\n")
"""Where a chunk had better end, best first: Markdown and reStructuredText part what belongs together by an empty line."""


def spans_of(text: str, offsets: Sequence[tuple[int, int]], cut: Cut) -> list[Span]:
    """The chunks of a text whose tokens lie at ``offsets``; together they hold every token."""
    spans, begin, count = list[Span](), 0, len(offsets)
    while begin < count:
        end = _end(text, offsets, begin, cut.chunk_tokens)
        spans.append(Span(offsets[begin][0], offsets[end - 1][1]))
        if end == count:
            break
        begin = max(end - cut.overlap_tokens, begin + 1)
    return spans


def _end(text: str, offsets: Sequence[tuple[int, int]], begin: int, chunk_tokens: int) -> int:
    """The token that the next chunk's new part begins with: at a break in the second half of what fits, if one is there."""
    furthest = min(begin + chunk_tokens, len(offsets))
    if furthest == len(offsets):
        return furthest
    for separator in BREAKS:
        for end in range(furthest, begin + chunk_tokens // 2, -1):
            if separator in text[offsets[end - 1][1] : offsets[end][0]]:
                return end
    return furthest
