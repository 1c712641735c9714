"""Both services inside this process, with whatever is to be emulated, which may change while they run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import cloud_verifier.server
import device_agent.server
from cloud_verifier.config import VerifierConfig
from device_agent.config import AgentConfig
from device_agent.server import RunningAgent
from speculation.engines.providers import Provider
from speculation.errors import InvalidRequestError
from speculation.listening import require_free
from speculation.settings import require_one_source
from speculation.shaping.catalogue import Catalogue
from speculation.shaping.engine import PhoneCost
from speculation.shaping.models import parse_model
from speculation.shaping.phone_state import Heat
from speculation.shaping.profiles import DEFAULT_DRAFT_MODEL, DEFAULT_FULL_MODEL, UNSHAPED


@dataclass(frozen=True, slots=True)
class Emulation:
    """Names of a phone, a network and a cloud machine, bundled ones or those in the folder ``profiles``; and the phone's heat.

    Raises ``UnknownNameError`` for a name that does not exist, ``ConfigurationError`` for a folder or a file
    that cannot be used, and for heat of a phone that has no figures of it.
    """

    phone: str = UNSHAPED
    network: str = UNSHAPED
    cloud: str = UNSHAPED
    profiles: Path | None = None
    heat: Heat = Heat.OFF

    def __post_init__(self) -> None:
        catalogue = self.catalogue
        PhoneCost(catalogue.phone(self.phone), parse_model(DEFAULT_DRAFT_MODEL)).state(self.heat)
        catalogue.network(self.network)
        catalogue.cloud(self.cloud)

    @classmethod
    def chosen(cls, agent: str | None, flags: Mapping[str, Any], default: Self) -> Self | None:
        """What the flags ask for, by the names of the fields, where None was not given; None with an agent of somebody else's,
        who chose already.

        Raises ``InvalidRequestError`` where both an agent and something to emulate are named.
        """
        given = {name: value for name, value in flags.items() if value is not None}
        if agent is None:
            return replace(default, **given)
        if given:
            named = ", ".join(f"--{name}" for name in given)
            raise InvalidRequestError(f"{named}: the agent at {agent} has its own; leave out one or the other")
        return None

    @property
    def catalogue(self) -> Catalogue:
        """Where the names are looked up."""
        return Catalogue(self.profiles)

    def __bool__(self) -> bool:
        """Whether any machine is played."""
        return (self.phone, self.network, self.cloud) != (UNSHAPED, UNSHAPED, UNSHAPED)

    @property
    def lines(self) -> list[str]:
        """Whose time the figures show, a line for each machine that is played."""
        lines, profiles = [], self.catalogue
        if self.phone != UNSHAPED:
            heat = "" if self.heat is Heat.OFF else f", heat {self.heat.value}"
            title = profiles.phone(self.phone).title
            lines.append(f"phone {self.phone} with a draft of {DEFAULT_DRAFT_MODEL}{heat}: {title}")
        if self.network != UNSHAPED:
            lines.append(f"network {self.network}: {profiles.network(self.network).title}")
        if self.cloud != UNSHAPED:
            lines.append(f"cloud {self.cloud} with a full model of {DEFAULT_FULL_MODEL}: {profiles.cloud(self.cloud).title}")
        return lines


@dataclass(frozen=True, slots=True)
class Models:
    """Folders of a draft and of a full model, a graph of each by name, and what runs them. Without folders it is the bundled
    pair.

    Raises ``ConfigurationError`` for one folder without the other.
    """

    draft: Path | None = None
    full: Path | None = None
    draft_variant: str | None = None
    full_variant: str | None = None
    provider: Provider | None = None

    def __post_init__(self) -> None:
        require_one_source(None, self.draft, self.full)

    def check_agent(self, agent: str | None) -> None:
        """Raises ``InvalidRequestError`` where models are named, and an agent of somebody else's too."""
        if agent is not None and self != Models():
            raise InvalidRequestError(f"the agent at {agent} has models of its own; leave out that or the models")


BUNDLED = Models()


@asynccontextmanager
async def local_services(emulation: Emulation, models: Models = BUNDLED, **settings: Any) -> AsyncIterator[RunningAgent]:
    """An agent, with a verifier behind it on loopback and a free port, that live while the block runs.

    The agent has a handle on what the verifier plays. ``settings`` are the agent's own.

    Raises ``ConfigurationError`` for settings that cannot be, and an address that cannot be bound.
    """
    folders: dict[str, Any] = {"draft": models.draft, "full": models.full, "provider": models.provider or Provider.CPU}
    played: dict[str, Any] = asdict(emulation)
    config = AgentConfig(variant=models.draft_variant, **folders, **played, **settings)  # refused before a model is loaded
    full = VerifierConfig(port=0, cloud=emulation.cloud, profiles=emulation.profiles, variant=models.full_variant, **folders)
    require_free(config.host, config.port)
    async with cloud_verifier.server.serve(full) as verifier:
        behind = config.model_copy(update={"verifier": verifier.target})
        async with device_agent.server.serve(behind, verifier=verifier.machine) as agent:
            yield agent


@asynccontextmanager
async def local_agent(emulation: Emulation, models: Models = BUNDLED, **settings: Any) -> AsyncIterator[str]:
    """The URL of such an agent on loopback and a free port."""
    async with local_services(emulation, models, port=0, **settings) as agent:
        yield agent.url


@asynccontextmanager
async def agent_at(
    url: str | None, emulation: Emulation | None, models: Models = BUNDLED, **settings: Any
) -> AsyncIterator[str]:
    """The agent at ``url``, or one inside this process where there is no URL."""
    if url is not None:
        yield url
        return
    async with local_agent(emulation or Emulation(), models, **settings) as inside:
        yield inside
