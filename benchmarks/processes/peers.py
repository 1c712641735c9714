"""What other engines decode on the same weights, for the capacity benchmark: so many sessions as one batch, one thread each.

    python -m benchmarks.processes.peers ENGINE CHECKPOINT --counts N... [--steps N] [--device cuda]

``transformers`` is its own ``generate``. ``llama.cpp`` is its C interface, a step for all sessions after the other, without the
server around it: nothing is asked over a network, so this is more than its server could give. Prints one line of JSON a count.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.rivals.base import CAPACITY, Tokens
from benchmarks.rivals.llama import LlamaCpp, write_gguf

PROMPT_LENGTH = 64
NUM_STEPS = 64


def prompts_of(count: int, vocabulary_size: int) -> Tokens:
    return np.random.default_rng(1).integers(1, vocabulary_size, (count, PROMPT_LENGTH))


def generating(checkpoint: Path, device: str = "cpu") -> Callable[[Tokens, int], float]:
    """Seconds that ``generate`` takes for so many tokens a session, prompts included; in float32 on the CPU, elsewhere in the
    type that the weights have. Imports ``torch``."""
    import torch
    import transformers

    torch.set_num_threads(1)
    transformers.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()
    library: Any = transformers
    dtype = torch.float32 if device == "cpu" else "auto"
    model: Any = library.AutoModelForCausalLM.from_pretrained(checkpoint, dtype=dtype).to(device).eval()

    def run(prompts: Tokens, num_steps: int) -> float:
        began_s = time.perf_counter()
        given = torch.from_numpy(prompts).to(device)
        mask = torch.ones_like(given)
        model.generate(given, attention_mask=mask, max_new_tokens=num_steps, min_new_tokens=num_steps, do_sample=False)
        return time.perf_counter() - began_s

    return run


def stepping(checkpoint: Path, device: str = "cpu") -> Callable[[Tokens, int], float]:
    """Seconds of so many steps of llama.cpp over all sessions, behind their prompts, each with a greedy choice; on the CPU."""
    assert device == "cpu"
    with tempfile.TemporaryDirectory() as folder:
        config = json.loads((checkpoint / "config.json").read_text("utf-8"))
        rival = LlamaCpp(write_gguf(Path(folder) / "model.gguf", config, weights(checkpoint)))

    def run(prompts: Tokens, num_steps: int) -> float:
        rival.fill(prompts)
        tokens = prompts[:, :1].copy()
        rival.ready(tokens)
        began_s = time.perf_counter()
        for _ in range(num_steps):
            # Behind the prompt each time: as many tokens are attended to as half of a growing answer.
            rival.step(tokens).argmax(axis=1)
            rival.rewind(len(tokens))
        return time.perf_counter() - began_s

    return run


def weights(checkpoint: Path) -> dict[str, Any]:
    """A checkpoint's weights, in float32."""
    from safetensors.numpy import load_file

    return {name: value.astype(np.float32) for name, value in load_file(checkpoint / "model.safetensors").items()}


ENGINES = {"transformers": generating, "llama.cpp": stepping}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engine", choices=ENGINES)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--counts", type=int, nargs="+", required=True)
    parser.add_argument("--steps", type=int, default=NUM_STEPS)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    given = parser.parse_args()
    assert PROMPT_LENGTH + given.steps <= CAPACITY
    vocabulary_size = json.loads((given.checkpoint / "config.json").read_text("utf-8"))["vocab_size"]
    run = ENGINES[given.engine](given.checkpoint, given.device)
    for count in given.counts:
        prompts = prompts_of(count, vocabulary_size)
        run(prompts, 2)
        print(json.dumps({"count": count, "tokens_per_s": count * given.steps / run(prompts, given.steps)}), flush=True)


if __name__ == "__main__":
    main()
