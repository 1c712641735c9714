"""The full model that a verifier runs, and the draft model beside it where one is wanted, made from its configuration."""

from __future__ import annotations

from dataclasses import dataclass

from cloud_verifier.config import OWN_SIZE, VerifierConfig
from cloud_verifier.room import Room
from speculation.engines import self_test
from speculation.engines.base import Engine, GivesBack
from speculation.engines.fitted import fitted
from speculation.engines.model import ModelPair, chosen_variant
from speculation.engines.pairs import models_of
from speculation.engines.remote import RemoteServer, connect
from speculation.engines.self_test import SelfTest
from speculation.errors import ConfigurationError
from speculation.protocol.messages import PairIdentity
from speculation.shaping.engine import CloudCost, shape
from speculation.shaping.models import ModelDescription, parse_model
from speculation.shaping.profiles import CloudProfile

FULL_VARIANT, DRAFT_VARIANT = "fp32", "q4"
"""The variants that are taken where none is named and the model has them."""


@dataclass(frozen=True, slots=True)
class FullModel:
    """An engine, whose it is, and what its self-test proved. ``draft`` is the engine that drafts beside it, where one does;
    ``room`` is what the engine's caches may take, where that is limited."""

    engine: Engine
    identity: PairIdentity
    self_test: SelfTest
    draft: Engine | None = None
    room: Room | None = None


def build_engine(config: VerifierConfig) -> FullModel:
    """Load the models, build the engine, prove it, and let the named cloud profile charge its time. Takes seconds.

    Raises ``PackageError`` (the models cannot be used), ``InvalidRequestError`` (no such variant, cloud or model),
    ``CapacityError`` (the emulated model does not fit the emulated machine, or the model this one's memory), ``EngineError``,
    ``ConfigurationError`` (the provider is not there, or cannot run such a graph; the server that runs the full model does not
    answer as it should; the caches' memory cannot be limited, or not to so little).
    """
    cloud = config.catalogue.cloud(config.cloud)
    model = _model(config.emulate)
    pair = models_of(config.pair, config.draft, config.full)
    engine = _build_full(pair, config)
    room = None if config.cache_bytes is None else _room(engine, config.cache_bytes)
    # The self-test proves arithmetic, which no profile changes: so it runs at this machine's own speed.
    tested = self_test.make_exact(engine)
    draft = _build_draft(pair, cloud, config) if config.draft_length else None
    return FullModel(_shape(engine, cloud, model), pair.identity, tested, draft, room)


def _build_full(pair: ModelPair, config: VerifierConfig) -> Engine:
    """The full model's engine: a graph of its folder, or a server that has it."""
    if config.full_url is None:
        variant = chosen_variant(pair.full, config.variant, FULL_VARIANT)
        return pair.full.engine(variant, config.num_slots, config.threads, config.provider)
    key = None if config.full_api_key is None else config.full_api_key.get_secret_value()
    server = RemoteServer(
        config.full_url, config.full_route, config.full_model, config.full_logprobs, config.full_timeout_s, key
    )
    return connect(pair.full, server, config.num_slots)


def _room(engine: Engine, limit_bytes: int) -> Room:
    """Before the self-test, which then proves caches whose memory was given back, too."""
    if not isinstance(engine, GivesBack):
        raise ConfigurationError(
            f"cache_bytes: {engine.description.name} does not give memory back; leave it out, set num_slots"
        )
    engine.give_back_memory()
    return Room(limit_bytes, engine.description.context_length, engine.cache_bytes)


def _build_draft(pair: ModelPair, cloud: CloudProfile, config: VerifierConfig) -> Engine:
    """The draft's engine with a cache for each session. It needs no proof: what it says is a hint."""
    variant = chosen_variant(pair.draft, config.draft_variant, DRAFT_VARIANT)
    draft = pair.draft.engine(variant, config.num_slots, config.threads, config.provider)
    engine = fitted(draft, pair.full.vocabulary_size)
    return _shape(engine, cloud, _model(config.draft_emulate))


def _model(emulate: str) -> ModelDescription | None:
    return None if emulate == OWN_SIZE else parse_model(emulate)


def _shape(engine: Engine, cloud: CloudProfile, model: ModelDescription | None) -> Engine:
    return shape(engine, CloudCost(cloud, model or ModelDescription.of_engine(engine.description)))
