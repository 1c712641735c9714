"""A full model that another server runs: an engine whose rows are the log-probabilities that vLLM or SGLang return.

A cache is the list of its tokens, and nothing is kept at the server: every pass sends each session's whole text again.
``docs/models.md`` tells what that costs, and what of the promises it leaves.
"""

from __future__ import annotations

import logging
import math
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speculation.engines.base import CacheId, Chunk, EngineDescription
from speculation.engines.handover import computing
from speculation.engines.model import Model
from speculation.engines.remote_http import JsonServer, shown
from speculation.engines.remote_routes import ROUTES, UNLIKELY, Asked, Route, Row, Served
from speculation.engines.slots import Slots
from speculation.errors import ConfigurationError, EngineError, UnknownNameError

ALL_LOGPROBS = -1
MODELS_PATH, MODELS_LIMIT_BYTES = "/v1/models", 4 * 1024 * 1024
MAX_AT_ONCE = 32
ADVICE = {
    "max allowed": "ask for fewer (full_logprobs), or start that server with more (--max-logprobs)",
    "status 401": "give that server's key as OUTRIDER_VERIFIER_FULL_API_KEY",
    "status 404": "full_url is the address before /v1 or /generate, and full_route must be that server's",
    "cannot be reached": "start that server first, and check full_url",
    "vocabulary": "is the folder of the full model that model's?",
    "return_tokens_as_token_ids": "a newer vLLM does",
}
"""What would be right, by what a refusal at the start says."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RemoteServer:
    """Where a model is served, and how it is asked for. ``route`` is a name of ``ROUTES``; ``model`` None is the only one
    that is served there; of each row the ``num_logprobs`` likeliest tokens are asked for (``ALL_LOGPROBS``: all of them)."""

    url: str
    route: str
    model: str | None = None
    num_logprobs: int = 20
    timeout_s: float = 60.0
    api_key: str | None = field(default=None, repr=False)


class RemoteEngine:
    """An ``Engine`` and ``Forkable``. A pass is one request for each chunk that wants logits, all at once.

    Tokens of a row that were not returned have the logit ``UNLIKELY``. A request that fails is an ``EngineError`` with its
    reason, and changes no cache. The pool of threads and the connections end with the engine.
    """

    def __init__(self, http: JsonServer, route: Route, description: EngineDescription) -> None:
        self._http = http
        self._route = route
        self._description = description
        self._slots = Slots(description)
        self._tokens: dict[CacheId, list[int]] = {}
        self._pool = ThreadPoolExecutor(min(description.num_slots, MAX_AT_ONCE), "remote-model")
        weakref.finalize(self, _end, self._pool, http)

    @property
    def description(self) -> EngineDescription:
        return self._description

    def open(self) -> CacheId:
        cache = self._slots.open()
        self._tokens[cache] = []
        return cache

    def length(self, cache: CacheId) -> int:
        return self._slots[cache].length

    def extend(self, chunks: Sequence[Chunk]) -> NDArray[np.float32]:
        slots = self._slots.of(chunks)
        for chunk in chunks:
            self._slots.check_token_ids(int(min(chunk.token_ids)), int(max(chunk.token_ids)))
        fed = [[*self._tokens[chunk.cache], *map(int, chunk.token_ids)] for chunk in chunks]
        asked = [Asked(tokens, chunk.num_logits) for tokens, chunk in zip(fed, chunks, strict=True) if chunk.num_logits]
        computing()
        # A pool takes a thread's turn for each request: one alone needs none.
        answers = map(self._rows, asked) if len(asked) == 1 else self._pool.map(self._rows, asked)
        logits = self._filled([row for rows in answers for row in rows])
        for chunk, slot, tokens in zip(chunks, slots, fed, strict=True):
            self._tokens[chunk.cache], slot.length = tokens, len(tokens)
        return logits

    def truncate(self, cache: CacheId, length: int) -> None:
        self._slots.truncate(cache, length)
        del self._tokens[cache][length:]

    def close(self, cache: CacheId) -> None:
        self._slots.close(cache)
        del self._tokens[cache]

    def fork(self, cache: CacheId, length: int | None = None) -> CacheId:
        child, slot, _ = self._slots.fork(cache, length)
        self._tokens[child] = self._tokens[cache][: slot.length]
        return child

    def _rows(self, asked: Asked) -> list[Row]:
        route = self._route
        answer = self._http.post(route.path, route.request(asked), route.limit_bytes(asked))
        try:
            rows = route.rows(answer, asked)
        except EngineError as error:
            raise EngineError(f"{route.path}: {shown(str(error))}") from error
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise EngineError(f"{route.path} answered in another form than its route has: {shown(repr(error))}") from error
        if len(rows) != asked.num_rows:
            raise EngineError(f"{route.path} gave {len(rows)} rows, not {asked.num_rows}")
        return rows

    def _filled(self, rows: Sequence[Row]) -> NDArray[np.float32]:
        logits = np.full((len(rows), self._description.vocabulary_size), UNLIKELY, np.float32)
        for number, row in enumerate(rows):
            logits[number, row.token_ids] = row.values
        return logits


def connect(model: Model, server: RemoteServer, num_slots: int) -> RemoteEngine:
    """An engine for a model that a server runs, once that has answered a short request as it should.

    Raises ``ConfigurationError`` where it does not, with what was found and what would be right.
    """
    if server.route not in ROUTES:
        raise UnknownNameError("route of a remote model", server.route, ROUTES, "full_route")
    http = JsonServer(server.url, server.api_key, server.timeout_s, min(num_slots, MAX_AT_ONCE))
    try:
        engine = _connected(http, model, server, num_slots)
        _try(engine)
    except EngineError as error:
        http.close()
        raise ConfigurationError(f"the full model at {http.url} cannot be used: {error}{_advice(str(error))}") from error
    _log.info("%s: the full model is run by %s", engine.description.name, http.url)
    return engine


def _connected(http: JsonServer, model: Model, server: RemoteServer, num_slots: int) -> RemoteEngine:
    name, longest = _chosen(http.get(MODELS_PATH, MODELS_LIMIT_BYTES), server)
    size = model.vocabulary_size
    served = Served(name, size, size if server.num_logprobs == ALL_LOGPROBS else min(server.num_logprobs, size))
    description = EngineDescription(
        name=f"{name}:{server.route}",
        vocabulary_size=size,
        context_length=int(min(model.context_length, longest)),
        num_slots=num_slots,
        num_parameters=0,
        weight_bytes=0,
        kv_bytes_per_token=0,
        has_whole_rows=served.num_logprobs == size,
    )
    return RemoteEngine(http, ROUTES[server.route](served), description)


def _chosen(listed: Any, server: RemoteServer) -> tuple[str, float]:
    """The model's name there, and the longest prompt that it takes, where the list of models says so: a row needs one token to
    be generated, so that is one less than its longest text."""
    try:
        lengths = {str(entry["id"]): entry.get("max_model_len") for entry in listed["data"]}
    except (AttributeError, LookupError, TypeError) as error:
        raise EngineError(f"{MODELS_PATH} is no list of models: {error!r}") from error
    known = ", ".join(sorted(lengths)) or "none"
    if server.model is None and len(lengths) != 1:
        raise EngineError(f"{MODELS_PATH} lists {known}: name one (full_model)")
    name = server.model or next(iter(lengths))
    if name not in lengths:
        raise EngineError(f"{MODELS_PATH} lists {known}, not {name!r} (full_model)")
    length = lengths[name]
    if length is None:
        return name, math.inf
    if not (isinstance(length, int) and length > 2):
        raise EngineError(f"{MODELS_PATH} gives {name} a max_model_len of {length!r}")
    return name, length - 1


def _try(engine: RemoteEngine) -> None:
    """Two rows of two tokens: the shortest request that every part of a route is in."""
    cache = engine.open()
    engine.extend([Chunk(cache, (0, engine.description.vocabulary_size - 1), 2)])
    engine.close(cache)


def _advice(said: str) -> str:
    return next((f"; {advice}" for sign, advice in ADVICE.items() if sign in said), "")


def _end(pool: ThreadPoolExecutor, http: JsonServer) -> None:
    pool.shutdown(wait=False, cancel_futures=True)
    http.close()
