"""Clients of a device agent: ``Client`` for asyncio, ``SyncClient`` for code without a loop, ``Transcript`` for what is shown,
and the errors that they raise, all of them under ``OutriderError``.

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
from device_agent.tasks.graph_events import GraphBegunEvent, GraphDoneEvent, GraphEvent, OutputEvent, TaskEvent
from outrider.client.asynchronous import Client
from outrider.client.blocking import SyncClient
from outrider.client.options import Messages, Options, text_keys
from outrider.transcript import Transcript
from speculation.errors import (
    AuthenticationError,
    CapacityError,
    ConfigurationError,
    DeadlineError,
    EngineError,
    HandshakeError,
    InvalidRequestError,
    LinkError,
    OutriderError,
    PackageError,
    ProtocolError,
    SessionNotFoundError,
    UnknownNameError,
)

__all__ = [
    "AuthenticationError",
    "CapacityError",
    "Client",
    "CommitEvent",
    "CommitOffset",
    "ConfigurationError",
    "CorrectEvent",
    "DeadlineError",
    "DoneEvent",
    "EngineError",
    "Event",
    "FinalLikelihood",
    "GraphBegunEvent",
    "GraphDoneEvent",
    "GraphEvent",
    "HandshakeError",
    "InvalidRequestError",
    "Likelihood",
    "LinkError",
    "Messages",
    "Options",
    "OutputEvent",
    "OutriderError",
    "PackageError",
    "ProtocolError",
    "RevokeEvent",
    "SessionEvent",
    "SessionNotFoundError",
    "SpeculativeEvent",
    "StateEvent",
    "SyncClient",
    "TaskEvent",
    "Transcript",
    "UnknownNameError",
    "text_keys",
]
