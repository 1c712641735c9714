"""Who may use a service, and how much of it: tenants, their limits, and what they have used. Pure; times in seconds.

A tenant's rates are token buckets: what was used may be ahead of the rate by ``burst_s`` seconds of it. Who is further ahead
waits until it is not; so the use over any time t is at most rate * (t + burst_s), and one piece more.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256

from speculation.errors import MAX_RETRY_AFTER_S, CapacityError

SCHEME = "bearer"
AUTHORIZATION = "authorization"
"""Name of the header, or the metadata, that holds the scheme and the key."""
MIN_KEY_LENGTH = 16
BURST_S = 10.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What one tenant may use at once and by the second; None is no limit.

    ``tokens_per_s`` counts tokens that became final, ``bytes_per_s`` bytes that came from the tenant.
    """

    max_sessions: int | None = None
    tokens_per_s: float | None = None
    bytes_per_s: float | None = None
    burst_s: float = BURST_S


@dataclass(frozen=True, slots=True)
class Tenant:
    """Somebody with a key."""

    name: str
    limits: Limits = Limits()


NOBODY = Tenant("")
"""Whoever calls a service that has no keys."""


class Keyring:
    """The tenants by the SHA-256 digests of their keys; holds no key itself."""

    def __init__(self, tenants: Mapping[bytes, Tenant]) -> None:
        self._tenants = dict(tenants)

    def tenant_of(self, authorization: str | None) -> Tenant | None:
        """Whose key stands in an ``authorization`` of the form ``Bearer KEY``; None for no key and for one that nobody has.

        Takes as long whichever key it is: every digest is compared, and compared as a whole.
        """
        scheme, _, key = (authorization or "").strip().partition(" ")
        if scheme.lower() != SCHEME:
            return None
        given, found = digest_of(key.strip()), None
        for digest, tenant in self._tenants.items():
            if hmac.compare_digest(digest, given):
                found = tenant
        return found


def digest_of(key: str) -> bytes:
    """What is kept of a key."""
    return sha256(key.encode("utf-8", "surrogateescape")).digest()


def is_key(text: str) -> bool:
    """Whether a text fits in a header as one word."""
    return text.isascii() and text.isprintable() and text.split() == [text]


def bearer(key: str) -> str:
    """The ``authorization`` that carries a key."""
    return f"Bearer {key}"


class TokenBucket:
    """How far the use of something is ahead of its rate; ``rate_per_s`` None is no limit.

    Kept as the time at which all that was used will be paid for (the generic cell rate algorithm): nothing is summed up, so
    the time that ``ready_s`` tells is exactly the one from which on it may be used again; 0 at the latest where nothing is
    owed.
    """

    def __init__(self, rate_per_s: float | None, burst_s: float) -> None:
        self._rate_per_s = rate_per_s
        self._burst_s = burst_s
        self._paid_s = -1.0
        self.ready_s = 0.0

    def take(self, amount: float, now_s: float) -> None:
        """So much was used; it may go beyond what was there, and is owed then."""
        if self._rate_per_s is not None:
            self._paid_s = max(self._paid_s, now_s) + amount / self._rate_per_s
            self.ready_s = max(0.0, self._paid_s - self._burst_s)


class Account:
    """What one tenant uses of one service now. ``served`` is the number of the pass that ran it last."""

    def __init__(self, tenant: Tenant) -> None:
        limits = tenant.limits
        self.tenant = tenant
        self.num_sessions = 0
        self.served = 0
        self.tokens = TokenBucket(limits.tokens_per_s, limits.burst_s)
        self.bytes = TokenBucket(limits.bytes_per_s, limits.burst_s)

    def check(self, now_s: float, retry_after_s: float) -> None:
        """Raises ``CapacityError`` where the tenant may not begin another session now; ``retry_after_s`` is a hint for one
        that has to wait for its own sessions."""
        limits = self.tenant.limits
        if limits.max_sessions is not None and self.num_sessions >= limits.max_sessions:
            raise CapacityError(f"all {limits.max_sessions} sessions of this tenant are taken", retry_after_s)
        for bucket, rate, unit in (
            (self.tokens, limits.tokens_per_s, "tokens"),
            (self.bytes, limits.bytes_per_s, "bytes"),
        ):
            if bucket.ready_s > now_s:
                wait_s = min(bucket.ready_s - now_s, MAX_RETRY_AFTER_S)
                raise CapacityError(f"this tenant is over its {rate:g} {unit} a second", wait_s)


class Accounts:
    """One account for each tenant that came."""

    def __init__(self) -> None:
        self._accounts: dict[str, Account] = {}

    def of(self, tenant: Tenant) -> Account:
        """The same one for the same name."""
        return self._accounts.setdefault(tenant.name, Account(tenant))
