"""What one answer takes of its tenant's account, from its request to its end."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from device_agent.events import COMMITTED, LAST, DoneEvent, Event
from speculation.tenants import Account


class Use:
    """A session of the tenant until it has ended; its bytes and its tokens are paid for as they come.

    ``clock`` gives the loop's time in seconds. Raises ``CapacityError`` where the tenant may not begin another answer now.
    """

    def __init__(self, account: Account, clock: Callable[[], float], retry_after_s: float) -> None:
        account.check(clock(), retry_after_s)
        account.num_sessions += 1
        self._account = account
        self._clock = clock
        self._num_tokens = 0
        self._is_over = False

    def read(self, num_bytes: int) -> None:
        """So many bytes of the request were read."""
        self._account.bytes.take(num_bytes, self._clock())

    def wrote(self, events: Sequence[Event]) -> None:
        """These events are about to be given out. Tokens count once they are final; those that never are, at the end."""
        for event in events:
            if isinstance(event, COMMITTED):
                self._pay_up_to(event.commit_offset.tokens)
            elif isinstance(event, DoneEvent):
                self._pay_up_to(len(event.token_ids))
            if isinstance(event, LAST):
                self.end()

    def end(self) -> None:
        """The answer is over; only the first end counts."""
        if not self._is_over:
            self._is_over = True
            self._account.num_sessions -= 1

    def _pay_up_to(self, num_tokens: int) -> None:
        new = max(0, num_tokens - self._num_tokens)
        self._num_tokens += new
        self._account.tokens.take(new, self._clock())
