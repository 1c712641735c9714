"""The agent's one configuration; the only module of this service that reads the environment."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, SecretStr, model_validator

from device_agent.drafting.policies import ADAPTIVE, make_policy
from device_agent.drafting.policy import Policy
from device_agent.drafting.turns import Order
from device_agent.routing.default import ByRules, Thresholds
from speculation.certificates import ClientTls, require_authorities, require_grpc_pair, require_pair
from speculation.engines.providers import Provider
from speculation.errors import MAX_RETRY_AFTER_S, ConfigurationError
from speculation.keys import load_key, read_key, read_keys, require_key, require_no_pipe
from speculation.links.targets import DNS, parse_verifiers
from speculation.protocol.cover import Cover
from speculation.protocol.messages import MAX_PACKED_RANK
from speculation.settings import Settings, load_settings, require_cover, require_loopback, require_one_source
from speculation.shaping.battery import Battery
from speculation.shaping.catalogue import Catalogue
from speculation.shaping.engine import PhoneCost, WhenFull
from speculation.shaping.models import parse_model
from speculation.shaping.os_load import QUIET, os_load
from speculation.shaping.phone_state import Heat, PhoneState
from speculation.shaping.profiles import DEFAULT_DRAFT_MODEL, UNSHAPED
from speculation.telemetry.choices import Compat, LogFormat, read_endpoint

ENVIRONMENT_PREFIX = "OUTRIDER_AGENT_"

DEFAULT_PLACES = 4
"""Answers at once of an agent whose draft's caches are large, or not known."""


class GenerationSource(StrEnum):
    """Where the defaults of a request come from."""

    MODEL = "model"
    NONE = "none"


class AgentConfig(Settings):
    """Where the agent listens, what it drafts with, and what it plays.

    ``verifier`` is ``host:port``, several of them or where to learn them (``speculation/links/targets.py``), None for a device
    that is always alone; ``verifier_key``, or the word in the file ``verifier_key_file``, says to it who is calling.
    ``verifier_ca`` is the authority that signed its certificate, where it speaks TLS, and ``verifier_name`` whom that must be
    for (None: the host that is called); ``verifier_cert`` and ``verifier_cert_key`` are this agent's own, where it wants one.
    ``tls_cert`` and ``tls_key`` make the agent itself answer over HTTPS. ``pair`` None is the bundled pair, unless
    ``draft`` and ``full`` name two folders (``docs/models.md``); ``variant`` is a graph of the draft (None: q4 where it has
    that), ``lookup`` for what followed where the text last read like this, or ``random`` for a draft that knows nothing.
    ``provider`` is what runs the draft: ``cpu``, or ``cuda``.
    ``draft_lookup`` is the weight of looking up beside the draft model, where the text repeats itself (0: off).
    ``phone`` and ``network`` name profiles, bundled ones or those in the folder ``profiles`` (``docs/shaping.md``);
    ``cloud`` only says which machine the verifier plays, for what the figures are called. ``emulate`` is the draft model
    whose time and bytes the phone is charged, such as ``0.9B:int4``. ``drafting`` names a policy;
    ``heat``: whether the phone gets hot and slow, ``on`` from a cold start, ``hot`` from hours of drafting.
    ``live_emulation``: whether clients may change what is played while it runs (``PATCH /v1/emulation``).
    ``battery_percent`` gives the phone a battery of ``battery_wh`` that is so full at the start (None: no battery is emulated);
    its default is about 4000 mAh at 3.85 V, an assumption. ``auto_stability``, ``auto_prompt_tokens``, ``auto_answer_tokens``
    and ``auto_battery_percent`` are the thresholds of mode ``auto`` (``device_agent/routing/default.py``).
    ``when_full``: whether a model that leaves no room for a full context is refused, or gets a shorter one that fits all slots.
    ``draft_depth`` bounds the drafts ahead of the final tokens, ``draft_width`` the branches that one step extends;
    ``draft_choices`` is how many of a position's likeliest tokens may become branches, where the width is over 1;
    ``draft_length`` is that of ``fixed-length``, ``draft_floor`` the chance at which ``confidence-gate`` stops.
    ``draft_price`` is what a second of drafting is worth in seconds of waiting, for ``adaptive``. ``draft_pass_floor`` is the
    chance of the path below which a verifier is told to wait no longer (``adaptive``, ``second-branch``; 0: never).
    ``draft_gather``: drafts are held back until the verifier's next pass can use them, and share one message.
    ``draft_turns``: how streams share the draft model, ``fair`` by priority and pace, or ``first-come`` (``docs/tasks.md``).
    ``os_load`` names what else the emulated phone does (``speculation/shaping/os_load.py``), ``os_load_seed`` its moments.
    ``max_streams`` None is as many as the draft's caches leave room for (``room.py``). Beyond it up to ``max_queued_streams``
    answers wait for their place. A paused one ends after ``max_pause_s``.
    ``pad_bytes`` and ``tick_ms`` hide sizes and times of messages, both ways (``speculation/protocol/cover.py``).
    ``served_names`` are names besides the full model's that clients of OpenAI may ask for (``*``: any).
    ``allowed_hosts`` are names besides loopback's under which the agent may be addressed.
    ``generation_defaults`` says where a request's sampling comes from that does not say: from the full ``model``'s
    ``generation_config.json``, or from ``none`` (greedy). ``default_max_tokens`` None takes the model's, else 128.
    ``keys`` is a file that says who may call, and how much of the agent each may use (``speculation/keys.py``).
    ``metrics_compat`` ``vllm`` tells the figures of ``/metrics`` under vLLM's names, too.
    ``rag_store`` is a store of documents that requests may use (``docs/retrieval.md``, extra ``rag``), ``rag_model`` the folder
    of its embedding model (None: the installed wheel's). ``rag_draft_share`` is the weight of documents beside the draft model,
    ``rag_drafts_may_leave`` whether drafts may quote private ones where a verifier sees them.
    An answer whose reader is gone goes on for ``resume_grace_s``; one that ended is kept for ``resume_window_s``.
    Raises ``ConfigurationError`` for a value that cannot work, ``UnknownNameError`` for a profile that does not exist.
    """

    host: str = "127.0.0.1"
    port: int = Field(8080, ge=0, le=65535)
    insecure: bool = False
    keys: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    allowed_hosts: tuple[str, ...] = ()
    served_names: tuple[str, ...] = ()
    metrics_compat: Compat | None = None
    log_format: LogFormat = LogFormat.TEXT
    otlp_endpoint: Annotated[str | None, BeforeValidator(read_endpoint)] = None
    verifier: str | None = "127.0.0.1:50051"
    connect_timeout_s: float = Field(5.0, gt=0)
    verifier_key: Annotated[SecretStr | None, BeforeValidator(partial(require_key, name="verifier_key"))] = None
    verifier_key_file: Path | None = None
    verifier_ca: Path | None = None
    verifier_name: str | None = Field(None, min_length=1)
    verifier_cert: Path | None = None
    verifier_cert_key: Path | None = None
    pair: Path | None = None
    draft: Path | None = None
    full: Path | None = None
    variant: str | None = None
    threads: int = Field(1, ge=1)
    provider: Provider = Provider.CPU
    drafting: str = ADAPTIVE
    draft_depth: int = Field(32, ge=1)
    draft_length: int = Field(4, ge=1)
    draft_width: int = Field(4, ge=1, le=8)
    draft_choices: int = Field(4, ge=1, le=MAX_PACKED_RANK + 1)
    draft_floor: float = Field(0.1, ge=0, le=1)
    draft_price: float = Field(0.01, ge=0)
    draft_pass_floor: float = Field(0.0, ge=0, le=1)
    draft_lookup: float = Field(0.0, ge=0, lt=1)
    draft_gather: bool = True
    draft_turns: Order = Order.FAIR
    rag_store: Path | None = None
    rag_model: Path | None = None
    rag_draft_share: float = Field(0.2, ge=0, lt=1)
    rag_drafts_may_leave: bool = False
    pad_bytes: int = 0
    tick_ms: int = 0
    profiles: Path | None = None
    phone: str = UNSHAPED
    network: str = UNSHAPED
    network_seed: int = Field(0, ge=0)
    cloud: str = UNSHAPED
    emulate: str = DEFAULT_DRAFT_MODEL
    heat: Heat = Heat.OFF
    os_load: str = QUIET
    os_load_seed: int = Field(0, ge=0)
    live_emulation: bool = True
    battery_percent: float | None = Field(None, ge=0, le=100)
    battery_wh: float = Field(15.4, gt=0)
    auto_stability: float = Field(0.5, ge=0, le=1)
    auto_prompt_tokens: int = Field(1024, ge=0)
    auto_answer_tokens: int = Field(256, ge=0)
    auto_battery_percent: float = Field(20.0, ge=0, le=100)
    when_full: WhenFull = WhenFull.REFUSE
    max_streams: int | None = Field(None, ge=1)
    max_queued_streams: int = Field(0, ge=0)
    max_pause_s: float = Field(300.0, gt=0)
    resume_grace_s: float = Field(5.0, ge=0)
    resume_window_s: float = Field(60.0, ge=0)
    max_kept_streams: int = Field(16, ge=0)
    max_stream_events: int = Field(32768, ge=16)
    max_prompt_bytes: int = Field(64 * 1024, ge=1)
    default_max_tokens: int | None = Field(None, ge=1)
    generation_defaults: GenerationSource = GenerationSource.MODEL
    retry_after_s: float = Field(1.0, ge=0, le=MAX_RETRY_AFTER_S)
    drain_grace_s: float = Field(5.0, ge=0)

    @property
    def catalogue(self) -> Catalogue:
        """Where the names of profiles are looked up. Raises ``ConfigurationError``."""
        return Catalogue(self.profiles)

    @property
    def is_emulated(self) -> bool:
        """Whether any machine is played whose time shows in the figures."""
        return (self.phone, self.network, self.cloud) != (UNSHAPED, UNSHAPED, UNSHAPED)

    @property
    def num_places(self) -> int:
        """Answers at once; where that is left open, as few as there are for any draft."""
        return DEFAULT_PLACES if self.max_streams is None else self.max_streams

    @property
    def max_body_bytes(self) -> int:
        """Room for the prompt as JSON may spell it (six bytes for one), and for the other keys."""
        return 6 * self.max_prompt_bytes + 16 * 1024

    @property
    def cover(self) -> Cover:
        """What hides sizes and times of messages to and from the verifier."""
        return Cover(self.pad_bytes, self.tick_ms)

    def own_key(self) -> str | None:
        """The key that the verifier knows this agent by. Raises ``ConfigurationError``."""
        if self.verifier_key_file is not None:
            return load_key(self.verifier_key_file)
        return None if self.verifier_key is None else self.verifier_key.get_secret_value()

    @property
    def verifier_tls(self) -> ClientTls | None:
        """How to call the verifier over TLS; None for plain text. Addresses of a name are called by that name."""
        if self.verifier_ca is None:
            return None
        verifiers = None if self.verifier is None else parse_verifiers(self.verifier)
        own_name = verifiers.hosts[0] if verifiers is not None and verifiers.kind == DNS else None
        return ClientTls(self.verifier_ca, self.verifier_cert, self.verifier_cert_key, self.verifier_name or own_name)

    def policy(self) -> Policy:
        """The drafting policy that is named, new. Raises ``UnknownNameError``."""
        floors = self.draft_floor, self.draft_pass_floor
        return make_policy(self.drafting, self.draft_length, self.draft_width, *floors, self.draft_price)

    def routing_policy(self) -> ByRules:
        """Who thinks in mode ``auto``, by the thresholds."""
        prompt_tokens, answer_tokens = self.auto_prompt_tokens, self.auto_answer_tokens
        return ByRules(Thresholds(self.auto_stability, prompt_tokens, answer_tokens, self.auto_battery_percent))

    def battery(self, phone: PhoneState) -> Battery | None:
        """The battery of an emulated phone, None where none is emulated. Raises ``ConfigurationError`` for a phone that has no
        figures of energy."""
        if self.battery_percent is None:
            return None
        if not phone.has_energy:
            raise ConfigurationError(
                f"battery_percent: the profile {self.phone} has no figures of energy; name a phone that has, or leave it out"
            )
        return Battery(phone, self.battery_wh, self.battery_percent)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.keys is not None:
            read_keys(self.keys)
        require_loopback(self.host, self.insecure, self.keys is not None)
        require_one_source(self.pair, self.draft, self.full)
        catalogue = self.catalogue
        phone = catalogue.phone(self.phone)
        catalogue.network(self.network)
        catalogue.cloud(self.cloud)
        self.battery(PhoneCost(phone, parse_model(self.emulate)).state(self.heat))
        self.policy()
        if os_load(self.os_load).name != QUIET and self.phone == UNSHAPED:
            raise ConfigurationError("os_load: it interrupts an emulated phone, and none is; name a phone, too")
        if self.verifier is not None:
            parse_verifiers(self.verifier)
        self._check_own_key()
        self._check_tls()
        require_cover(self.cover)
        return self

    def _check_tls(self) -> None:
        require_pair("tls_cert", self.tls_cert, "tls_key", self.tls_key)
        require_grpc_pair("verifier_cert", self.verifier_cert, "verifier_cert_key", self.verifier_cert_key)
        require_authorities("verifier_ca", self.verifier_ca)
        for name in ("verifier_cert", "verifier_name"):
            if getattr(self, name) is not None and self.verifier_ca is None:
                raise ConfigurationError(f"{name}: without verifier_ca the verifier is called in plain text; give it, too")

    def _check_own_key(self) -> None:
        if self.verifier_key is not None and self.verifier_key_file is not None:
            raise ConfigurationError("verifier_key and verifier_key_file: leave out one or the other")
        if self.verifier_key_file is not None:
            require_no_pipe(self.verifier_key_file)
            read_key(self.verifier_key_file)


def load_config(file: Path | None = None, flags: Mapping[str, Any] | None = None) -> AgentConfig:
    """Defaults < TOML file (``file``, else the one that ``OUTRIDER_AGENT_CONFIG`` names) < ``OUTRIDER_AGENT_*`` < flags."""
    return load_settings(AgentConfig, file, ENVIRONMENT_PREFIX, flags)
