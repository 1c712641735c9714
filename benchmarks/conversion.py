"""How much memory the conversion of a checkpoint takes, beside the checkpoint's size and its largest weight.

    python -m benchmarks.conversion [--quick] [--json FILE] [--fill PAGE]

Checkpoints are random, in bfloat16, with many layers. Each conversion is a process of its own; its peak is what the system held
for it at most, less what it held once everything was imported.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import resource
import struct
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, models

from benchmarks.report import Grid, add_arguments, publish
from speculation.engines.convert import Conversion, convert

MIB = 1 << 20
VARIANTS = ("fp32", "q4", "i8")
STATUS, HIGH_WATER = Path("/proc/self/status"), "VmHWM:"
VOCABULARY = 8192
SIZES: Mapping[str, Mapping[str, int]] = {
    "tiny": {"num_hidden_layers": 4, "hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 2},
    "16 layers": {"num_hidden_layers": 16, "hidden_size": 384, "intermediate_size": 1024, "num_attention_heads": 6},
    "30 layers": {"num_hidden_layers": 30, "hidden_size": 576, "intermediate_size": 1536, "num_attention_heads": 9},
}
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


def cells(row: Mapping[str, object]) -> list[str]:
    """Numbers as a page shows them."""
    return [f"{value:.1f}" if isinstance(value, float) else str(value) for value in row.values()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    arguments = parser.parse_args()
    sizes = ["tiny"] if arguments.quick else [size for size in SIZES if size != "tiny"]
    rows = [row for size in sizes for row in measured(size)]
    publish(
        arguments, "conversion", [Grid("Measured: one conversion, one process", COLUMNS, [cells(row) for row in rows])], rows
    )


if __name__ == "__main__":
    main()
