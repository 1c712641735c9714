"""onnxruntime-genai, on a folder that its own model builder writes.

A generator of several sessions takes tokens once only and then goes on with those that it chooses, greedily; so it decodes in
one batch (its text grows until it is filled again), and checks drafts session by session, with a generator for each.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.rivals.base import CAPACITY, Tokens, one_row_each

GROWS_BY = 16
"""Tokens that a batch may be longer than its prompt before it is filled again."""
PRECISIONS: dict[str, list[str]] = {"fp32": [], "int4": ["--extra_options", "int4_accuracy_level=4"]}


def build(checkpoint: Path, out: Path, precision: str) -> Path:
    """Run the library's model builder, and set its graph to one thread."""
    command = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-i", str(checkpoint), "-o", str(out)]
    asked = ["-p", precision, "-e", "cpu", "-c", str(out / "cache"), *PRECISIONS[precision]]
    made = subprocess.run([*command, *asked], capture_output=True, text=True, check=False)
    if made.returncode:
        raise RuntimeError(f"onnxruntime-genai's builder failed: {made.stderr.strip().splitlines()[-1:]}")
    path = out / "genai_config.json"
    config = json.loads(path.read_text("utf-8"))
    config["model"]["decoder"]["session_options"]["intra_op_num_threads"] = 1
    path.write_text(json.dumps(config), "utf-8")
    return out


class Genai:
    """Generators of one loaded model."""

    def __init__(self, folder: Path) -> None:
        import onnxruntime_genai

        self._library: Any = onnxruntime_genai
        self._model = self._library.Model(str(folder))
        self._generators: list[Any] = []
        self._batch: Any = None
        self._prompts = np.empty((0, 0), np.int64)
        self._grown = 0

    def fill(self, prompts: Tokens) -> None:
        self._prompts = prompts
        self._generators = [self._generator(row[None]) for row in prompts]

    def ready(self, tokens: Tokens) -> None:
        if self._is_batch(tokens) and (self._batch is None or self._grown >= GROWS_BY):
            self._batch, self._grown = self._generator(self._prompts[: len(tokens)]), 0
            self._batch.generate_next_token()

    def step(self, tokens: Tokens) -> NDArray[np.float32]:
        if self._is_batch(tokens):
            self._grown += 1
            self._batch.generate_next_token()
            return one_row_each(self._batch.get_output("logits"), *tokens.shape)
        return np.concatenate([self._one(generator, row) for generator, row in zip(self._generators, tokens, strict=False)])

    def rewind(self, sessions: int) -> None:
        if self._generators[0].token_count() > self._prompts.shape[1]:
            for generator in self._generators[:sessions]:
                generator.rewind_to(self._prompts.shape[1])

    @staticmethod
    def _is_batch(tokens: Tokens) -> bool:
        return len(tokens) > 1 and tokens.shape[1] == 1

    def _generator(self, prompts: Tokens) -> Any:
        options = self._library.GeneratorParams(self._model)
        options.set_search_options(max_length=CAPACITY, min_length=CAPACITY, batch_size=len(prompts), do_sample=False)
        generator = self._library.Generator(self._model, options)
        generator.append_tokens(prompts.astype(np.int32))
        return generator

    @staticmethod
    def _one(generator: Any, row: NDArray[np.int64]) -> NDArray[np.float32]:
        generator.append_tokens(row.astype(np.int32)[None])
        return one_row_each(generator.get_output("logits"), 1, len(row))
