"""One tiny checkpoint's configuration and weights, and what becomes of a checkpoint."""

from __future__ import annotations

from speculation.engines.base import Chunk
from speculation.engines.convert import Conversion, convert
from speculation.engines.onnx import OnnxEngine
from speculation.engines.package import Package
from tests.speculation.engines.families import config_of, weights_of
from tests.speculation.engines.tiny import token_ids

CONFIG = config_of("llama")
WEIGHTS = weights_of(CONFIG)
VARIANTS = ("fp32", "q4", "i8")


def made(checkpoint, out, **options):
    """The package that is made of a checkpoint."""
    convert(Conversion(checkpoint, out, **options))
    return Package(out)


def logits_of(package, variant="fp32", num_tokens=40):
    """Of so many tokens, all at once."""
    engine, tokens = OnnxEngine(package, variant, num_slots=1), token_ids(num_tokens)
    return engine.extend([Chunk(engine.open(), tokens, len(tokens))])
