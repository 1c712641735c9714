"""The device agent inside a program of your own: the events of `outrider.client`, without HTTP and without a process.

::

    async with DeviceAgent(verifier="cloud.example:50051", verifier_key_file=Path("key")) as agent:
        async for event in agent.stream("The module provides", max_tokens=64, temperature=0.8, seed=7):
            ...

``stream``, ``generate``, ``tasks`` and ``health`` are those of ``outrider.client.Client``, so a program can take either.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypedDict, Unpack

from device_agent.config import AgentConfig
from device_agent.events import DoneEvent, ErrorEvent, Event
from device_agent.request import StreamRequest
from device_agent.routing.policy import RoutingPolicy
from device_agent.tasks.graph import TaskGraph
from device_agent.tasks.graph_events import GraphEvent
from outrider.client.options import Messages, Options, text_keys
from outrider.client.reading import done_of, error_of
from speculation.errors import ConfigurationError
from speculation.settings import refuse_unknown

if TYPE_CHECKING:
    import device_agent.agent

OF_THE_SERVICE = frozenset(
    {
        "host",
        "port",
        "insecure",
        "keys",
        "tls_cert",
        "tls_key",
        "allowed_hosts",
        "served_names",
        "metrics_compat",
        "log_format",
        "live_emulation",
        "resume_grace_s",
        "resume_window_s",
        "max_kept_streams",
    }
)
"""Settings of ``outrider agent`` that say how it serves others; an agent inside a program serves nobody else."""


class Settings(TypedDict, total=False):
    """What ``DeviceAgent`` takes, under the names, and with the defaults, of ``docs/operations.md``."""

    verifier: str | None
    connect_timeout_s: float
    verifier_key: str
    verifier_key_file: Path
    verifier_ca: Path
    verifier_name: str
    verifier_cert: Path
    verifier_cert_key: Path
    pair: Path
    draft: Path
    full: Path
    variant: str
    threads: int
    provider: Literal["cpu", "cuda"]
    drafting: str
    draft_depth: int
    draft_length: int
    draft_width: int
    draft_choices: int
    draft_floor: float
    draft_price: float
    draft_pass_floor: float
    draft_lookup: float
    draft_gather: bool
    draft_turns: Literal["fair", "first-come"]
    rag_store: Path
    rag_model: Path
    rag_draft_share: float
    rag_drafts_may_leave: bool
    pad_bytes: int
    tick_ms: int
    profiles: Path
    phone: str
    network: str
    network_seed: int
    cloud: str
    emulate: str
    heat: Literal["off", "on", "hot"]
    battery_percent: float
    battery_wh: float
    auto_stability: float
    auto_prompt_tokens: int
    auto_answer_tokens: int
    auto_battery_percent: float
    os_load: str
    os_load_seed: int
    when_full: Literal["refuse", "shorten"]
    max_streams: int
    max_queued_streams: int
    max_pause_s: float
    max_stream_events: int
    max_prompt_bytes: int
    default_max_tokens: int
    generation_defaults: Literal["model", "none"]
    retry_after_s: float
    drain_grace_s: float
    otlp_endpoint: str


class DeviceAgent:
    """Drafts with a small model, shows at once, and lets a verifier have the last word. Use it inside its ``async with``:
    entering loads the models, on a thread; leaving lets answers that other tasks read finish within ``drain_grace_s``, then
    cuts them. It may be entered again.

    ``verifier`` is ``host:port`` (by default this machine's), None for a device that is always alone. ``routing`` decides who
    thinks in mode ``auto``, in place of the policy by the settings ``auto_...`` (``docs/routing.md``).
    Raises ``ConfigurationError`` for settings that cannot work, ``UnknownNameError`` for the name of a profile that does not
    exist; entering raises ``PackageError`` for models that cannot be used, and what else ``outrider agent`` would say.
    """

    def __init__(self, *, routing: RoutingPolicy | None = None, **settings: Unpack[Settings]) -> None:
        self._config = _config(settings)
        self._routing = routing
        self._inside: device_agent.agent.DeviceAgent | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @classmethod
    @asynccontextmanager
    async def local(
        cls, *, full_variant: str | None = None, routing: RoutingPolicy | None = None, **settings: Unpack[Settings]
    ) -> AsyncIterator[Self]:
        """An agent with a verifier behind it in the same process, for trying things out and for tests: real gRPC over
        loopback. Without ``pair``, or ``draft`` and ``full``, it is the bundled pair.

        ``cloud`` is the machine that this verifier emulates, ``full_variant`` the graph of its model. Raises what the
        constructor and entering raise, ``ConfigurationError`` for a ``verifier``.
        """
        if "verifier" in settings:
            raise ConfigurationError("verifier: local() starts one of its own; leave it out, or use DeviceAgent(verifier=...)")
        alone = _config({**settings, "verifier": None})  # refused here, before seconds of loading
        from cloud_verifier.config import VerifierConfig
        from cloud_verifier.server import serve

        shared = {name: getattr(alone, name) for name in ("pair", "draft", "full", "provider", "cloud", "profiles")}
        async with serve(VerifierConfig(port=0, variant=full_variant, **shared)) as verifier:
            own: Settings = {**settings, "verifier": verifier.target}
            async with cls(routing=routing, **own) as agent:
                yield agent

    async def __aenter__(self) -> Self:
        if self._inside is not None:
            raise ConfigurationError("the agent is running already: enter it once, and share it among tasks")
        inside = await asyncio.to_thread(_load, self._config, self._routing)
        self._inside, self._loop = await inside.__aenter__(), asyncio.get_running_loop()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        inside, self._inside = self._running, None
        try:
            if error is None:
                await inside.drain(self._config.drain_grace_s)
        finally:
            await inside.__aexit__(kind, error, traceback)

    @property
    def num_streams(self) -> int:
        """Answers that are being written now."""
        return 0 if self._inside is None else self._inside.num_streams

    async def stream(self, prompt: str | Messages, **options: Unpack[Options]) -> AsyncGenerator[Event, None]:
        """The events of one answer; the last is ``DoneEvent``. Several may run at once, up to ``max_streams``. Leaving early
        (close the generator) cancels the answer. ``prompt`` is a text to go on from, or a conversation: objects with role and
        content.

        Raises ``InvalidRequestError`` for a request that cannot be served, ``CapacityError`` where ``max_streams`` run
        already, ``ConfigurationError`` outside ``async with`` and on another event loop, and whatever else of the tree ends the
        answer.
        """
        request = StreamRequest.from_json({**text_keys(prompt), **options})
        async with aclosing(self._running.stream(request)) as events:
            async for event in events:
                if isinstance(event, ErrorEvent):
                    raise error_of(event.error, None)
                yield event

    async def generate(self, prompt: str | Messages, **options: Unpack[Options]) -> DoneEvent:
        """One whole answer: its text, its tokens and its figures. Raises what ``stream`` raises."""
        async with aclosing(self.stream(prompt, **options)) as events:
            return await done_of(events)

    async def tasks(self, graph: Mapping[str, Any]) -> AsyncGenerator[GraphEvent, None]:
        """The events of a graph of sub-tasks (``docs/tasks.md``); the last is ``GraphDoneEvent``, which also tells of sub-tasks
        that failed. Leaving early (close the generator) cancels it. Raises as ``stream`` does before the first event.
        """
        from device_agent.tasks.graph_run import running

        async with running(self._running, TaskGraph.from_json(graph)) as run:
            while events := await run.take():
                for event in events:
                    yield event

    async def health(self) -> Mapping[str, Any]:
        """What the agent says of itself: the pair, the defaults of a request, how many answers are being written."""
        return self._running.health()

    @property
    def _running(self) -> device_agent.agent.DeviceAgent:
        if self._inside is None:
            raise ConfigurationError("the agent is not running: use it inside its 'async with'")
        if self._loop is not asyncio.get_running_loop():  # what it waits for would wake another loop, so never end
            raise ConfigurationError(
                "the agent runs on the event loop that entered it: from another thread ask by asyncio.run_coroutine_threadsafe"
            )
        return self._inside


def _config(settings: Mapping[str, Any]) -> AgentConfig:
    """Raises ``ConfigurationError``."""
    if served := sorted(OF_THE_SERVICE & set(settings)):
        raise ConfigurationError(
            f"{', '.join(served)}: only an agent that serves over HTTP has that (outrider agent); leave it out here"
        )
    refuse_unknown(settings, AgentConfig.model_fields.keys() - OF_THE_SERVICE, "settings")
    return AgentConfig(**settings)


def _load(config: AgentConfig, routing: RoutingPolicy | None) -> device_agent.agent.DeviceAgent:
    """Imports here, too: what runs models takes its time to load."""
    from device_agent.build import build_agent

    return build_agent(config, routing=routing)
