"""The agent from its configuration: the models from disk, its engine, its way to the verifier, and what is emulated of both."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from device_agent.agent import DeviceAgent
from device_agent.config import AgentConfig, GenerationSource
from device_agent.emulation.live import LiveEmulation, VerifierControls
from device_agent.pair import PairFacts
from device_agent.retrieval.applying import Retrieval
from device_agent.room import places
from device_agent.routing.policy import RoutingPolicy
from speculation.engines.base import Engine
from speculation.engines.blended import blended
from speculation.engines.fitted import fitted
from speculation.engines.lookup import LookupEngine
from speculation.engines.model import Model, ModelPair, chosen_variant
from speculation.engines.pairs import models_of
from speculation.engines.random import RandomEngine
from speculation.engines.runner import EngineRunner
from speculation.links.base import Connector
from speculation.links.covered import CoveredConnector
from speculation.links.grpc import GrpcConnector
from speculation.links.multi import MultiConnector
from speculation.links.resolvers import resolver_of
from speculation.links.targets import LIST, parse_verifiers
from speculation.listening import is_loopback
from speculation.parameters import NO_DEFAULTS, GenerationDefaults
from speculation.shaping.engine import PhoneCost, ShapedEngine
from speculation.shaping.link import ShapedConnector
from speculation.shaping.models import parse_model
from speculation.shaping.os_load import loaded, os_load
from speculation.telemetry.otel import tracer_to
from speculation.text import token_bytes

_log = logging.getLogger(__name__)

RANDOM, LOOKUP = "random", "lookup"
DRAFT_VARIANT = "q4"
"""The variant that is taken where none is named and the draft has it."""


def build_agent(
    config: AgentConfig, verifier: VerifierControls | None = None, routing: RoutingPolicy | None = None
) -> DeviceAgent:
    """An agent that is ready to be entered. Loads models: takes seconds, and belongs on a thread. ``routing`` decides in mode
    ``auto``, in place of the settings' thresholds.

    ``verifier`` is a handle on the one that it calls, where that runs in this process. Engine and network are decorated also
    where nothing is emulated, so that something can be later.

    Raises ``PackageError`` (the models cannot be used), ``UnknownNameError`` (variant), ``CapacityError`` (the emulated model
    does not fit the phone), ``EngineError``, ``ConfigurationError`` (the provider is not there, or cannot run such a graph; or
    traces are wanted without their extra).
    """
    documents = (
        None if config.rag_store is None else Retrieval.of(config.rag_store, config.rag_model, config.rag_drafts_may_leave)
    )
    pair = models_of(config.pair, config.draft, config.full)
    cost = PhoneCost(config.catalogue.phone(config.phone), parse_model(config.emulate))
    config = with_places(config, pair.draft, cost)
    drafting = fitted(draft_engine(pair.draft, config), pair.full.vocabulary_size)
    engine = ShapedEngine(drafting, cost, config.heat, config.when_full)
    context, whole = engine.description.context_length, drafting.description.context_length
    if context < whole:
        _log.warning(
            "%s has room for %d tokens of %s in each slot: drafts end there, not at %d",
            config.phone,
            context,
            config.emulate,
            whole,
        )
    on_phone = loaded(engine, os_load(config.os_load), config.os_load_seed)
    runner: EngineRunner[Engine] = EngineRunner.on_own_thread(on_phone, "draft-model")
    facts = replace(facts_of(pair, engine), defaults=defaults_of(pair.full, config))
    radio = radio_of(config)
    connector = None if radio is None else CoveredConnector(radio, config.cover)
    tracer = tracer_to(config.otlp_endpoint, "outrider-agent")
    emulation = LiveEmulation(config, engine, radio, verifier)
    return DeviceAgent(facts, runner, connector, config, tracer, emulation, routing, documents)


def defaults_of(full: Model, config: AgentConfig) -> GenerationDefaults:
    """What a request gets that does not say. The log tells once what the model suggests besides. Raises ``PackageError``."""
    if config.generation_defaults is GenerationSource.NONE:
        return NO_DEFAULTS
    defaults = full.generation_defaults
    if defaults.unused:
        _log.warning("%s suggests what is not implemented and not applied: %s", full.name, ", ".join(defaults.unused))
    return defaults


def with_places(config: AgentConfig, draft: Model, cost: PhoneCost) -> AgentConfig:
    """The same with as many streams as the draft's caches leave room for, where ``max_streams`` is left open.

    Raises ``UnknownNameError`` (variant), ``PackageError`` (its graph).
    """
    if config.max_streams is not None:
        return config
    variant = _variant(draft, config)
    kv_bytes_per_token = 0 if variant in (RANDOM, LOOKUP) else draft.kv_bytes_per_token(variant)
    tokens_per_answer = config.policy().width * draft.context_length
    return config.model_copy(update={"max_streams": places(kv_bytes_per_token, tokens_per_answer, cost)})


def draft_engine(draft: Model, config: AgentConfig) -> Engine:
    """The draft's engine with a cache for each branch of each stream. ``random`` knows the vocabulary and nothing else,
    ``lookup`` the text.

    Raises ``UnknownNameError`` for a variant that is neither a graph of the model nor one of these.
    """
    variant = _variant(draft, config)
    num_slots = config.num_places * config.policy().width
    if variant == RANDOM:
        return RandomEngine(draft.vocabulary_size, draft.context_length, seed=0, num_slots=num_slots)
    if variant == LOOKUP:
        return LookupEngine(draft.vocabulary_size, draft.context_length, num_slots)
    return blended(draft.engine(variant, num_slots, config.threads, config.provider), config.draft_lookup)


def _variant(draft: Model, config: AgentConfig) -> str:
    return chosen_variant(draft, config.variant, DRAFT_VARIANT, RANDOM, LOOKUP, provider=config.provider)


def connector_of(config: AgentConfig) -> Connector | None:
    """The way to the verifier, or to several, under its cover; None for a device that is always alone."""
    radio = radio_of(config)
    return None if radio is None else CoveredConnector(radio, config.cover)


def radio_of(config: AgentConfig) -> ShapedConnector | None:
    """That way without its cover, behind whatever network is emulated."""
    if config.verifier is None:
        return None
    way = _way_to(config.verifier, config)
    return ShapedConnector(way, config.catalogue.network(config.network), config.network_seed)


def _way_to(verifier: str, config: AgentConfig) -> Connector:
    key, tls, verifiers = config.own_key(), config.verifier_tls, parse_verifiers(verifier)
    if key is not None and tls is None and not all(map(is_loopback, verifiers.hosts)):
        _log.warning("the key for %s crosses the network in plain text: set verifier_ca", verifier)

    def connect_to(target: str) -> Connector:
        return GrpcConnector(target, config.connect_timeout_s, key, tls)

    is_one = len(verifiers.targets) == 1 and verifiers.kind == LIST
    return connect_to(verifier) if is_one else MultiConnector(resolver_of(verifiers, key, tls), connect_to)


def facts_of(pair: ModelPair, engine: Engine) -> PairFacts:
    """What the agent needs to know of a pair whose draft runs on ``engine``."""
    tokenizer = pair.full.tokenizer

    def encode(text: str) -> Sequence[int]:
        ids: Sequence[int] = tokenizer.encode(text).ids
        return ids

    def decode(token_ids: list[int]) -> str:
        text: str = tokenizer.decode(token_ids)
        return text

    return PairFacts(
        draft=engine.description.name,
        full=pair.full.name,
        identity=pair.identity,
        encode=encode,
        decode=token_bytes(tokenizer.to_str()) or decode,
        end_token_ids=pair.full.end_token_ids,
        context_length=pair.full.context_length,
        draft_context_length=engine.description.context_length,
        chat=_chat(pair.full),
        vocabulary_size=pair.full.vocabulary_size,
        examples=pair.prompts,
        names={number: token.content for number, token in tokenizer.get_added_tokens_decoder().items() if token.special},
    )


def _chat(full: Model) -> Callable[[Sequence[Mapping[str, str]]], Sequence[int]] | None:
    """The token ids of a conversation; None where the model has no template. The template spells special tokens itself."""
    template = full.chat_template
    if template is None:
        return None

    def token_ids(messages: Sequence[Mapping[str, str]]) -> Sequence[int]:
        ids: Sequence[int] = full.tokenizer.encode(template.render(messages), add_special_tokens=False).ids
        return ids

    return token_ids
