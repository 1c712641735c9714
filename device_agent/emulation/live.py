"""The one owner of what an agent plays: it tells what that is, changes it while answers run, and tells those who watch.

The agent's own are the phone and the network. The cloud machine and patience are the verifier's: they can be changed from here
where it runs in this same process and a handle was given.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from device_agent.config import AgentConfig
from device_agent.emulation.choices import choices_of, ranges
from device_agent.emulation.played import HEAT, PART_OF, PRESETS, Part, Played, read_change
from speculation.errors import CapacityError, ConfigurationError, InvalidRequestError
from speculation.shaping.engine import PhoneCost, ShapedEngine
from speculation.shaping.link import ShapedConnector
from speculation.shaping.models import parse_model
from speculation.shaping.overrides import cloud_with, network_with, phone_with
from speculation.shaping.profiles import UNSHAPED, CloudProfile, NetworkProfile, PhoneProfile

ELSEWHERE = "the verifier is not in this process; outrider serve runs both in one"
ALONE = "this agent has no verifier"
AS_IT_IS = "this agent was given its engine and its way to the verifier as they are"
SWITCHED_OFF = "the agent's setting live_emulation is off"


class VerifierControls(Protocol):
    """A verifier of this same process, as far as it may be changed while it runs."""

    @property
    def patience(self) -> str | float:
        """``auto``, ``never``, or milliseconds."""

    def prepare(self, cloud: CloudProfile | None, patience: object | None) -> Callable[[], None]:
        """What makes the change, of the machine, of patience or of both (None: stays), once it is called; it cannot fail.

        Raises ``InvalidRequestError``, ``ConfigurationError`` and ``CapacityError``, and has changed nothing.
        """


@dataclass(frozen=True, slots=True)
class Change:
    """What is to be played, the profiles with what is changed of them, and patience (None: stays)."""

    wanted: Played
    phone: PhoneProfile
    network: NetworkProfile
    cloud: CloudProfile
    patience: object | None


class LiveEmulation:
    """Begins as the settings say. Without ``engine``, ``radio`` or ``verifier`` what they would play stays as it is."""

    def __init__(
        self,
        config: AgentConfig,
        engine: ShapedEngine | None = None,
        radio: ShapedConnector | None = None,
        verifier: VerifierControls | None = None,
    ) -> None:
        self.played = Played(config.phone, config.network, config.cloud, config.heat)
        self._phone, self._network = config.phone, config.network
        self._catalogue = config.catalogue
        self._model = parse_model(config.emulate)
        self._engine = engine
        self._radio = radio
        self._verifier = verifier
        self._is_allowed = config.live_emulation
        self._has_verifier = config.verifier is not None
        self._turn = asyncio.Lock()
        self._choices: dict[str, list[dict[str, Any]]] | None = None
        self._watchers: list[Callable[[], None]] = []

    @property
    def phone(self) -> str | None:
        """What the phone that is played is called, with what was changed of it; None where none is."""
        return _told(self._phone)

    @property
    def network(self) -> str | None:
        """The same of the network."""
        return _told(self._network)

    @property
    def is_emulated(self) -> bool:
        return self.played.is_emulated

    @contextmanager
    def watched(self, watcher: Callable[[], None]) -> Iterator[None]:
        """While the block runs ``watcher`` is called behind every change."""
        self._watchers.append(watcher)
        try:
            yield
        finally:
            self._watchers.remove(watcher)

    async def describe(self) -> dict[str, Any]:
        """What is played, what can be chosen, and what can be changed or why not."""
        if self._choices is None:
            self._choices = await asyncio.to_thread(choices_of, self._catalogue)
        played = self.played
        return {
            "phone": _told(played.phone),
            "network": _told(played.network),
            "cloud": _told(played.cloud),
            "patience": self._patience,
            HEAT: played.heat.value,
            "overrides": dict(played.overrides),
            "choices": self._choices,
            "ranges": ranges(),
            "can_change": {part.value: self._reason(part) or True for part in Part},
        }

    async def change(self, body: object) -> None:
        """Make all of a change, from the next draft step, message and pass on; or, where it raises, none of it.

        Raises ``InvalidRequestError`` and ``UnknownNameError`` for keys, values and names that cannot be, for machines that
        have no room, and for what cannot be changed here.
        """
        async with self._turn:
            self.make(await asyncio.to_thread(self.planned, body))

    def planned(self, body: object) -> Change:
        """What a JSON object asks for, with the profiles that it names. Reads files: belongs on a thread. Raises as ``change``
        does."""
        given = read_change(body)
        for key in given:
            if (reason := self._reason(PART_OF[key])) is not None:
                raise InvalidRequestError(f"{key} cannot be changed here: {reason}", key)
        wanted, profiles = self.played.changed(given), self._catalogue
        with _as_requests(None):
            return Change(
                wanted,
                phone_with(profiles.phone(wanted.phone), wanted.overrides),
                network_with(profiles.network(wanted.network), wanted.overrides),
                cloud_with(profiles.cloud(wanted.cloud), wanted.overrides),
                given.get(Part.PATIENCE),
            )

    def make(self, change: Change) -> None:
        """On the event loop. What may fail comes first, and has changed nothing where it does. Raises as ``change`` does."""
        before, wanted, had_patience = self.played, change.wanted, self._patience
        changed = {part for part in PRESETS if wanted.of(part) != before.of(part)}
        change_verifier = self._prepared(change.cloud if Part.CLOUD in changed else None, change.patience)
        if self._engine is not None and Part.PHONE in changed:
            is_same = (wanted.phone, wanted.heat) == (before.phone, before.heat)
            with _as_requests(Part.PHONE):
                self._engine.reshape(PhoneCost(change.phone, self._model), None if is_same else wanted.heat)
        if self._radio is not None and Part.NETWORK in changed:
            self._radio.reshape(change.network)
        change_verifier()
        self.played, self._phone, self._network = wanted, change.phone.name, change.network.name
        if changed or self._patience != had_patience:
            for watcher in list(self._watchers):
                watcher()

    def _prepared(self, cloud: CloudProfile | None, patience: object | None) -> Callable[[], None]:
        if self._verifier is None or (cloud is None and patience is None):
            return lambda: None
        with _as_requests(Part.PATIENCE if cloud is None else Part.CLOUD):
            return self._verifier.prepare(cloud, patience)

    @property
    def _patience(self) -> str | float | None:
        return None if self._verifier is None else self._verifier.patience

    def _reason(self, part: Part) -> str | None:
        """Why a part cannot be changed; None where it can."""
        if not self._is_allowed:
            return SWITCHED_OFF
        if part is Part.PHONE:
            return AS_IT_IS if self._engine is None else None
        if not self._has_verifier:
            return ALONE
        if part is Part.NETWORK:
            return AS_IT_IS if self._radio is None else None
        return ELSEWHERE if self._verifier is None else None


@contextmanager
def _as_requests(parameter: str | None) -> Iterator[None]:
    """What would be a fault of settings, or no room, is one of the request that asked for it."""
    try:
        yield
    except (ConfigurationError, CapacityError) as error:
        raise InvalidRequestError(str(error), parameter) from error


def _told(name: str) -> str | None:
    return None if name == UNSHAPED else name
