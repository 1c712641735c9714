"""Our engine, and the bare forward of its graph: the same session of ONNX Runtime, its arrays bound beforehand."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.rivals.base import Tokens
from speculation.engines.base import CacheId, Chunk
from speculation.engines.onnx import OnnxEngine

_NO_LOGITS = np.empty((0, 0), np.float32)


class Ours:
    """``OnnxEngine`` as services use it."""

    def __init__(self, engine: OnnxEngine) -> None:
        self.engine = engine
        self._caches: list[CacheId] = []
        self._past = 0

    def fill(self, prompts: Tokens) -> None:
        self._caches, self._past = [self.engine.open() for _ in prompts], prompts.shape[1]
        self.engine.extend([Chunk(cache, row.tolist(), 0) for cache, row in zip(self._caches, prompts, strict=True)])

    def ready(self, tokens: Tokens) -> None:
        pass

    def step(self, tokens: Tokens) -> NDArray[np.float32]:
        rows = tokens.tolist()
        caches = self._caches[: len(rows)]
        return self.engine.extend([Chunk(cache, row, len(row)) for cache, row in zip(caches, rows, strict=True)])

    def rewind(self, sessions: int) -> None:
        for cache in self._caches[:sessions]:
            self.engine.truncate(cache, self._past)


class BareForward:
    """The last pass of our engine over again, and nothing around it: what is left to it is the runtime's own time.

    It shares the engine's session, since two sessions of one graph may differ by some percent, by where their weights lie.
    ``engine_s``: CPU seconds of the engine's own pass, just before; that beside the bare pass is what the engine adds.
    """

    def __init__(self, ours: Ours) -> None:
        self._ours = ours
        self.engine_s = 0.0
        self._logits = _NO_LOGITS
        self._pass: Any = None

    def fill(self, prompts: Tokens) -> None:
        pass

    def ready(self, tokens: Tokens) -> None:
        began_s = time.process_time()
        self._logits = self._ours.step(tokens)
        self._ours.rewind(len(tokens))
        self.engine_s = time.process_time() - began_s
        bound = self._ours.engine._last
        assert bound is not None
        self._pass = bound.io

    def step(self, tokens: Tokens) -> NDArray[np.float32]:
        self._ours.engine._session.run_with_iobinding(self._pass)
        return self._logits

    def rewind(self, sessions: int) -> None:
        # The engine writes into memory of its own again only once nobody refers to the logits there.
        self._logits = _NO_LOGITS
