"""What a large vocabulary costs a step: the output layer, the noise and the choice, for random decoders.

    python -m benchmarks.vocabulary [--quick] [--before FILE] [--json FILE] [--fill PAGE]

A decoder of four layers, 256 wide, its embeddings tied, decodes one row of one session a step. The head is a step that wants
its row's logits less one that wants none. Choices are made by NumPy, over logits that look like a trained
model's (``benchmarks.choice_cost``, which has them by machine code, too); what they take of the noise is in their figures, the
bits of all tokens stand apart. Ranked is what a draft asks for: its first four tokens with their confidences. Figures are CPU
time, the best of several runs.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, models

from benchmarks.choice_cost import best_us, made_logits
from benchmarks.conversion import COMMON, shapes_of
from benchmarks.report import Grid, add_arguments, publish
from speculation.choice import choose, choose_ranked
from speculation.engines.base import Chunk
from speculation.engines.onnx import OnnxEngine
from speculation.engines.package import Package
from speculation.engines.package_writer import PackageSource, write_package
from speculation.noise_rows import KEPT
from speculation.parameters import SamplingParameters

BLOCK = "vocabulary"
VOCABULARIES, VOCABULARIES_QUICK = (4096, 32_000, 151_936), (4096,)
VARIANTS = ("fp32", "q4")
CACHED_TOKENS = 64
NUM_RANKED, WIDTH = 4, 256
SAMPLED = SamplingParameters(temperature=0.8, seed=7)
WAYS = {
    "greedy": SamplingParameters(),
    "temperature 0.8": SAMPLED,
    "top-k 50": SamplingParameters(temperature=0.8, top_k=50, seed=7),
    "top-p 0.95": SamplingParameters(temperature=0.8, top_p=0.95, seed=7),
}
CONFIG = {
    **COMMON,
    "hidden_size": WIDTH,
    "intermediate_size": 768,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "tie_word_embeddings": True,
    "max_position_embeddings": 256,
}


def package_of(path: Path, size: int) -> Package:
    """A package of random weights with a vocabulary of ``size`` tokens."""
    rng = np.random.default_rng(20)
    config = {**CONFIG, "vocab_size": size}
    shapes = shapes_of({key: int(value) for key, value in config.items() if isinstance(value, int)})
    del shapes["lm_head.weight"]  # tied
    shapes["model.embed_tokens.weight"] = (size, WIDTH)
    weights = {name: 0.05 * rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    tokenizer = Tokenizer(models.BPE({"a": 0}, [])).to_str().encode()
    source = PackageSource(
        name=f"random {size}",
        config=config,
        weights=weights,
        tokenizer=tokenizer,
        end_token_ids=(0,),
        licence="none",
        provenance="random weights",
        variants=VARIANTS,
    )
    write_package(path, source)
    return Package(path)


def step_of(engine: OnnxEngine, num_logits: int) -> Callable[[int], object]:
    """One token behind a short text, again and again."""
    cache = engine.open()
    engine.extend([Chunk(cache, [1] * CACHED_TOKENS, 0)])

    def step(_number: int) -> None:
        engine.extend([Chunk(cache, [1], num_logits)])
        engine.truncate(cache, CACHED_TOKENS)

    return step


def steps_us(package: Package, variant: str, seconds: float) -> dict[str, object]:
    """The layers and the output layer of one graph."""
    engine = OnnxEngine(package, variant, num_slots=2)
    layers_us, step_us = (best_us(step_of(engine, num_logits), seconds) for num_logits in (0, 1))
    head_us = max(0.0, step_us - layers_us)
    return {"vocabulary": package.vocabulary_size, "variant": variant, "layers_us": layers_us, "head_us": head_us}


def choices_us(size: int, seconds: float) -> dict[str, float]:
    """Every way of choosing over one row, and the noise of all its tokens."""
    logits = made_logits(1, size)
    works: dict[str, Callable[[int], object]] = {
        "bits of all tokens": lambda number: KEPT.bits([(SAMPLED.seed, CACHED_TOKENS + number)], size)
    }
    works |= {name: partial(_chosen, logits, asked) for name, asked in WAYS.items()}
    for name in ("greedy", "temperature 0.8"):
        works[f"ranked, {name}"] = partial(_ranked, logits, WAYS[name])
    return {name: best_us(work, seconds) for name, work in works.items()}


def _chosen(logits: NDArray[np.float32], asked: SamplingParameters, number: int) -> object:
    return choose(logits, [CACHED_TOKENS + number], [asked])


def _ranked(logits: NDArray[np.float32], asked: SamplingParameters, number: int) -> object:
    return choose_ranked(logits, [CACHED_TOKENS + number], [asked], NUM_RANKED)


def step_grid(steps: Sequence[Mapping[str, Any]], choices: Mapping[str, Mapping[str, float]]) -> Grid:
    rows = []
    for step in steps:
        step_us, found = step["layers_us"] + step["head_us"], choices[str(step["vocabulary"])]
        shares = [f"{found[way] / (found[way] + step_us):.2f}" for way in WAYS]
        rows.append(
            [f"{step['vocabulary']:,}", step["variant"], f"{step['layers_us']:,.0f}", f"{step['head_us']:,.0f}", *shares]
        )
    columns = ["vocabulary", "variant", "layers, us", "head, us", *(f"{way}: share of step and choice" for way in WAYS)]
    return Grid("Measured: CPU time of a step of one row, and the choice's share", columns, rows)


def choice_grid(choices: Mapping[str, Mapping[str, float]], before: Mapping[str, Mapping[str, float]]) -> Grid:
    ways = next(iter(choices.values())).keys()
    rows = []
    for way in ways:
        cells = [f"{found[way]:,.0f}" + _earlier(before.get(size, {}).get(way)) for size, found in choices.items()]
        rows.append([way, *cells])
    return Grid("Measured: CPU us a row" + (" (before)" if before else ""), ["of", *(f"{int(n):,}" for n in choices)], rows)


def _earlier(figure: float | None) -> str:
    return "" if figure is None else f" ({figure:,.0f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--before", type=Path, metavar="FILE", help="what an earlier --json wrote, to stand beside the choices")
    arguments = parser.parse_args()
    seconds = 0.02 if arguments.quick else 0.5
    steps, choices = [], {}
    with tempfile.TemporaryDirectory() as folder:
        for size in VOCABULARIES_QUICK if arguments.quick else VOCABULARIES:
            package = package_of(Path(folder) / str(size), size)
            steps += [steps_us(package, variant, seconds) for variant in VARIANTS]
            choices[str(size)] = choices_us(size, seconds)
    before = json.loads(arguments.before.read_text("utf-8"))["choices"] if arguments.before else {}
    publish(arguments, BLOCK, [step_grid(steps, choices), choice_grid(choices, before)], {"steps": steps, "choices": choices})


if __name__ == "__main__":
    main()
