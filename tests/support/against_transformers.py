"""Compares exports with their checkpoint: ``python -m tests.support.against_transformers CHECKPOINT EXPORT ...``.

Needs ``transformers`` and ``torch``, which nothing else here does. For every graph of every export: the largest difference from
the checkpoint's logits in float32, how often the likeliest token is the same, the way it is run, and what the self-test says.
"""

import sys
from pathlib import Path

import numpy as np

from speculation.engines import self_test
from speculation.engines.base import Chunk
from speculation.engines.pairs import load_model

NUM_TOKENS = 60


def checkpoint_logits(path, token_ids):
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    with torch.no_grad():
        return model(torch.tensor([token_ids])).logits[0].numpy()


def compare(checkpoint, exports):
    token_ids = [int(t) for t in np.random.default_rng(1).integers(0, load_model(exports[0]).vocabulary_size, NUM_TOKENS)]
    wanted = checkpoint_logits(checkpoint, token_ids)
    print(f"logits of {checkpoint.name}: standard deviation {wanted.std():.2f}")
    for model in map(load_model, exports):
        for variant in model.variants:
            engine = model.engine(variant, 4, 1)
            cache = engine.open()
            found = engine.extend([Chunk(cache, token_ids, NUM_TOKENS)])
            engine.close(cache)
            same = (found.argmax(axis=1) == wanted.argmax(axis=1)).mean()
            difference = np.abs(found - wanted).max()
            claims = [found.is_exact for found in (self_test.run(engine), self_test.make_exact(engine))]
            said = f"{type(engine).__name__}, exact {claims[0]}, in the end {claims[1]}"
            print(f"{model.name}:{variant}: difference {difference:.2g}, likeliest token the same {same:.0%}, {said}")


if __name__ == "__main__":
    compare(Path(sys.argv[1]), [Path(argument) for argument in sys.argv[2:]])
