"""The two pairs that scenes are played with: tables, and the bundled one."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from device_agent.build import facts_of
from device_agent.request import StreamRequest
from speculation.engines.base import Chunk, Engine
from speculation.engines.onnx import OnnxEngine
from speculation.engines.package import load_pair
from tests.acceptance.plain_loop import PlainLlama, plain_choice
from tests.faults import tables
from tests.faults.models import Models
from tests.faults.tables import DraftTable, FullTable, Tracked

NUM_SLOTS = 16
NUM_PROMPTS = 12


@dataclass(frozen=True, slots=True)
class Times:
    """Of a draft step, a pass, and a step of the draft that a verifier keeps; and whether the device's are charged."""

    step_s: float
    pass_s: float
    companion_s: float
    is_charged: bool


PlainCache = dict[int, tuple[list[NDArray[np.float32]], list[NDArray[np.float32]]]]


class TablePair:
    """Seeded tables; steps and passes take a drawn time, texts of some scenes end with a token, of others by the limit."""

    def models(self, seed: int, rng: random.Random, num_streams: int) -> Models:
        times = _times(rng)
        end_token_ids = rng.choice(((), (tables.END_TOKEN,)))

        def plain(request: StreamRequest) -> Sequence[int]:
            prompt = tables.encode(request.prompt)
            return tables.plain_table(seed, prompt, request.max_tokens or 0, end_token_ids, **sampling_of(request))

        return Models(
            facts=tables.facts(end_token_ids),
            draft=lambda: Tracked(DraftTable(seed, NUM_SLOTS), times.step_s, times.is_charged),
            full=lambda: Tracked(FullTable(seed, NUM_SLOTS), times.pass_s),
            companion=lambda: Tracked(DraftTable(seed, NUM_SLOTS), times.companion_s),
            plain=plain,
        )

    def prompt(self, rng: random.Random) -> str:
        return tables.decode([rng.randrange(tables.VOCABULARY) for _ in range(rng.randint(1, 12))])

    def max_tokens(self, rng: random.Random) -> int:
        return rng.randint(16, 48)


class RealPair:
    """The bundled pair, loaded once. Drafts of random quality: one of its graphs, with nonsense at a share of all positions."""

    def __init__(self) -> None:
        self._pair = load_pair()
        self._full = OnnxEngine(self._pair.full, "fp32", NUM_SLOTS)
        self._drafts = {name: OnnxEngine(self._pair.draft, name, NUM_SLOTS) for name in self._pair.draft.variants}
        self._companion = OnnxEngine(self._pair.draft, min(self._drafts), NUM_SLOTS)
        self._plain = PlainLlama(self._pair.full.path)
        self._prefills: dict[tuple[int, ...], PlainCache] = {}

    def models(self, seed: int, rng: random.Random, num_streams: int) -> Models:
        times = _times(rng)
        share, draft = rng.choice((0.0, 0.0, 0.3, 1.0)), self._drafts[rng.choice(sorted(self._drafts))]
        return Models(
            facts=facts_of(self._pair, draft),
            draft=lambda: Spoiled(draft, times, seed, share),
            full=lambda: Tracked(self._full, times.pass_s),
            companion=lambda: Tracked(self._companion, times.companion_s),
            plain=self._plain_text,
        )

    def prompt(self, rng: random.Random) -> str:
        return str(rng.choice(self._pair.prompts[:NUM_PROMPTS])["text"])

    def max_tokens(self, rng: random.Random) -> int:
        return rng.randint(32, 64)

    def _plain_text(self, request: StreamRequest) -> list[int]:
        """One token a step by the acceptance tests' own forward, which shares nothing with the engines but the weights."""
        full = self._pair.full
        tokens, generated = list(full.tokenizer.encode(request.prompt).ids), []
        # One row times a small matrix: more BLAS threads than one only wait for each other.
        with threadpool_limits(1):
            cache = self._prefilled(tuple(tokens[:-1]))
            while len(generated) < (request.max_tokens or 0):
                logits = self._plain.logits(tokens[-1], len(tokens) - 1, cache)
                generated.append(plain_choice(logits, len(tokens), **sampling_of(request)))
                tokens.append(generated[-1])
                if tokens[-1] in full.end_token_ids:
                    break
        return generated

    def _prefilled(self, prompt: tuple[int, ...]) -> PlainCache:
        if prompt not in self._prefills:
            made: PlainCache = {}
            for position, token in enumerate(prompt):
                self._plain.logits(token, position, made)
            self._prefills[prompt] = made
        return {layer: (list(keys), list(values)) for layer, (keys, values) in self._prefills[prompt].items()}


class Spoiled(Tracked):
    """A draft whose logits are turned round at a share of all positions, drawn by the seed."""

    def __init__(self, engine: Engine, times: Times, seed: int, share: float) -> None:
        super().__init__(engine, times.step_s, times.is_charged)
        self._is_spoiled = np.random.RandomState(seed).random_sample(engine.description.context_length + 1) < share

    def extend(self, chunks: Sequence[Chunk]) -> NDArray[np.float32]:
        logits = super().extend(chunks)
        ends = [self.length(chunk.cache) for chunk in chunks]
        rows = [end - back for chunk, end in zip(chunks, ends, strict=True) for back in range(chunk.num_logits)[::-1]]
        spoiled = self._is_spoiled[np.array(rows, np.int64)]
        return np.where(spoiled[:, None], logits[:, ::-1], logits)


def _times(rng: random.Random) -> Times:
    """A pass takes half as long as a draft step, or much longer. A device may be so fast that several steps are one job."""
    is_fast = rng.random() < 0.1
    step_s = 1e-4 if is_fast else rng.choice((0.2, 0.5, 1.0))
    return Times(step_s, step_s * rng.choice((0.5, 1.5, 3.0, 6.0)), step_s * rng.choice((0.05, 0.5)), not is_fast)


def sampling_of(request: StreamRequest) -> dict[str, Any]:
    """What the plain loop's own choice asks for."""
    asked = request.parameters(request.seed or 0)
    return {"temperature": asked.temperature, "top_k": asked.top_k, "top_p": asked.top_p, "seed": request.seed}
