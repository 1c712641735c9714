"""How much memory the conversion of a checkpoint takes, beside the checkpoint's size and its largest weight.

    python -m benchmarks.conversion [--quick] [--billion] [--json FILE] [--fill PAGE]

Checkpoints are random, in bfloat16, with many layers. Each conversion is a process of its own; its peak is what the system held
for it at most, less what it held once everything was imported. ``--billion`` converts and quantises a checkpoint of a billion
parameters instead (some minutes, 5 GB of disk), and serves it as the full model of a pair whose draft is tiny: both services in
one process, self-test included.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import multiprocessing
import resource
import struct
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, models

from benchmarks.report import Grid, add_arguments, publish
from device_agent.events import DoneEvent
from outrider.client import Client
from outrider.local import Emulation, Models, local_agent
from speculation.engines.convert import Conversion, convert

BLOCK = "conversion"
MIB = 1 << 20
VARIANTS = ("fp32", "q4", "i8")
STATUS, HIGH_WATER = Path("/proc/self/status"), "VmHWM:"
VOCABULARY = 8192
SIZES: Mapping[str, Mapping[str, int]] = {
    "tiny": {"num_hidden_layers": 4, "hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 2},
    "16 layers": {"num_hidden_layers": 16, "hidden_size": 384, "intermediate_size": 1024, "num_attention_heads": 6},
    "30 layers": {"num_hidden_layers": 30, "hidden_size": 576, "intermediate_size": 1536, "num_attention_heads": 9},
    "a billion": {"num_hidden_layers": 16, "hidden_size": 2048, "intermediate_size": 8192, "num_attention_heads": 32},
}
TINY, BILLION, SERVED_VARIANT, SERVED_TOKENS = "tiny", "a billion", "q4", 16
SERVED_TIMEOUT_S = 600.0
COMMON = {
    "model_type": "llama",
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-5,
    "eos_token_id": 0,
}
COLUMNS = [
    "model",
    "variant",
    "parameters, millions",
    "checkpoint, MiB",
    "largest weight in float32, MiB",
    "peak, MiB",
    "seconds",
]


def shapes_of(config: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every weight of a Llama with one key-value head for each query head."""
    width, inner, shapes = config["hidden_size"], config["intermediate_size"], dict[str, tuple[int, ...]]()
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}"
        shapes |= {f"{prefix}.self_attn.{name}_proj.weight": (width, width) for name in "qkvo"}
        shapes |= {f"{prefix}.mlp.{name}_proj.weight": (inner, width) for name in ("gate", "up")}
        shapes[f"{prefix}.mlp.down_proj.weight"] = (width, inner)
        shapes |= {f"{prefix}.{name}_layernorm.weight": (width,) for name in ("input", "post_attention")}
    ends = dict.fromkeys(("model.embed_tokens.weight", "lm_head.weight"), (VOCABULARY, width))
    return {**shapes, **ends, "model.norm.weight": (width,)}


def write_checkpoint(path: Path, size: str) -> dict[str, float]:
    """A random checkpoint in a new folder, and what is to be said of it."""
    config, random = {**SIZES[size]}, np.random.default_rng(0)
    shapes, header, end = shapes_of(config), dict[str, object](), 0
    for name, shape in shapes.items():
        begin, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    path.mkdir()
    (path / "config.json").write_text(json.dumps({**COMMON, **config}))
    (path / "tokenizer.json").write_text(Tokenizer(models.BPE(vocab={"a": 0}, merges=[])).to_str())
    with (path / "model.safetensors").open("wb") as file:
        content = json.dumps(header).encode()
        file.write(struct.pack("<Q", len(content)) + content)
        for shape in shapes.values():
            values = random.standard_normal(math.prod(shape), np.float32) * np.float32(0.02)
            file.write((values.view(np.uint32) >> 16).astype("<u2").data)
    largest = max(4 * math.prod(shape) for shape in shapes.values())
    return {"parameters_millions": end / 2e6, "checkpoint_mib": end / MIB, "largest_weight_mib": largest / MIB}


def peak_bytes() -> int:
    """The most that this process held. ``ru_maxrss`` may be that of the process it was forked from, so Linux is asked first."""
    if STATUS.exists():
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith(HIGH_WATER))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def converted(checkpoint: Path, variant: str, out: Path) -> dict[str, float]:
    """Peak and time of one conversion in this process."""
    before, began = peak_bytes(), time.monotonic()
    convert(Conversion(checkpoint, out, (variant,)))
    return {"peak_mib": (peak_bytes() - before) / MIB, "seconds": time.monotonic() - began}


def measured(size: str) -> list[dict[str, object]]:
    """One row a variant, each from a fresh process."""
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "checkpoint"
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, spawn, max_tasks_per_child=1) as fresh:
            said = fresh.submit(write_checkpoint, checkpoint, size).result()
            for variant in VARIANTS:
                found = fresh.submit(converted, checkpoint, variant, Path(folder) / variant).result()
                rows.append({"model": size, "variant": variant, **said, **found})
    return rows


def billion() -> list[dict[str, object]]:
    """The conversion to 4 bits, then the service, each in a fresh process."""
    with tempfile.TemporaryDirectory() as name:
        folder, spawn = Path(name), multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, spawn, max_tasks_per_child=1) as fresh:
            said = {}
            for size in (TINY, BILLION):
                said[size] = fresh.submit(write_checkpoint, folder / f"{size} checkpoint", size).result()
            fresh.submit(converted, folder / f"{TINY} checkpoint", "fp32", folder / TINY).result()
            made = fresh.submit(converted, folder / f"{BILLION} checkpoint", SERVED_VARIANT, folder / BILLION).result()
            (folder / f"{BILLION} checkpoint" / "model.safetensors").unlink()
            answered = fresh.submit(served, folder / TINY, folder / BILLION).result()
    steps = {"convert": made, f"serve {SERVED_TOKENS} tokens": answered}
    return [
        {"model": f"{BILLION}, {step}", "variant": SERVED_VARIANT, **said[BILLION], **found} for step, found in steps.items()
    ]


def served(draft: Path, full: Path) -> dict[str, float]:
    """Peak and time of both services in this process, from their start to the end of an answer."""
    before, began = peak_bytes(), time.monotonic()
    asyncio.run(_answered(Models(draft, full, "fp32", SERVED_VARIANT)))
    return {"peak_mib": (peak_bytes() - before) / MIB, "seconds": time.monotonic() - began}


async def _answered(models: Models) -> None:
    async with local_agent(Emulation(), models) as url, Client(url, timeout_s=SERVED_TIMEOUT_S) as client:
        events = [event async for event in client.stream("a" * 8, max_tokens=SERVED_TOKENS)]
    done = events[-1]
    if not isinstance(done, DoneEvent) or done.verified_count != len(done.token_ids):
        raise RuntimeError(f"the answer was not verified to its end: {done}")


def cells(row: Mapping[str, object]) -> list[str]:
    """Numbers as a page shows them."""
    return [f"{value:.1f}" if isinstance(value, float) else str(value) for value in row.values()]


def grid(rows: Sequence[Mapping[str, object]]) -> Grid:
    return Grid("Measured: one conversion, one process", COLUMNS, [cells(row) for row in rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--billion", action="store_true", help="a billion parameters: convert, quantise, serve")
    arguments = parser.parse_args()
    sizes = [TINY] if arguments.quick else [size for size in SIZES if size not in (TINY, BILLION)]
    rows = billion() if arguments.billion else [row for size in sizes for row in measured(size)]
    block = f"{BLOCK}-billion" if arguments.billion else BLOCK
    publish(arguments, block, [grid(rows)], rows)


if __name__ == "__main__":
    main()
