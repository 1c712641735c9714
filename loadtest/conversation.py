"""A device's side of one answer: bytes to send, from bytes that came and when. No socket and no clock: both are handed in."""

from __future__ import annotations

from loadtest.answers import Drafts, Times
from loadtest.drafts import Drafter
from speculation.protocol.device import DeviceSession
from speculation.protocol.messages import Usage
from speculation.wire import codec


class Conversation:
    """One session over all its streams. The device is always ``ahead`` drafts beyond what is final, as far as it has room."""

    def __init__(self, session: DeviceSession, drafter: Drafter, ahead: int, began_s: float) -> None:
        self.session = session
        self.times = Times(began_s)
        self._drafter = drafter
        self._ahead = ahead

    @property
    def is_finished(self) -> bool:
        return self.session.finish_reason is not None

    @property
    def generated(self) -> tuple[int, ...]:
        """The final tokens behind the prompt."""
        return tuple(self.session.final[self.session.generation_start :])

    @property
    def drafts(self) -> Drafts:
        """Of the last stream: what a verifier tells at its end. A device of a load test shows nobody its drafts; those that it
        sent count as shown, those that were thrown away as withdrawn."""
        usage = self.session.usage or Usage()
        return Drafts(usage.proposed, usage.discarded, usage.accepted + usage.late, usage.corrections)

    def opening(self) -> list[bytes]:
        """The first messages of the next stream."""
        return [codec.encode_request(self.session.open()), *self._drafted()]

    def receive(self, data: bytes, now_s: float) -> list[bytes]:
        """What to say to a message of the verifier. Raises ``ProtocolError`` for one that breaks the protocol."""
        update = self.session.receive(codec.decode_response(data))
        self.times.final(len(update.tokens), now_s)
        return [] if self.is_finished else self._drafted()

    def _drafted(self) -> list[bytes]:
        generated = self.generated
        while len(self.session.path) < self._ahead and self.session.room:
            token_id = self._drafter.next(generated, self.session.path)
            if token_id is None:
                break
            self.session.drafted(token_id)
        draft = self.session.flush()
        return [] if draft is None else [codec.encode_request(draft)]
