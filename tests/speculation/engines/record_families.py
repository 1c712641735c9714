"""Records the logits that the `transformers` library gives for the tiny checkpoints of `families.py`.

`python -m tests.speculation.engines.record_families` writes `families.safetensors` (needs torch and transformers).
"""

import tempfile
from importlib import metadata
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from tests.speculation.engines.families import FAMILIES, config_of, digest_of, weights_of, write_checkpoint
from tests.speculation.engines.tiny import token_ids

RECORDED = Path(__file__).with_name("families.safetensors")
TOKENS = token_ids(90)
ROWS = (0, 1, 7, 8, 12, 13, 20, 21, 45, 64, 65, 89)
"""Around the ends of the families' windows, and far behind them."""


def logits_by_transformers(path, saved=None, tokens=TOKENS):
    """Logits [tokens, vocabulary] of a checkpoint's folder, in float32, by the plainest of its attentions.

    ``saved`` is a folder that the library writes the checkpoint to again, as it writes its own.
    """
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    options = {"dtype": torch.float32, "attn_implementation": "eager", "local_files_only": True}
    model, found = AutoModelForCausalLM.from_pretrained(path, output_loading_info=True, **options)
    assert not any(found[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), found
    if saved:
        model.save_pretrained(saved, max_shard_size="100KB")
    with torch.no_grad():
        return model(torch.tensor([tokens])).logits[0].numpy()


def main():
    logits, digests = {}, {}
    for family in FAMILIES:
        config = config_of(family)
        weights = weights_of(config)
        with tempfile.TemporaryDirectory() as folder:
            write_checkpoint(Path(folder), config, weights)
            logits[family] = np.ascontiguousarray(logits_by_transformers(Path(folder))[list(ROWS)])
        digests[family] = digest_of(weights)
    versions = {name: metadata.version(name) for name in ("torch", "transformers")}
    save_file(logits, RECORDED, metadata={**versions, **digests})
    print(f"{RECORDED.name}: {RECORDED.stat().st_size} bytes, {versions}")


if __name__ == "__main__":
    main()
