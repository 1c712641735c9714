"""From chunks that were found to the text that goes before a prompt. Pure.

The form fits a model that completes text: the passages, the best one last, an empty line behind each, then the prompt as it is.
A conversation gets them before its last message's own text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from device_agent.request import StreamRequest
from device_agent.retrieval.documents import Hit, Span

SEPARATOR = "\n\n"


@dataclass(frozen=True, slots=True)
class Passage:
    """Text of one document without a gap; ``score`` is that of its best chunk."""

    document: str
    span: Span
    score: float
    text: str


def passages_of(hits: Sequence[Hit]) -> list[Passage]:
    """Chunks that overlap are one passage; best first."""
    joined: list[Passage] = []
    for hit in sorted(hits, key=lambda hit: (hit.document, hit.span.start)):
        last = joined[-1] if joined else None
        if last is not None and last.document == hit.document and hit.span.start <= last.span.end:
            more = hit.text[max(0, last.span.end - hit.span.start) :]
            span = Span(last.span.start, max(last.span.end, hit.span.end))
            joined[-1] = Passage(hit.document, span, max(last.score, hit.score), last.text + more)
        else:
            joined.append(Passage(hit.document, hit.span, hit.score, hit.text))
    return sorted(joined, key=lambda passage: -passage.score)


def text_of(passages: Sequence[Passage]) -> str:
    """The passages as a model reads them, best last: what stands near is copied most."""
    return "".join(passage.text.strip() + SEPARATOR for passage in reversed(passages))


def with_passages(request: StreamRequest, passages: Sequence[Passage]) -> StreamRequest:
    """The request with the passages before its prompt."""
    if not passages:
        return request
    before = text_of(passages)
    messages = request.messages
    if messages:
        last = messages[-1]
        messages = (*messages[:-1], replace(last, content=before + last.content))
    return replace(request, prompt=before + request.prompt, messages=messages)


def that_fit(
    request: StreamRequest, hits: Sequence[Hit], num_tokens: Callable[[StreamRequest], int], room_tokens: int, room_bytes: int
) -> list[Hit]:
    """The best chunks with which the request's prompt still has at most so many tokens and bytes; one too long is left out."""
    fitting: list[Hit] = []
    for hit in hits:
        longer = with_passages(request, passages_of([*fitting, hit]))
        if len(longer.prompt.encode()) <= room_bytes and num_tokens(longer) <= room_tokens:
            fitting.append(hit)
    return fitting
