"""The figures of ``models/README.md``, measured on the graphs that are shipped.

Agreement is taken along the full model's own continuations of held-out prompts: at every position the draft sees the full
model's text and chooses; its choice agrees or not. Sampled figures use the shared-noise choice of the product, so they are
what a session meets. "Optimum" is 1 - total variation, which no rule of any kind can beat.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from benchmarks.report import Grid, add_arguments, publish
from speculation.choice import choose, choose_ranked
from speculation.engines.base import Chunk, Engine
from speculation.engines.onnx import OnnxEngine
from speculation.engines.package import Package, Pair, load_pair
from speculation.parameters import SamplingParameters

NUM_PROMPTS, NUM_TOKENS, REPEAT_LENGTH, NUM_CHOICES = 40, 128, 4, 4
GREEDY = (SamplingParameters(),)
SEEDS, SEEDS_QUICK = range(1, 9), range(1, 2)
"""One seed is one noise for all prompts: between seeds the agreement of 40 prompts moves by a hundredth and more."""
TEMPERATURE = 0.8


@dataclass(frozen=True, slots=True)
class Continuation:
    """A prompt continued by the full model, with the full model's logits [tokens, vocabulary] at each generated position."""

    token_ids: list[int]
    start: int
    logits: NDArray[np.float32]


def continuation(
    engine: Engine, prompt: list[int], parameters: SamplingParameters, end_token_ids: tuple[int, ...]
) -> Continuation:
    """Decode one prompt by the full model alone."""
    cache = engine.open()
    tokens, new, rows = list(prompt), list(prompt), []
    while len(tokens) < len(prompt) + NUM_TOKENS:
        logits = engine.extend([Chunk(cache, new, 1)])
        rows.append(logits[0].copy())
        token = int(choose(logits, [len(tokens)], [parameters]).token_ids[0])
        tokens.append(token)
        new = [token]
        if token in end_token_ids:
            break
    engine.close(cache)
    return Continuation(tokens, len(prompt), np.stack(rows))


def draft_logits(engine: Engine, text: Continuation) -> NDArray[np.float32]:
    """The draft's logits at the same positions, fed with the full model's text."""
    cache = engine.open()
    fed = text.token_ids[:-1]
    logits = engine.extend([Chunk(cache, fed, len(fed) - text.start + 1)]).copy()
    engine.close(cache)
    return logits


def ranked_choices(logits: NDArray[np.float32], start: int, parameters: SamplingParameters) -> NDArray[np.int64]:
    """The first four choices of every row, [tokens, 4]."""
    positions = np.arange(start, start + len(logits))
    return choose_ranked(logits, positions, [parameters] * len(logits), NUM_CHOICES).token_ids


def repeats(text: Continuation) -> NDArray[np.bool_]:
    """For each generated token: does it complete an n-gram of REPEAT_LENGTH that the text already held?"""
    seen: set[tuple[int, ...]] = set()
    out = []
    for end in range(REPEAT_LENGTH, len(text.token_ids) + 1):
        gram = tuple(text.token_ids[end - REPEAT_LENGTH : end])
        if end > text.start:
            out.append(gram in seen)
        seen.add(gram)
    return np.array(out, bool)


def softmax(logits: NDArray[np.float32], temperature: float) -> NDArray[np.float64]:
    scaled = logits.astype(np.float64) / temperature
    weights = np.exp(scaled - scaled.max(-1, keepdims=True))
    return np.asarray(weights / weights.sum(-1, keepdims=True))


def validation_loss(engine: Engine, tokens: NDArray[np.uint16], rows: int = 256, count: int = 24) -> float:
    """Mean next-token loss in nats over evenly spaced windows."""
    losses = []
    for start in np.linspace(0, len(tokens) - rows - 1, count).astype(int):
        window = tokens[start : start + rows + 1].astype(np.int64)
        cache = engine.open()
        p = softmax(engine.extend([Chunk(cache, window[:-1].tolist(), rows)]), 1.0)
        engine.close(cache)
        losses.append(-np.log(p[np.arange(rows), window[1:]]).mean())
    return float(np.mean(losses))


@dataclass(frozen=True, slots=True)
class Compared:
    """One draft along one text: which of its choices is the full model's, bool [tokens, choices], where the text repeats
    itself, bool [tokens], and how far the two distributions overlap, [tokens]."""

    is_at: NDArray[np.bool_]
    repeated: NDArray[np.bool_]
    overlap: NDArray[np.float64]


def agreement(
    full: Engine, drafts: dict[str, Engine], pair: Pair, noises: Sequence[SamplingParameters], num_prompts: int
) -> dict[str, dict[str, float]]:
    """Agreement of each draft with the full model along its continuations of the held-out prompts, each with every noise."""
    prompts = [pair.full.tokenizer.encode(p["text"]).ids for p in pair.prompts[:num_prompts]]
    label = "greedy" if noises[0].is_greedy else f"temperature {noises[0].temperature}"
    asked = [(prompt, noise) for noise in noises for prompt in prompts]
    found: dict[str, list[Compared]] = {name: [] for name in drafts}
    for prompt, noise in track(asked, f"full model, {label}"):
        text = continuation(full, prompt, noise, pair.full.end_token_ids)
        for name, engine in drafts.items():
            found[name].append(compared(engine, text, noise))
    return {name: figures_of(along, len(noises), noises[0].is_greedy) for name, along in found.items()}


def compared(engine: Engine, text: Continuation, noise: SamplingParameters) -> Compared:
    logits, t = draft_logits(engine, text), noise.temperature or 1.0
    is_at = ranked_choices(logits, text.start, noise) == np.asarray(text.token_ids[text.start :])[:, None]
    overlap = np.minimum(softmax(logits, t), softmax(text.logits, t)).sum(-1)
    return Compared(is_at, repeats(text), overlap)


def figures_of(along: Sequence[Compared], num_noises: int, is_greedy: bool) -> dict[str, float]:
    """One draft along all texts, those of one noise behind each other."""
    is_at, repeated = (np.concatenate([getattr(one, name) for one in along]) for name in ("is_at", "repeated"))
    hit = is_at[:, 0]
    figures = {
        "agreement": float(hit.mean()),
        "agreement where not repeating": float(hit[~repeated].mean()),
        "misses covered by the second choice": float(is_at[~hit, 1].mean()),
        "by the second to fourth": float(is_at[~hit, 1:].any(axis=1).mean()),
        "repeated share": float(repeated.mean()),
    }
    if num_noises > 1:
        figures["standard error over seeds"] = standard_error(hit, [len(one.repeated) for one in along], num_noises)
    if not is_greedy:
        figures["optimum of any rule"] = float(np.concatenate([one.overlap for one in along]).mean())
    return figures


def standard_error(hit: NDArray[np.bool_], lengths: Sequence[int], num_noises: int) -> float:
    """Of the mean over seeds, by how each seed's own mean differs; texts of one seed lie behind each other."""
    ends = np.cumsum(np.asarray(lengths).reshape(num_noises, -1).sum(axis=1))
    means = [part.mean() for part in np.split(hit, ends[:-1])]
    return float(np.std(means, ddof=1) / np.sqrt(num_noises))


def sizes(package: Package) -> dict[str, float]:
    """Megabytes of the weights and of every graph."""
    files = {"model.safetensors": package.path / "model.safetensors", **{v: package.graph(v) for v in package.variants}}
    return {name: path.stat().st_size / 1e6 for name, path in files.items()}


def measure(pair: Pair, corpus: Path | None, num_prompts: int, seeds: Sequence[int]) -> dict[str, object]:
    full = OnnxEngine(pair.full, num_slots=2)
    drafts: dict[str, Engine] = {v: OnnxEngine(pair.draft, v, num_slots=2) for v in pair.draft.variants}
    figures: dict[str, object] = {
        "pair": f"{pair.name} {pair.version}",
        "provenance": {"full": pair.full.manifest.provenance, "draft": pair.draft.manifest.provenance},
        "parameters": {"full": pair.full.num_parameters, "draft": pair.draft.num_parameters},
        "megabytes": {"full": sizes(pair.full), "draft": sizes(pair.draft)},
        "greedy": agreement(full, drafts, pair, GREEDY, num_prompts),
        f"temperature {TEMPERATURE}": agreement(
            full, drafts, pair, [SamplingParameters(temperature=TEMPERATURE, seed=seed) for seed in seeds], num_prompts
        ),
    }
    if corpus is not None:
        held_out = {kind: np.load(corpus / f"validation-{kind}.npy") for kind in ("docs", "code")}
        engines = {"full": full, **{f"draft {v}": e for v, e in drafts.items()}}
        figures["validation loss"] = {
            name: {kind: validation_loss(engine, tokens) for kind, tokens in held_out.items()}
            for name, engine in engines.items()
        }
    return figures


def cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}" if isinstance(value, float) else str(value)


def grids(figures: dict[str, object]) -> list[Grid]:
    """One table a section."""
    out = []
    for title, content in figures.items():
        if not isinstance(content, dict):
            continue
        rows = content if all(isinstance(v, dict) for v in content.values()) else {title: content}
        columns = list(dict.fromkeys(key for row in rows.values() for key in row))
        out.append(Grid(title, ["", *columns], [[name, *(cell(row.get(c)) for c in columns)] for name, row in rows.items()]))
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pair", type=Path, help="folder of the pair (default: the bundled one)")
    parser.add_argument("--corpus", type=Path, help="folder that corpus.py wrote: adds the validation losses")
    add_arguments(parser)
    arguments = parser.parse_args()
    num_prompts, seeds = (4, SEEDS_QUICK) if arguments.quick else (NUM_PROMPTS, SEEDS)
    figures = measure(load_pair(arguments.pair), arguments.corpus, num_prompts, seeds)
    publish(arguments, "quality", grids(figures), figures)
    if arguments.corpus is None:
        print("left out: the validation losses, which need the corpus (--corpus FOLDER)")


if __name__ == "__main__":
    main()
