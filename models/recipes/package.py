"""Turn two trained checkpoints into a pair of packages: float16 weights, and ONNX graphs built from those rounded weights.

A half that was not trained again comes from its released package, with its weights and its provenance as they are.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from tokenizers import Tokenizer

from models.recipes.corpus import END_OF_TEXT
from models.recipes.shapes import SHAPES
from outrider.training.network import Shape
from speculation.engines.manifest import MANIFEST, WEIGHTS
from speculation.engines.package import load_pair
from speculation.engines.package_writer import PackageSource, write_pair

LICENCE = "Apache-2.0"
CHAT_TEMPLATE = '{{ messages | map(attribute="content") | join("\\n\\n") }}\n'
"""The pair completes documentation and has never seen a conversation: what was said reads as paragraphs, which it knows."""
VARIANTS = {"draft": ("fp32", "q4"), "full": ("fp32",)}


def weights_of(trained: Path) -> dict[str, NDArray[Any]]:
    """The weights of a checkpoint, or of a released package, in float32, by name."""
    if trained.is_dir():
        state = load_file(trained / WEIGHTS)
    else:
        state = torch.load(trained, map_location="cpu", weights_only=True)["model"]
    return {name: values.float().numpy() for name, values in state.items()}


def shape_of(weights: dict[str, NDArray[Any]]) -> Shape:
    """The known shape that fits the weights."""
    vocabulary_size, hidden_size = weights["model.embed_tokens.weight"].shape
    layers = len({name.split(".")[2] for name in weights if name.startswith("model.layers.")})
    for shape in SHAPES.values():
        if (shape.vocab_size, shape.hidden_size, shape.num_hidden_layers) == (vocabulary_size, hidden_size, layers):
            return shape
    raise SystemExit(f"no shape has {layers} layers of width {hidden_size}; known: {', '.join(SHAPES)}")


def training_of(checkpoint: Path) -> str:
    """How long a checkpoint was trained, in a phrase."""
    progress = torch.load(checkpoint, weights_only=True, map_location="cpu")["progress"]
    trained = f"trained on {progress['tokens'] / 1e6:.1f} M tokens in {progress['seconds'] / 60:.0f} minutes"
    began_from = progress.get("began_from")
    return f"{trained} behind an earlier release ({began_from})" if began_from else trained


def provenance_of(trained: Path, provenance: str, corpus_sha256: str) -> str:
    """How the weights were made; a released package says so itself."""
    if trained.is_dir():
        return str(json.loads((trained / MANIFEST).read_text("utf-8"))["provenance"])
    return "; ".join(filter(None, (training_of(trained), provenance, f"corpus sha256 {corpus_sha256}")))


def source(half: str, trained: Path, corpus: Path, provenance: str) -> PackageSource:
    """One half of the pair, named after the corpus's own end token."""
    tokenizer = (corpus / "tokenizer.json").read_bytes()
    end_token_id = Tokenizer.from_buffer(tokenizer).token_to_id(END_OF_TEXT)
    weights = weights_of(trained)
    facts = json.loads((corpus / "corpus.json").read_text("utf-8"))
    return PackageSource(
        name=f"pydoc-{half}",
        config=shape_of(weights).to_config(end_token_id),
        weights=weights,
        tokenizer=tokenizer,
        end_token_ids=(end_token_id,),
        licence=LICENCE,
        provenance=provenance_of(trained, provenance, facts["sha256"]),
        variants=VARIANTS[half],
        chat_template=CHAT_TEMPLATE,
    )


def package(arguments: argparse.Namespace) -> None:
    """Write beside the target first, so that a failure leaves the old pair whole."""
    prompts = json.loads((arguments.corpus / "prompts.json").read_text("utf-8"))
    halves = [source(half, getattr(arguments, half), arguments.corpus, arguments.provenance) for half in ("draft", "full")]
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=arguments.out.parent) as name:
        made = Path(name) / "pair"
        write_pair(made, "pydoc", arguments.version, *halves, prompts)
        load_pair(made)
        if arguments.out.exists():
            shutil.rmtree(arguments.out)
        made.rename(arguments.out)
    identity = load_pair(arguments.out).identity
    size = sum(path.stat().st_size for path in arguments.out.rglob("*") if path.is_file())
    print(f"{arguments.out}: version {arguments.version}, {size / 1e6:.1f} MB, pair digest {identity.pair_digest}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", type=Path, required=True, help="checkpoint of the full model, or its released package")
    parser.add_argument("--draft", type=Path, required=True, help="checkpoint of the draft, or its released package")
    parser.add_argument("--corpus", type=Path, required=True, help="folder that models.recipes.corpus wrote")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--version", type=int, required=True, help="counts the pair's releases")
    parser.add_argument("--provenance", default="", help="how the weights were made, in a sentence")
    package(parser.parse_args())


if __name__ == "__main__":
    main()
