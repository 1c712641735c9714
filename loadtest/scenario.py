"""What a load test does, read from a file: who comes, how many of them, how they behave, and which ends are no failures."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from speculation.errors import ConfigurationError, UnknownNameError
from speculation.settings import read_toml

FOLDER = Path(__file__).parent / "scenarios"

Share = Annotated[float, Field(ge=0, le=1)]


class Kind(StrEnum):
    """How a user calls: over REST from an agent, over gRPC from a verifier, or over gRPC and against the rules."""

    READER = "reader"
    DEVICE = "device"
    ABUSER = "abuser"


class Abuse(StrEnum):
    """What an abuser does."""

    SESSIONS = "sessions"
    DRAFTS = "drafts"
    MALFORMED = "malformed"
    OVERSIZED = "oversized"
    DEAF = "deaf"


class _Strict(BaseModel):
    """Frozen; a key that does not exist is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Stage(_Strict):
    """For ``seconds`` there are ``users`` of all groups together; they come and go ``spawn_per_s`` a second."""

    seconds: float = Field(gt=0)
    users: int = Field(ge=1)
    spawn_per_s: float = Field(10.0, gt=0)


class Group(_Strict):
    """Users of one class. ``weight`` is their part of a stage's users.

    ``prompt_tokens``: lengths from and to which prompts are made up of the pair's held-out texts; None takes those texts as
    they are, which are recorded. ``think_s``: pause between two answers, from and to. ``drafts_ahead``: how far a device drafts
    beyond what is final. ``cut_share`` of the answers lose their connection on the way, ``return_share`` of those are taken up
    again. ``expected`` are ends that are no failure: a gRPC status, an HTTP status, or ``unverified``, for an answer that the
    device ended without the verifier.
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9-]*$")
    kind: Kind
    weight: int = Field(1, ge=1)
    tenant: Literal["users", "abusers"] = "users"
    prompt_tokens: tuple[int, int] | None = None
    max_tokens: int = Field(64, ge=1)
    temperature: float = Field(0.8, ge=0, le=100)
    think_s: tuple[float, float] = (0.0, 0.0)
    drafts_ahead: int = Field(8, ge=0)
    cut_share: Share = 0.0
    return_share: Share = 1.0
    abuse: Abuse | None = None
    expected: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.kind is Kind.ABUSER) != (self.abuse is not None):
            raise ValueError("abuse goes with kind abuser, and only with that")
        if self.kind is Kind.ABUSER and self.tenant != "abusers":
            raise ValueError("an abuser is of tenant abusers")
        for name, least in (("prompt_tokens", 1), ("think_s", 0)):
            first, last = getattr(self, name) or (1, 1)
            if not least <= first <= last:
                raise ValueError(f"{name} must be two numbers, from {least} on and to, not {first:g} and {last:g}")
        return self

    @property
    def is_well_behaved(self) -> bool:
        """Whether a failure of theirs is a failure of the services."""
        return self.tenant == "users"


class Limits(_Strict):
    """What the abusers' tenant may use, where the services are started for the run (``docs/operations.md``)."""

    max_sessions: int | None = Field(None, ge=1)
    tokens_per_s: float | None = Field(None, gt=0)
    bytes_per_s: float | None = Field(None, gt=0)
    burst_s: float | None = Field(None, gt=0)


Setting = int | float | str | bool


class Services(_Strict):
    """Settings of the services that are started for the run; the services themselves judge them."""

    agent: dict[str, Setting] = {}
    verifier: dict[str, Setting] = {}


class Scenario(_Strict):
    """An answer without an end after ``answer_limit_s`` failed; those under way at the end have ``stop_limit_s``."""

    title: str
    seed: int = Field(1, ge=0)
    answer_limit_s: float = Field(60.0, gt=0)
    stop_limit_s: float = Field(20.0, ge=0)
    stages: tuple[Stage, ...] = Field(min_length=1)
    groups: tuple[Group, ...] = Field(min_length=1)
    limits: Limits = Limits()
    services: Services = Services()

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [group.name for group in self.groups]
        if len(set(names)) < len(names):
            raise ValueError(f"groups have names of their own, not {', '.join(names)}")
        return self

    @property
    def seconds(self) -> float:
        """How long it takes, what is under way at the end left out."""
        return sum(stage.seconds for stage in self.stages)

    def scaled(self, seconds: float | None = None, users: int | None = None) -> Scenario:
        """The same in so many seconds, with so many users at the most; each stage in proportion."""
        slower = (seconds or self.seconds) / self.seconds
        most = max(stage.users for stage in self.stages)
        stages = tuple(
            Stage(
                seconds=stage.seconds * slower,
                users=max(1, round(stage.users * (users or most) / most)),
                spawn_per_s=stage.spawn_per_s,
            )
            for stage in self.stages
        )
        return self.model_copy(update={"stages": stages})

    def reaching(self, has_agent: bool, has_verifier: bool) -> Scenario:
        """The same without those who have nobody to call. Raises ``ConfigurationError`` where that is everybody."""
        groups = tuple(g for g in self.groups if (has_agent if g.kind is Kind.READER else has_verifier))
        if not groups:
            missing = "an agent" if has_verifier else "a verifier"
            raise ConfigurationError(f"everybody in this scenario calls {missing}, and none is named")
        return self.model_copy(update={"groups": groups})


def stage_at(stages: Sequence[Stage], elapsed_s: float) -> Stage | None:
    """The stage that holds so many seconds after the start; None behind the last."""
    end_s = 0.0
    for stage in stages:
        end_s += stage.seconds
        if elapsed_s < end_s:
            return stage
    return None


def names() -> list[str]:
    """The bundled scenarios."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load(name_or_file: str) -> Scenario:
    """A bundled scenario by its name, or one in a file (``.toml``).

    Raises ``UnknownNameError``, and ``ConfigurationError`` with the file, the key and the rule.
    """
    if not name_or_file.endswith(".toml") and name_or_file not in names():
        raise UnknownNameError("scenario", name_or_file, names())
    path = Path(name_or_file) if name_or_file.endswith(".toml") else FOLDER / f"{name_or_file}.toml"
    return parse(read_toml(path), str(path))


def parse(content: dict[str, Any], file: str) -> Scenario:
    """A scenario from a file's keys. Raises ``ConfigurationError``."""
    try:
        return Scenario.model_validate(content)
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, fault['loc'])) or 'all of it'}: {fault['msg']}" for fault in error.errors()]
        raise ConfigurationError(f"the scenario {file}: {'; '.join(faults)}") from error
