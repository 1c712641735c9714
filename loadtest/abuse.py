"""What abusers say to a verifier: bytes that no device should send, and more than any should. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from loadtest.asking import Library, Request
from speculation.protocol.messages import MAX_TOKEN_ID, Draft, Node
from speculation.wire import codec

OVERSIZED_BYTES = 1024 * 1024
NUM_SESSIONS, NUM_TRIES, RETRY_S = 8, 10, 0.2
"""Sessions that one abuser opens at once, and how often it tries to."""
ALL_CREDIT = 4096
"""More drafts than a verifier bears: all that it lets a device send."""
DEAF_S = 3.0
"""For how long nothing is read."""


def oversized(opening: Sequence[bytes]) -> list[bytes]:
    """A session that begins well and goes on with a message beyond every limit."""
    return [*opening, bytes(OVERSIZED_BYTES)]


def malformed(library: Library, request: Request, number: int) -> list[bytes]:
    """Messages of a session that breaks the protocol, each ``number`` in another way."""
    return _WAYS[number % len(_WAYS)](library, request)


def _opened(library: Library, request: Request) -> bytes:
    return codec.encode_request(library.session(request).open())


def _garbage_first(library: Library, request: Request) -> list[bytes]:
    return [b"\xff" * 64]


def _draft_first(library: Library, request: Request) -> list[bytes]:
    return [codec.encode_request(Draft((Node(1, 0, 1, len(request.token_ids)),), len(request.token_ids)))]


def _garbage_behind(library: Library, request: Request) -> list[bytes]:
    return [_opened(library, request), b"\xff" * 64]


def _two_opens(library: Library, request: Request) -> list[bytes]:
    return [_opened(library, request), _opened(library, request)]


def _gap_in_numbers(library: Library, request: Request) -> list[bytes]:
    return _behind(library, request, Node(1000, 0, 1, len(request.token_ids)))


def _root_in_the_future(library: Library, request: Request) -> list[bytes]:
    return _behind(library, request, Node(1, 0, 1, 2**30))


def _no_such_token(library: Library, request: Request) -> list[bytes]:
    return _behind(library, request, Node(1, 0, MAX_TOKEN_ID, len(request.token_ids)))


def _behind(library: Library, request: Request, node: Node) -> list[bytes]:
    return [_opened(library, request), codec.encode_request(Draft((node,), len(request.token_ids)))]


_WAYS: tuple[Callable[[Library, Request], list[bytes]], ...] = (
    _garbage_first,
    _draft_first,
    _garbage_behind,
    _two_opens,
    _gap_in_numbers,
    _root_in_the_future,
    _no_such_token,
)
