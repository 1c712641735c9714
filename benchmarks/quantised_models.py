"""Models to compare, and what is asked of each: loss, agreement with the full model, and speed. ``benchmarks/quantisation.py``
makes tables of it.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from benchmarks.lookup import text_of
from benchmarks.trace_file import Trace
from speculation.choice import choose
from speculation.engines.adding import INT4_KIND, INT8_KIND, Quantisation, add_quantised
from speculation.engines.base import CacheId, Chunk, Engine
from speculation.engines.checkpoint import Checkpoint
from speculation.engines.manifest import CONFIG, TOKENIZER
from speculation.engines.model import HALF_CACHES
from speculation.engines.onnx import OnnxEngine
from speculation.engines.package import Package, Pair
from speculation.engines.package_writer import PackageSource, write_package
from speculation.engines.variants import INT8, PLAIN
from speculation.engines.whole_sums import are_whole
from speculation.parameters import SamplingParameters

ASKED = [
    (INT8_KIND, None, False),
    *((INT8_KIND, block, False) for block in (32, 64, 128) if are_whole(block)),
    *((INT4_KIND, block, is_calibrated) for block in (16, 32, 64, 128, 256) for is_calibrated in (False, True)),
]
"""Kind and block of every variant that is compared with fp32, and whether a text says what counts; 8 bits in blocks where the
processor can."""
WITH_HALF_CACHES = (PLAIN, INT8, "q4")
"""Variants that are run with caches in 16 bits, too."""
CALIBRATION_BYTES = 100_000
PAST = 64
"""Tokens in the cache of each session whose pass is timed."""
PASSES = {
    "tokens a second, 1 session": (1, 1),
    "rows a second, 16 sessions x 1": (16, 1),
    "rows a second, 1 session x 9": (1, 9),
}
"""Sessions, and rows of each, of the passes that are timed."""
IN_A_ROW = 3
"""Passes that a model makes when it is its turn: the first finds another one's weights in the processor's caches."""
PRUNED = "_proj.weight"
GROUP, KEPT = 4, 2

Engines = Mapping[str, OnnxEngine]


@dataclass(frozen=True, slots=True)
class Quality:
    """``loss``: nats a token. ``agreement``: by temperature, the share of the full model's choices that it makes, too."""

    loss: float
    agreement: Mapping[float, float]


def with_variants(package: Package, folder: Path) -> Package:
    """A copy of a package with every variant of ``ASKED`` added by the code behind ``outrider models quantize``."""
    shutil.copytree(package.path, folder)
    with tempfile.TemporaryDirectory() as name:
        text = Path(name) / "calibration.txt"
        text.write_text(calibration_text(), "utf-8")
        for wanted in _quantisations(folder, text):
            if wanted.variant not in Package(folder).variants:
                add_quantised(wanted)
    return Package(folder)


def variant_names() -> list[str]:
    """What is compared, fp32 first."""
    quantised = [wanted.variant for wanted in _quantisations(Path(), Path())]
    return [PLAIN, *quantised, *(variant + HALF_CACHES for variant in WITH_HALF_CACHES)]


def calibration_text() -> str:
    """What the interpreter's own ``help()`` tells of the language's topics: of the kind that the bundled pair writes."""
    return "\n".join(text for _, text in sorted(topics.items()))[:CALIBRATION_BYTES]


def _quantisations(package: Path, text: Path) -> Iterator[Quantisation]:
    for kind, block, is_calibrated in ASKED:
        yield Quantisation(package, kind, block, calibrate=text if is_calibrated else None)


def half_of_all(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """A matrix [out, in] without the smaller half of its weights."""
    bound = np.median(np.abs(weight))
    return np.where(np.abs(weight) > bound, weight, np.float32(0))


def two_of_four(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """A matrix [out, in] with the two largest of every four weights in a row."""
    groups = weight.reshape(-1, GROUP)
    order = np.argsort(-np.abs(groups), axis=1, kind="stable")
    kept = np.zeros(groups.shape, np.bool_)
    np.put_along_axis(kept, order[:, :KEPT], True, axis=1)
    return np.where(kept, groups, np.float32(0)).reshape(weight.shape)


WAYS_TO_PRUNE = {"half, anywhere": half_of_all, "2 of 4": two_of_four}


def pruned(package: Package, folder: Path, way: str) -> tuple[Package, float]:
    """An fp32 package whose layers' matrices are pruned by magnitude, and the share of all its weights that is zero."""
    weights = {name: values.astype(np.float32) for name, values in Checkpoint(package.path).items()}
    weights |= {name: WAYS_TO_PRUNE[way](values) for name, values in weights.items() if name.endswith(PRUNED)}
    source = PackageSource(
        name=f"{package.name}, {way}",
        config=json.loads((package.path / CONFIG).read_text("utf-8")),
        weights=weights,
        tokenizer=(package.path / TOKENIZER).read_bytes(),
        end_token_ids=package.end_token_ids,
        licence=package.manifest.licence,
        provenance=f"{package.name}, pruned by magnitude: {way}",
    )
    write_package(folder, source)
    zeros = sum(np.count_nonzero(values == 0) for values in weights.values())
    return Package(folder), zeros / sum(values.size for values in weights.values())


def quality(engine: Engine, pair: Pair, traces: Sequence[Trace], num_prompts: int) -> Quality:
    """Loss over held-out prompts, and agreement along the full model's own paths, by temperature."""
    losses = np.concatenate([losses_of(engine, prompt) for prompt in prompts_of(pair, num_prompts)])
    agreement = {
        temperature: float(np.concatenate([hits_of(engine, pair, t) for t in traces if t.temperature == temperature]).mean())
        for temperature in sorted({trace.temperature for trace in traces})
    }
    return Quality(float(losses.mean()), agreement)


def prompts_of(pair: Pair, count: int) -> list[list[int]]:
    """The tokens of the first held-out prompts."""
    return [pair.full.tokenizer.encode(prompt["text"]).ids for prompt in pair.prompts[:count]]


def losses_of(engine: Engine, token_ids: Sequence[int]) -> NDArray[np.float64]:
    """Nats of each token but the first, given those before it: float64 [n - 1]."""
    logits = _fed(engine, token_ids[:-1], len(token_ids) - 1).astype(np.float64)
    shifted = logits - logits.max(axis=-1, keepdims=True)
    chosen = shifted[np.arange(len(shifted)), list(token_ids[1:])]
    return np.asarray(np.log(np.exp(shifted).sum(axis=-1)) - chosen)


def hits_of(engine: Engine, pair: Pair, trace: Trace) -> NDArray[np.bool_]:
    """Which choices along a trace are the full model's, bool [n], each behind the full model's own text."""
    prompt, count = pair.full.tokenizer.encode(text_of(pair, trace)).ids, len(trace.token_ids)
    logits = _fed(engine, [*prompt, *map(int, trace.token_ids[:-1])], count)
    asked = SamplingParameters(temperature=trace.temperature, seed=trace.seed)
    found = choose(logits, np.arange(len(prompt), len(prompt) + count), [asked] * count)
    return np.asarray(found.token_ids == trace.token_ids)


def _fed(engine: Engine, token_ids: Sequence[int], num_logits: int) -> NDArray[np.float32]:
    cache = engine.open()
    logits = engine.extend([Chunk(cache, token_ids, num_logits)])
    engine.close(cache)
    return logits


def rows_a_second(engines: Engines, num_rounds: int, what: str) -> dict[str, dict[str, float]]:
    """Name -> pass -> rows of logits a second, by the fastest pass of ``num_rounds`` turns; all engines take turns."""
    best_s = {name: dict.fromkeys(PASSES, np.inf) for name in engines}
    sessions = {name: [_filled(engine) for _ in range(engine.description.num_slots)] for name, engine in engines.items()}
    for number in track(range(num_rounds), f"passes, {what}", transient=True):
        for name in _rotated(list(engines), number):
            for label, (num_sessions, rows) in PASSES.items():
                took_s = [_pass_s(engines[name], sessions[name][:num_sessions], rows) for _ in range(IN_A_ROW)]
                best_s[name][label] = min(best_s[name][label], *took_s)
    for name, caches in sessions.items():
        for cache in caches:
            engines[name].close(cache)
    return {
        name: {label: sessions * rows / best[label] for label, (sessions, rows) in PASSES.items()}
        for name, best in best_s.items()
    }


def slots() -> int:
    """Sessions that the largest timed pass needs."""
    return max(sessions for sessions, _ in PASSES.values())


def _filled(engine: Engine) -> CacheId:
    cache = engine.open()
    engine.extend([Chunk(cache, _tokens(PAST), 0)])
    return cache


def _pass_s(engine: Engine, caches: Sequence[CacheId], rows: int) -> float:
    chunks = [Chunk(cache, _tokens(rows), rows) for cache in caches]
    began_s = time.perf_counter()
    engine.extend(chunks)
    took_s = time.perf_counter() - began_s
    for chunk in chunks:
        engine.truncate(chunk.cache, PAST)
    return took_s


def _tokens(count: int) -> list[int]:
    return [1 + number % 255 for number in range(count)]


def _rotated(names: Sequence[str], by: int) -> Iterator[str]:
    """Each model is the first of a round now and then."""
    start = by % len(names)
    yield from (*names[start:], *names[:start])
