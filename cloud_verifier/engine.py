"""The full model that a verifier runs, made from its configuration."""

from __future__ import annotations

from dataclasses import dataclass

from cloud_verifier.config import VerifierConfig
from speculation.engines import self_test
from speculation.engines.base import Engine
from speculation.engines.onnx import OnnxEngine
from speculation.engines.package import load_pair
from speculation.engines.self_test import SelfTest
from speculation.protocol.messages import PairIdentity
from speculation.shaping import profiles
from speculation.shaping.engine import CloudCost, shape
from speculation.shaping.models import ModelDescription, parse_model

OWN_SIZE = "own"


@dataclass(frozen=True, slots=True)
class FullModel:
    """An engine, whose it is, and what its self-test proved."""

    engine: Engine
    identity: PairIdentity
    self_test: SelfTest


def build_engine(config: VerifierConfig) -> FullModel:
    """Load the pair, build the engine, prove it, and let the named cloud profile charge its time. Takes seconds.

    Raises ``PackageError`` (the pair cannot be used), ``InvalidRequestError`` (no such variant, cloud or model),
    ``CapacityError`` (the emulated model does not fit the emulated machine), ``EngineError``.
    """
    cloud = profiles.cloud(config.cloud)
    model = None if config.emulate == OWN_SIZE else parse_model(config.emulate)
    pair = load_pair(config.pair)
    engine: Engine = OnnxEngine(pair.full, config.variant, config.num_slots, config.threads)
    # The self-test proves arithmetic, which no profile changes: so it runs at this machine's own speed.
    tested = self_test.run(engine)
    engine = shape(engine, CloudCost(cloud, model or ModelDescription.of_engine(engine.description)))
    return FullModel(engine, pair.identity, tested)
