"""The full model that a verifier runs, and the draft model beside it where one is wanted, made from its configuration."""

from __future__ import annotations

from dataclasses import dataclass

from cloud_verifier.config import VerifierConfig
from speculation.engines import self_test
from speculation.engines.base import Engine
from speculation.engines.onnx import OnnxEngine
from speculation.engines.package import Pair, load_pair
from speculation.engines.self_test import SelfTest
from speculation.protocol.messages import PairIdentity
from speculation.shaping import profiles
from speculation.shaping.engine import CloudCost, shape
from speculation.shaping.models import ModelDescription, parse_model
from speculation.shaping.profiles import CloudProfile

OWN_SIZE = "own"


@dataclass(frozen=True, slots=True)
class FullModel:
    """An engine, whose it is, and what its self-test proved. ``draft`` is the engine that drafts beside it, where one does."""

    engine: Engine
    identity: PairIdentity
    self_test: SelfTest
    draft: Engine | None = None


def build_engine(config: VerifierConfig) -> FullModel:
    """Load the pair, build the engine, prove it, and let the named cloud profile charge its time. Takes seconds.

    Raises ``PackageError`` (the pair cannot be used), ``InvalidRequestError`` (no such variant, cloud or model),
    ``CapacityError`` (the emulated model does not fit the emulated machine), ``EngineError``.
    """
    cloud = profiles.cloud(config.cloud)
    model = _model(config.emulate)
    pair = load_pair(config.pair)
    engine: Engine = OnnxEngine(pair.full, config.variant, config.num_slots, config.threads)
    # The self-test proves arithmetic, which no profile changes: so it runs at this machine's own speed.
    tested = self_test.run(engine)
    draft = _build_draft(pair, cloud, config) if config.draft_length else None
    return FullModel(_shape(engine, cloud, model), pair.identity, tested, draft)


def _build_draft(pair: Pair, cloud: CloudProfile, config: VerifierConfig) -> Engine:
    """The draft's engine with a cache for each session. It needs no proof: what it says is a hint."""
    engine = OnnxEngine(pair.draft, config.draft_variant, config.num_slots, config.threads)
    return _shape(engine, cloud, _model(config.draft_emulate))


def _model(emulate: str) -> ModelDescription | None:
    return None if emulate == OWN_SIZE else parse_model(emulate)


def _shape(engine: Engine, cloud: CloudProfile, model: ModelDescription | None) -> Engine:
    return shape(engine, CloudCost(cloud, model or ModelDescription.of_engine(engine.description)))
