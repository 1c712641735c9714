"""The verifier's one configuration; the only module of this service that reads the environment."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, SecretStr, model_validator

from cloud_verifier.patience import AUTO, LONGEST_S, NEVER, PatienceSetting
from cloud_verifier.ports import ANY_PORT, parse_ports
from speculation.certificates import require_authorities, require_grpc_pair
from speculation.engines.providers import Provider
from speculation.errors import MAX_RETRY_AFTER_S, ConfigurationError
from speculation.keys import read_keys, require_key
from speculation.protocol.cover import Cover
from speculation.protocol.messages import INITIAL_CREDIT
from speculation.settings import Settings, load_settings, require_cover, require_loopback, require_one_source
from speculation.shaping.catalogue import Catalogue
from speculation.shaping.profiles import DEFAULT_DRAFT_MODEL, DEFAULT_FULL_MODEL, UNSHAPED
from speculation.telemetry.choices import Compat, LogFormat, read_endpoint
from speculation.truncation import MAX_VOCABULARY_SIZE

ENVIRONMENT_PREFIX = "OUTRIDER_VERIFIER_"
OWN_SIZE = "own"
ALL_LOGPROBS = -1
MOST_ON_THE_WIRE = 2**32 - 1
"""The ceiling of a session is told in so many bits: a higher one would fail each session as it opens."""
REMOTE = "full_url"
POOL_DETAILS = ("replicas", "ray_address", "replica_cpus", "replica_ports")
REMOTE_DETAILS = ("full_route", "full_model", "full_logprobs", "full_timeout_s", "full_api_key")


def read_patience(value: object) -> PatienceSetting:
    """A patience from every source. Raises ``ConfigurationError`` for what is neither a word that is known nor a number of
    milliseconds in range."""
    if value in (AUTO, NEVER):
        return AUTO if value == AUTO else NEVER
    try:
        patience_ms = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else -1.0
    except (ValueError, OverflowError):
        patience_ms = -1.0
    if not 0 <= patience_ms <= 1000 * LONGEST_S:
        raise ConfigurationError(
            f"patience: {AUTO!r}, {NEVER!r}, or milliseconds from 0 to {1000 * LONGEST_S:g} (got {value!r})"
        )
    return patience_ms


def _read_url(value: object) -> object:
    """An http address of a server, without a slash at its end. Raises ``ConfigurationError`` for anything else."""
    if value is None:
        return None
    if "@" in str(value):
        raise ConfigurationError(f"full_url: without a name or key in it; give the key as {ENVIRONMENT_PREFIX}FULL_API_KEY")
    try:
        parts = urlsplit(value if isinstance(value, str) else "")
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_address = False
    if not is_address or parts.query or parts.fragment or any(c.isspace() for c in str(value)):
        raise ConfigurationError(f"full_url: an address like http://127.0.0.1:8000 (got {value!r})")
    url = str(value).rstrip("/")
    if url.endswith("/v1"):
        raise ConfigurationError(f"full_url: the address without its /v1 (got {value!r})")
    return url


def _read_num_logprobs(value: object) -> object:
    """-1 or a number of tokens, from every source."""
    try:
        number = int(value) if isinstance(value, str | int) and not isinstance(value, bool) else 0
    except ValueError:
        number = 0
    if number != ALL_LOGPROBS and not 1 <= number <= MAX_VOCABULARY_SIZE:
        raise ConfigurationError(f"full_logprobs: 1 to {MAX_VOCABULARY_SIZE}, or {ALL_LOGPROBS} for all (got {value!r})")
    return number


class VerifierConfig(Settings):
    """Where the verifier listens, what it runs, and how much it takes on.

    ``pair`` None is the bundled pair, unless ``draft`` and ``full`` name two folders (``docs/models.md``). ``variant`` None is
    fp32 where the full model has it, ``draft_variant`` None is q4. ``cloud`` names a cloud profile, a bundled
    one or one in the folder ``profiles`` (``docs/shaping.md``), whose time is charged for each pass; ``emulate`` is the model
    that is charged for (``own`` is the full model, at its real size).
    ``previous_pair`` is the pair before ``pair``, served beside it until its devices have moved over, with ``previous_slots``
    caches (None: as many as ``num_slots``). Seats and limits of tenants are shared.
    ``provider`` is what runs the models: ``cpu``, or ``cuda``.
    ``max_queued`` sessions more than ``max_sessions`` wait for a seat. ``max_kept`` caches of texts that ended are kept for
    prompts of the same tenant that begin alike.
    ``cache_bytes`` is what the full model's caches may take of memory, those kept included (``room.py``); None is as much as
    ``num_slots`` of a whole context each. Two full models divide it by their slots.
    ``credit`` is the ceiling of a session's live nodes. ``max_rows`` bounds the tokens of one pass, over all sessions.
    ``patience`` is how long a session is waited for before it is decoded without drafts: ``auto``, ``never``, or milliseconds.
    ``gather`` is the number of drafts from which on it is not waited for (``patience.py``).
    ``pass_interval_ms``: passes begin at least so far apart, so that all who are ready by then share one.
    ``run_drafts`` ``paying`` measures at the start what passes cost, and runs the drafts that pay (``scheduling.py``).
    ``draft_length`` above 0 runs the pair's draft model beside the full one, which drafts so many tokens for each session
    without drafts; ``draft_variant`` is its graph, ``draft_emulate`` the model that its time is charged for.
    ``full_url`` is a server that runs the full model instead (``docs/models.md``): by ``full_route``, under the name
    ``full_model`` (None: the only one there), with the ``full_logprobs`` likeliest tokens of each row.
    ``tls_cert`` and ``tls_key`` make it speak TLS alone, with ``tls_client_ca`` to those only whose certificate that signed.
    ``keys`` is a file that says who may call, and how much of the verifier each may use (``speculation/keys.py``).
    ``pad_bytes`` and ``tick_ms`` are the least cover of every stream (``covering.py``); 0 leaves it to the device.
    ``metrics_port`` None serves no figures; ``metrics_compat`` ``vllm`` tells them under vLLM's names, too.
    ``engine_pool`` ``ray`` makes it the head of ``replicas`` verifiers on the machines of the Ray cluster at ``ray_address``
    (None: one that is started here), each with ``replica_cpus`` of Ray's and one of ``replica_ports`` (``docs/operations.md``).
    Raises ``ConfigurationError`` for a value that cannot work, ``UnknownNameError`` for a cloud that does not exist.
    """

    host: str = "127.0.0.1"
    port: int = Field(50051, ge=0, le=65535)
    insecure: bool = False
    keys: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    metrics_host: str = "127.0.0.1"
    metrics_port: int | None = Field(None, ge=0, le=65535)
    metrics_compat: Compat | None = None
    log_format: LogFormat = LogFormat.TEXT
    otlp_endpoint: Annotated[str | None, BeforeValidator(read_endpoint)] = None
    pair: Path | None = None
    draft: Path | None = None
    full: Path | None = None
    previous_pair: Path | None = None
    variant: str | None = None
    threads: int = Field(1, ge=1)
    provider: Provider = Provider.CPU
    num_slots: int = Field(16, ge=1)
    previous_slots: int | None = Field(None, ge=1)
    max_sessions: int = Field(16, ge=1)
    cache_bytes: int | None = Field(None, ge=1)
    max_queued: int = Field(16, ge=0)
    max_kept: int = Field(0, ge=0)
    credit: int = Field(256, ge=INITIAL_CREDIT, le=MOST_ON_THE_WIRE)
    max_rows: int = Field(256, ge=1)
    outbox_messages: int = Field(64, ge=1)
    max_message_bytes: int = Field(256 * 1024, ge=1024)
    pad_bytes: int = 0
    tick_ms: int = 0
    retry_after_s: float = Field(1.0, ge=0, le=MAX_RETRY_AFTER_S)
    drain_grace_s: float = Field(10.0, ge=0)
    patience: Annotated[PatienceSetting, BeforeValidator(read_patience)] = AUTO
    gather: int = Field(1, ge=1)
    pass_interval_ms: float = Field(0.0, ge=0, le=1000 * LONGEST_S)
    run_drafts: Literal["paying", "all"] = "paying"
    draft_length: int = Field(0, ge=0)
    draft_variant: str | None = None
    draft_emulate: str = DEFAULT_DRAFT_MODEL
    full_url: Annotated[str | None, BeforeValidator(_read_url)] = None
    full_route: Literal["vllm", "vllm-prefixes", "sglang"] = "vllm"
    full_model: str | None = None
    full_logprobs: Annotated[int, BeforeValidator(_read_num_logprobs)] = 20
    full_timeout_s: float = Field(60.0, gt=0, le=3600)
    full_api_key: Annotated[SecretStr | None, BeforeValidator(partial(require_key, name="full_api_key"))] = None
    profiles: Path | None = None
    cloud: str = UNSHAPED
    emulate: str = DEFAULT_FULL_MODEL
    engine_pool: Literal["ray"] | None = None
    replicas: int = Field(1, ge=1)
    ray_address: str | None = None
    replica_cpus: float = Field(1.0, ge=0)
    replica_ports: str = ANY_PORT

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.keys is not None:
            read_keys(self.keys)
        require_loopback(self.host, self.insecure, self.keys is not None)
        if self.metrics_port is not None:
            require_loopback(self.metrics_host, self.insecure, self.keys is not None)
        self._check_tls()
        require_one_source(self.pair, self.draft, self.full)
        self.catalogue.cloud(self.cloud)
        self._check_remote()
        self._check_previous()
        self._check_pool()
        require_cover(self.cover, self.max_message_bytes)
        return self

    @property
    def catalogue(self) -> Catalogue:
        """Where the names of profiles are looked up. Raises ``ConfigurationError``."""
        return Catalogue(self.profiles)

    @property
    def cover(self) -> Cover:
        """The least that every stream gets."""
        return Cover(self.pad_bytes, self.tick_ms)

    def _check_tls(self) -> None:
        require_grpc_pair("tls_cert", self.tls_cert, "tls_key", self.tls_key)
        require_authorities("tls_client_ca", self.tls_client_ca)
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise ConfigurationError("tls_client_ca: without tls_cert there is no TLS; give tls_cert and tls_key, too")

    def _check_previous(self) -> None:
        """Raises ``ConfigurationError`` where the pair before cannot be told from the newest, or not be run."""
        if self.previous_pair is None and self.previous_slots is not None:
            raise ConfigurationError("previous_slots: without previous_pair there are none; give both or neither")
        if self.previous_pair is not None and self.draft is not None:
            raise ConfigurationError("previous_pair: two folders have no version to be newer by; give pair, not draft and full")
        if self.previous_pair is not None and self.full_url is not None:
            raise ConfigurationError(f"previous_pair and {REMOTE}: that server runs one model; leave out one or the other")

    def _check_pool(self) -> None:
        """Raises ``ConfigurationError`` for ports that are none or too few, and for details of a pool where there is none."""
        parse_ports(self.replica_ports)
        given = [name for name in POOL_DETAILS if name in self.model_fields_set]
        if self.engine_pool is None and given:
            raise ConfigurationError(f"{', '.join(given)}: without engine_pool this is one verifier; give both or neither")
        if self.engine_pool is not None and self.ray_address is None and self.replicas > 1 and self.metrics_port:
            raise ConfigurationError(
                f"metrics_port: {self.replicas} replicas on this machine cannot all listen on {self.metrics_port};"
                " leave it out, or give machines of their own (ray_address)"
            )

    def _check_remote(self) -> None:
        """Raises ``ConfigurationError`` for what means nothing with a server that runs the full model, or without one."""
        given = [name for name in REMOTE_DETAILS if name in self.model_fields_set]
        if self.full_url is None and given:
            raise ConfigurationError(f"{', '.join(given)}: without {REMOTE} there is no server to ask; give both or neither")
        if self.full_url is not None and self.variant is not None:
            raise ConfigurationError(f"{REMOTE} and variant: the server has loaded what it runs; leave out one or the other")
        if self.full_url is not None and self.emulate == OWN_SIZE:
            raise ConfigurationError(f"{REMOTE} and emulate {OWN_SIZE!r}: its size is not known; name one like 70B:fp16")


def load_config(file: Path | None = None, flags: Mapping[str, Any] | None = None) -> VerifierConfig:
    """Defaults < TOML ``file``, else the one in ``OUTRIDER_VERIFIER_CONFIG`` < ``OUTRIDER_VERIFIER_*`` < flags.

    Raises ``ConfigurationError`` and ``UnknownNameError``.
    """
    return load_settings(VerifierConfig, file, ENVIRONMENT_PREFIX, flags)
