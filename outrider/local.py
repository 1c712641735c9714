"""Both services inside this process, on loopback and free ports, with whatever is to be emulated."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import cloud_verifier.server
import device_agent.server
from cloud_verifier.config import VerifierConfig
from device_agent.config import AgentConfig
from speculation.engines.providers import Provider
from speculation.errors import InvalidRequestError
from speculation.settings import require_one_source
from speculation.shaping import profiles
from speculation.shaping.profiles import DEFAULT_DRAFT_MODEL, DEFAULT_FULL_MODEL, UNSHAPED


@dataclass(frozen=True, slots=True)
class Emulation:
    """Names of a phone, a network and a cloud machine. Raises ``UnknownNameError`` for a name that does not exist."""

    phone: str = UNSHAPED
    network: str = UNSHAPED
    cloud: str = UNSHAPED

    def __post_init__(self) -> None:
        profiles.phone(self.phone)
        profiles.network(self.network)
        profiles.cloud(self.cloud)

    @classmethod
    def chosen(cls, agent: str | None, phone: str | None, network: str | None, cloud: str | None, default: Self) -> Self | None:
        """What the flags ask for; None with an agent of somebody else's, who chose already.

        Raises ``InvalidRequestError`` where both an agent and something to emulate are named.
        """
        if agent is None:
            return cls(phone or default.phone, network or default.network, cloud or default.cloud)
        named = [f"--{flag}" for flag, value in (("phone", phone), ("network", network), ("cloud", cloud)) if value is not None]
        if named:
            raise InvalidRequestError(f"{', '.join(named)}: the agent at {agent} has its own; leave out one or the other")
        return None

    @property
    def lines(self) -> list[str]:
        """Whose time the figures show, a line for each machine that is played."""
        lines = []
        if self.phone != UNSHAPED:
            lines.append(f"phone {self.phone} with a draft of {DEFAULT_DRAFT_MODEL}: {profiles.phone(self.phone).title}")
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
async def local_agent(emulation: Emulation, models: Models = BUNDLED) -> AsyncIterator[str]:
    """The URL of an agent, with a verifier behind it, that live while the block runs."""
    phone, network, cloud = emulation.phone, emulation.network, emulation.cloud
    folders: dict[str, Any] = {"draft": models.draft, "full": models.full, "provider": models.provider or Provider.CPU}
    full = VerifierConfig(port=0, cloud=cloud, variant=models.full_variant, **folders)
    async with cloud_verifier.server.serve(full) as verifier:
        emulated: dict[str, Any] = {"phone": phone, "network": network, "cloud": cloud}
        config = AgentConfig(port=0, verifier=verifier.target, variant=models.draft_variant, **folders, **emulated)
        async with device_agent.server.serve(config) as agent:
            yield agent.url


@asynccontextmanager
async def agent_at(url: str | None, emulation: Emulation | None, models: Models = BUNDLED) -> AsyncIterator[str]:
    """The agent at ``url``, or one inside this process where there is no URL."""
    if url is not None:
        yield url
        return
    async with local_agent(emulation or Emulation(), models) as inside:
        yield inside
