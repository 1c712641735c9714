"""The pairs that a verifier serves, the newest and perhaps the one before: each ``Open`` goes to the full model of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

from cloud_verifier.admission import check_identity
from cloud_verifier.counts import VerifierStatistics
from cloud_verifier.live import LiveSession
from cloud_verifier.observer import Observer
from cloud_verifier.seats import SharedQueue
from cloud_verifier.verification import Verifier
from speculation.errors import PairError, SessionNotFoundError
from speculation.protocol.messages import Open, PairIdentity
from speculation.tenants import NOBODY, Account, Tenant


@dataclass(frozen=True, slots=True)
class Served:
    """A pair, and whose passes run its full model. ``fingerprint`` is what that model's self-test saw."""

    identity: PairIdentity
    fingerprint: str
    verifier: Verifier

    def __str__(self) -> str:
        return _named(self.identity, f", fingerprint {self.fingerprint}")


class Pairs:
    """``served`` is the newest pair first; two of them may have one full model, and then one verifier.

    Verifiers of their own share ``max_sessions`` seats, the queue, the tenants and the statistics. A session stays with its
    pair to its end: its final tokens are that full model's.
    """

    def __init__(self, served: Sequence[Served], max_sessions: int) -> None:
        self.served = tuple(served)
        self.newest = self.served[0].verifier
        self.verifiers = tuple(dict.fromkeys(one.verifier for one in served))
        if len(self.verifiers) > 1:
            self._share(SharedQueue(max_sessions))

    @classmethod
    def of(cls, verifier: Verifier) -> Self:
        """One pair alone."""
        return cls([Served(verifier.identity, "", verifier)], 1)

    def _share(self, queue: SharedQueue) -> None:
        newest = self.newest
        for verifier in self.verifiers:
            verifier.seats.share(queue)
            verifier.accounts, verifier.rounds.statistics = newest.accounts, newest.statistics
            verifier.newest_pair = newest.identity.version

    @property
    def num_sessions(self) -> int:
        return sum(verifier.num_sessions for verifier in self.verifiers)

    @property
    def statistics(self) -> VerifierStatistics:
        """Of all pairs together."""
        return self.newest.statistics

    @property
    def observer(self) -> Observer:
        return self.newest.observer

    def observe(self, observer: Observer) -> None:
        """From now on it is told of the sessions of every pair."""
        for verifier in self.verifiers:
            verifier.observer = observer

    def account_of(self, tenant: Tenant) -> Account:
        """What a tenant uses, of all pairs together."""
        return self.newest.account_of(tenant)

    def attach(self, message: Open, tenant: Tenant = NOBODY) -> LiveSession:
        """Begin or take over a session at the verifier of its pair. Raises ``PairError``, and what ``Verifier.attach`` does."""
        one = self._of(message.identity)
        check_identity(message, one.identity)
        self._check_stays(message, one.verifier, tenant)
        identity = replace(one.verifier.identity, version=one.identity.version)
        known = message if message.identity == identity else replace(message, identity=identity)
        return one.verifier.attach(known, tenant)

    async def drain(self, grace_s: float) -> None:
        """Every pair's sessions have the same grace, at the same time."""
        async with asyncio.TaskGroup() as tasks:
            for verifier in self.verifiers:
                tasks.create_task(verifier.drain(grace_s))

    def stop(self) -> None:
        for verifier in self.verifiers:
            verifier.stop()

    def _of(self, asked: PairIdentity) -> Served:
        for one in self.served:
            ours = one.identity
            if asked.pair_digest == ours.pair_digest and asked.version in (0, ours.version):
                return one
        versions = [one.identity.version for one in self.served]
        raise PairError(
            f"the device's {_named(asked)} is not served: {' and '.join(map(str, self.served))} {_are(versions)}"
            f"{_advice(asked.version, versions)}",
            asked.version,
            versions,
        )

    def _check_stays(self, message: Open, verifier: Verifier, tenant: Tenant) -> None:
        """No session moves from one full model to another, and no tenant learns of another's that runs on the other."""
        others = (other.seats.find(message.session_id) for other in self.verifiers if other is not verifier)
        for held in (live for live in others if live is not None):
            if held.account is not self.account_of(tenant):
                raise SessionNotFoundError("there is no such session")
            asked = message.identity.version
            raise PairError(f"this session runs with pair {held.pair}, and stays with it", asked, [held.pair])


def _named(identity: PairIdentity, more: str = "") -> str:
    """A pair by its counter, where it has one, and its digest."""
    number = f" {identity.version}" if identity.version else ""
    return f"pair{number} ({identity.pair_digest}{more})"


def _are(versions: Sequence[int]) -> str:
    return "is" if len(versions) == 1 else "are"


def _advice(asked: int, versions: Sequence[int]) -> str:
    """What the device can do; nothing is said of a pair that does not count."""
    if not asked or not all(versions):
        return ""
    if asked < min(versions):
        return "; update the device's pair"
    return "; this verifier is behind" if asked > max(versions) else ""
