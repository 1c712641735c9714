"""Clients of a device agent: ``Client`` for asyncio, ``SyncClient`` for code without a loop, ``Transcript`` for what is shown.

Public, and following the version number, is what stands in ``__all__``.
"""

from device_agent.events import (
    CommitEvent,
    CommitOffset,
    CorrectEvent,
    DoneEvent,
    Event,
    RevokeEvent,
    SessionEvent,
    SpeculativeEvent,
    StateEvent,
)
from device_agent.logprobs import FinalLikelihood, Likelihood
from outrider.client.asynchronous import Client, Messages, Options, text_keys
from outrider.client.blocking import SyncClient
from outrider.transcript import Transcript

__all__ = [
    "Client",
    "CommitEvent",
    "CommitOffset",
    "CorrectEvent",
    "DoneEvent",
    "Event",
    "FinalLikelihood",
    "Likelihood",
    "Messages",
    "Options",
    "RevokeEvent",
    "SessionEvent",
    "SpeculativeEvent",
    "StateEvent",
    "SyncClient",
    "Transcript",
    "text_keys",
]
