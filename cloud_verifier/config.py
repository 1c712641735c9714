"""The verifier's one configuration; the only module of this service that reads the environment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, model_validator

from cloud_verifier.patience import AUTO, LONGEST_S, NEVER, PatienceSetting
from speculation.engines.providers import Provider
from speculation.errors import ConfigurationError
from speculation.protocol.messages import INITIAL_CREDIT
from speculation.settings import Settings, load_settings, require_loopback, require_one_source
from speculation.shaping import profiles
from speculation.shaping.profiles import DEFAULT_DRAFT_MODEL, DEFAULT_FULL_MODEL, UNSHAPED

ENVIRONMENT_PREFIX = "OUTRIDER_VERIFIER_"


def _read_patience(value: object) -> object:
    """Raises ``ConfigurationError`` for what is neither a word that is known nor a number of milliseconds in range."""
    if value in (AUTO, NEVER):
        return value
    try:
        patience_ms = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else -1.0
    except ValueError:
        patience_ms = -1.0
    if not 0 <= patience_ms <= 1000 * LONGEST_S:
        raise ConfigurationError(
            f"patience: {AUTO!r}, {NEVER!r}, or milliseconds from 0 to {1000 * LONGEST_S:g} (got {value!r})"
        )
    return patience_ms


class VerifierConfig(Settings):
    """Where the verifier listens, what it runs, and how much it takes on.

    ``pair`` None is the bundled pair, unless ``draft`` and ``full`` name two folders (``docs/models.md``). ``variant`` None is
    fp32 where the full model has it, ``draft_variant`` None is q4. ``cloud`` names a cloud profile whose time is
    charged for each pass; ``emulate`` is the model that is charged for (``own`` is the full model, at its real size).
    ``provider`` is what runs the models: ``cpu``, or ``cuda``.
    ``credit`` is the ceiling of a session's live nodes. ``max_rows`` bounds the tokens of one pass, over all sessions.
    ``patience`` is how long a session is waited for before it is decoded without drafts: ``auto``, ``never``, or milliseconds.
    ``gather`` is the number of drafts from which on it is not waited for (``patience.py``).
    ``draft_length`` above 0 runs the pair's draft model beside the full one, which drafts so many tokens for each session
    without drafts; ``draft_variant`` is its graph, ``draft_emulate`` the model that its time is charged for.
    Raises ``ConfigurationError`` for a value that cannot work, ``UnknownNameError`` for a cloud that does not exist.
    """

    host: str = "127.0.0.1"
    port: int = Field(50051, ge=0, le=65535)
    insecure: bool = False
    pair: Path | None = None
    draft: Path | None = None
    full: Path | None = None
    variant: str | None = None
    threads: int = Field(1, ge=1)
    provider: Provider = Provider.CPU
    num_slots: int = Field(16, ge=1)
    max_sessions: int = Field(16, ge=1)
    credit: int = Field(256, ge=INITIAL_CREDIT)
    max_rows: int = Field(256, ge=1)
    outbox_messages: int = Field(64, ge=1)
    max_message_bytes: int = Field(256 * 1024, ge=1024)
    retry_after_s: float = Field(1.0, ge=0)
    drain_grace_s: float = Field(10.0, ge=0)
    patience: Annotated[PatienceSetting, BeforeValidator(_read_patience)] = AUTO
    gather: int = Field(1, ge=1)
    draft_length: int = Field(0, ge=0)
    draft_variant: str | None = None
    draft_emulate: str = DEFAULT_DRAFT_MODEL
    cloud: str = UNSHAPED
    emulate: str = DEFAULT_FULL_MODEL

    @model_validator(mode="after")
    def _check(self) -> Self:
        require_loopback(self.host, self.insecure)
        require_one_source(self.pair, self.draft, self.full)
        profiles.cloud(self.cloud)
        return self


def load_config(file: Path | None = None, flags: Mapping[str, Any] | None = None) -> VerifierConfig:
    """Defaults < TOML ``file``, else the one in ``OUTRIDER_VERIFIER_CONFIG`` < ``OUTRIDER_VERIFIER_*`` < flags.

    Raises ``ConfigurationError`` and ``UnknownNameError``.
    """
    return load_settings(VerifierConfig, file, ENVIRONMENT_PREFIX, flags)
