"""The full models that a verifier runs, and the draft models beside them where wanted, made from its configuration."""

from __future__ import annotations

from dataclasses import dataclass, replace

from cloud_verifier.config import OWN_SIZE, VerifierConfig
from cloud_verifier.room import Room
from speculation.engines import self_test
from speculation.engines.base import Engine, GivesBack, Pooled, Reserves
from speculation.engines.fitted import fitted
from speculation.engines.model import ModelPair, chosen_variant
from speculation.engines.package import Pair, load_pair
from speculation.engines.pairs import models_of
from speculation.engines.remote import RemoteServer, connect
from speculation.engines.self_test import SelfTest
from speculation.engines.sharing import computes
from speculation.errors import CapacityError, ConfigurationError
from speculation.protocol.messages import PairIdentity
from speculation.shaping.engine import CloudCost, ShapedEngine
from speculation.shaping.models import ModelDescription, parse_model
from speculation.shaping.profiles import CloudProfile

FULL_VARIANT, DRAFT_VARIANT = "fp32", "q4"
"""The variants that are taken where none is named and the model has them."""


@dataclass(frozen=True, slots=True)
class FullModel:
    """An engine, whose it is, and what its self-test proved. ``draft`` is the engine that drafts beside it, where one does;
    ``room`` is what the engine's caches may take, where that is limited.

    ``previous`` is the full model of the pair before, where that is served, too; ``also`` is that pair where it has this same
    full model, and another draft: it needs no engine of its own.
    """

    engine: Engine
    identity: PairIdentity
    self_test: SelfTest
    draft: Engine | None = None
    room: Room | None = None
    previous: FullModel | None = None
    also: PairIdentity | None = None


def build_engine(config: VerifierConfig) -> FullModel:
    """Load the models, build the engine, prove it, and let the named cloud profile charge its time. Takes seconds. The same for
    the pair before, where the settings name one.

    Raises ``PackageError`` (the models cannot be used), ``InvalidRequestError`` (no such variant, cloud or model),
    ``CapacityError`` (the emulated model does not fit the emulated machine, or the model this one's memory), ``EngineError``,
    ``ConfigurationError`` (the provider is not there, or cannot run such a graph; the server that runs the full model does not
    answer as it should; the pair before is none; the caches' memory cannot be limited, or not to so little).
    """
    computes()  # the threads that a runtime starts here are like this one
    cloud = config.catalogue.cloud(config.cloud)
    pair = models_of(config.pair, config.draft, config.full)
    if config.previous_pair is None:
        return _build(pair, cloud, config)
    before = _earlier(load_pair(config.previous_pair), pair.identity)
    if before.full.digest == pair.full.digest:
        return replace(_build(pair, cloud, _changed(config, previous_pair=None)), also=before.identity)
    own, theirs = _shares(config)
    newest = _build(pair, _beside(cloud, before, config), own)
    return replace(newest, previous=_build(before, _beside(cloud, pair, config), theirs))


def _shares(config: VerifierConfig) -> tuple[VerifierConfig, VerifierConfig]:
    """The settings of the newest pair and of the one before. ``cache_bytes`` is divided by their slots: an engine's memory
    comes back before its own next pass, so what one took could not be promised to the other."""
    slots = config.previous_slots or config.num_slots
    theirs = _changed(config, num_slots=slots)
    if config.cache_bytes is None:
        return config, theirs
    share_bytes = config.cache_bytes * slots // (config.num_slots + slots)
    return _changed(config, cache_bytes=config.cache_bytes - share_bytes), _changed(theirs, cache_bytes=share_bytes)


def _changed(config: VerifierConfig, **changes: object) -> VerifierConfig:
    return config.model_copy(update=changes)


def _earlier(before: Pair, newest: PairIdentity) -> Pair:
    """Raises ``ConfigurationError`` for a pair that does not count as earlier than the newest."""
    if not before.version < newest.version:
        raise ConfigurationError(
            f"previous_pair: {before.name} has version {before.version}, the newest pair {newest.version or 'none'}; "
            "the one before has a lower one"
        )
    return before


def _beside(cloud: CloudProfile, other: ModelPair, config: VerifierConfig) -> CloudProfile:
    """The machine without what another full model's weights take of its memory. Raises ``CapacityError``."""
    model = _model(config.emulate)
    own_bytes = other.full.weight_bytes(chosen_variant(other.full, config.variant, FULL_VARIANT, provider=config.provider))
    left_bytes = cloud.memory_bytes - (own_bytes if model is None else model.weight_bytes) / cloud.num_devices
    if left_bytes <= 0:
        raise CapacityError(f"{cloud.name} has no room for two full models of {config.emulate}: leave out previous_pair")
    return replace(cloud, memory_bytes=left_bytes)


def _build(pair: ModelPair, cloud: CloudProfile, config: VerifierConfig) -> FullModel:
    """One pair's full model, and its draft where that is wanted here."""
    model = _model(config.emulate)
    engine = _build_full(pair, config)
    room = _room(engine, config)
    if room is None and isinstance(engine, Reserves):
        # Who limits the memory of caches wants it taken as it is needed.
        engine.reserve(config.max_rows)
    # The self-test proves arithmetic, which no profile changes: so it runs at this machine's own speed.
    tested = self_test.make_exact(engine)
    draft = _build_draft(pair, cloud, config) if config.draft_length else None
    return FullModel(_shape(engine, cloud, model), pair.identity, tested, draft, room)


def _build_full(pair: ModelPair, config: VerifierConfig) -> Engine:
    """The full model's engine: a graph of its folder, or a server that has it."""
    if config.full_url is None:
        variant = chosen_variant(pair.full, config.variant, FULL_VARIANT, provider=config.provider)
        return pair.full.engine(variant, config.num_slots, config.threads, config.provider)
    key = None if config.full_api_key is None else config.full_api_key.get_secret_value()
    server = RemoteServer(
        config.full_url, config.full_route, config.full_model, config.full_logprobs, config.full_timeout_s, key
    )
    return connect(pair.full, server, config.num_slots)


def _room(engine: Engine, config: VerifierConfig) -> Room | None:
    """What caches may take, where that is limited, by the settings or by the engine's own pool.

    Before the self-test, which then proves caches whose memory was given back, too."""
    limit_bytes, context_length = config.cache_bytes, engine.description.context_length
    if isinstance(engine, Pooled):
        pool_bytes = engine.pool_bytes if limit_bytes is None else min(limit_bytes, engine.pool_bytes)
        return Room(pool_bytes, context_length, engine.cache_bytes)
    if limit_bytes is None:
        return None
    share = f", the share of {engine.description.name} (slots: {config.num_slots}),"
    if not isinstance(engine, GivesBack):
        raise ConfigurationError(
            f"cache_bytes: {engine.description.name} does not give memory back; leave it out, set num_slots"
        )
    engine.give_back_memory()
    return Room(limit_bytes, context_length, engine.cache_bytes, share if config.previous_pair else "")


def _build_draft(pair: ModelPair, cloud: CloudProfile, config: VerifierConfig) -> Engine:
    """The draft's engine with a cache for each session. It needs no proof: what it says is a hint."""
    variant = chosen_variant(pair.draft, config.draft_variant, DRAFT_VARIANT, provider=config.provider)
    draft = pair.draft.engine(variant, config.num_slots, config.threads, config.provider)
    engine = fitted(draft, pair.full.vocabulary_size)
    return _shape(engine, cloud, _model(config.draft_emulate))


def _model(emulate: str) -> ModelDescription | None:
    return None if emulate == OWN_SIZE else parse_model(emulate)


def _shape(engine: Engine, cloud: CloudProfile, model: ModelDescription | None) -> Engine:
    """Decorated also where no machine is played, so that one can be later."""
    return ShapedEngine(engine, CloudCost(cloud, model or ModelDescription.of_engine(engine.description)))
