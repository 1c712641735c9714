"""The device agent: takes requests, owns one task an answer, and gives out the events."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from types import TracebackType
from typing import Any, Self

from device_agent import tracing
from device_agent.assignment import Assignment
from device_agent.config import AgentConfig
from device_agent.drafting.drafting import Drafting
from device_agent.drafting.share import Share
from device_agent.emulation.live import LiveEmulation
from device_agent.events import ErrorEvent, Event, SessionEvent
from device_agent.figures import Meter
from device_agent.generation import Generation
from device_agent.metrics import AgentMetrics, both
from device_agent.pair import PairFacts
from device_agent.prompts import Prompts
from device_agent.request import Mode, StreamRequest
from device_agent.resolving import Resolver
from device_agent.retrieval.applying import Retrieval, Retrieved, applied
from device_agent.routing.policy import RoutingPolicy
from device_agent.routing.router import Router
from device_agent.stream import Stream
from device_agent.tasks.places import Place, Places
from device_agent.tasks.promises import Promises
from device_agent.tasks.target import Target
from device_agent.timeline import Timeline
from speculation.engines.base import Engine
from speculation.engines.runner import EngineRunner
from speculation.errors import ConfigurationError, LinkError
from speculation.links.base import TRACEPARENT, Connector
from speculation.telemetry.spans import UNTRACED, Span, Tracer

SHUTTING_DOWN = "the agent is shutting down"


class DeviceAgent:
    """Drafts with a small model, shows at once, and lets a verifier have the last word.

    ::

        async with build_agent(AgentConfig(verifier="127.0.0.1:50051")) as agent:
            async for event in agent.stream(StreamRequest("The module provides", max_tokens=64)):
                ...

    It owns the runner, the connector, the tracer and the documents and closes them at the end. ``connector`` None is a device
    that is always alone; ``documents`` None has none. ``emulation`` None: what is played is what the settings name, and stays
    so. ``routing`` decides who thinks in mode ``auto``, in place of the policy by the settings' thresholds.
    """

    def __init__(
        self,
        pair: PairFacts,
        runner: EngineRunner[Engine],
        connector: Connector | None,
        config: AgentConfig,
        tracer: Tracer = UNTRACED,
        emulation: LiveEmulation | None = None,
        routing: RoutingPolicy | None = None,
        documents: Retrieval | None = None,
    ) -> None:
        self.pair = pair
        self.config = config
        self.emulation = emulation or LiveEmulation(config)
        self.prompts = Prompts(pair, config.max_prompt_bytes)
        self._resolver = Resolver(pair, config, self.prompts, connector is not None)
        self._runner = runner
        self._drafting = Drafting(runner, config)
        self._connector = connector
        policy = None if connector is None else routing or config.routing_policy()
        self._router = Router(policy, self._drafting.phone, self._drafting.battery)
        self._tracer = tracer
        self._documents = documents
        self._tasks: asyncio.TaskGroup | None = None
        self._running: set[asyncio.Task[None]] = set()
        promises = Promises(self._drafting.step_cost)
        self._places = Places(config.num_places, config.max_queued_streams, config.retry_after_s, promises)
        self.is_draining = False
        self._coming: set[asyncio.Timeout] = set()
        self._cleanup = contextlib.AsyncExitStack()
        self.metrics = AgentMetrics(pair, config, self._drafting, self.emulation, self._places)

    @property
    def num_streams(self) -> int:
        """Answers that are being written now, paused ones included; not those that wait for their place."""
        return self._places.num_taken

    async def __aenter__(self) -> Self:
        if self._tracer is not UNTRACED:
            self._cleanup.push_async_callback(asyncio.to_thread, self._tracer.close)
        if self._documents is not None:
            self._cleanup.callback(self._documents.shutdown)
        self._cleanup.callback(self._runner.shutdown)
        self._cleanup.push_async_callback(self._drafting.aclose)
        if isinstance(self._connector, contextlib.AbstractAsyncContextManager):
            await self._cleanup.enter_async_context(self._connector)
        elif self._connector is not None:
            self._cleanup.push_async_callback(self._connector.aclose)
        self._tasks = await asyncio.TaskGroup().__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End every answer that still runs with an ``error`` event, then close everything."""
        try:
            await self.drain(0.0)
            tasks, self._tasks = self._tasks, None
            if tasks is not None:  # not told of the body's error, which it would wrap in a group
                await tasks.__aexit__(None, None, None)
        finally:
            await self._cleanup.aclose()

    async def drain(self, grace_s: float) -> None:
        """Refuse new answers, let those that run finish within ``grace_s``, then end the rest."""
        self.is_draining = True
        for limit in self._coming:
            limit.reschedule(asyncio.get_running_loop().time())
        if self._running and grace_s > 0:
            await asyncio.wait(self._running, timeout=grace_s)
        if self._running:
            for task in self._running:
                task.cancel()
            await asyncio.wait(self._running)

    @contextlib.asynccontextmanager
    async def coming(self, within_s: float) -> AsyncIterator[None]:
        """A request comes in the block, which raises ``TimeoutError`` where it takes longer, and once the agent stops: then it
        would be refused anyhow, and is not waited for."""
        async with asyncio.timeout(0 if self.is_draining else within_s) as limit:
            self._coming.add(limit)
            try:
                yield
            finally:
                self._coming.discard(limit)

    async def stream(self, request: StreamRequest) -> AsyncGenerator[Event, None]:
        """The events of one answer; the last is ``DoneEvent`` or ``ErrorEvent``. Closing the generator cancels the answer.

        Raises ``InvalidRequestError`` and ``CapacityError`` before the first event.
        """
        stream = await self.start(request)
        try:
            while events := await stream.take():
                for event in events:
                    yield event
        finally:
            await stream.aclose()

    async def start(
        self,
        request: StreamRequest,
        watch: Callable[[Sequence[Event]], None] | None = None,
        traceparent: str | None = None,
    ) -> Stream:
        """Begin an answer; its first event is there when this returns. ``watch`` sees its events before a reader does.
        ``traceparent`` names the span that asks for it.

        Raises ``InvalidRequestError`` for a prompt, a limit or a rate that does not fit, ``CapacityError`` when ``max_streams``
        run already and nobody else may wait, or the phone promised its speed to others, ``LinkError`` while the agent stops.
        """
        began_s = asyncio.get_running_loop().time()
        place = self._places.ask(self._share_of(request))
        stream = Stream(self.config.max_stream_events, both(both(self.metrics.told, self._router.told), watch))
        try:
            await self._begin(stream, await self._found(request), place, began_s, traceparent)
        except BaseException:
            place.leave()
            raise
        return stream

    async def _found(self, request: StreamRequest) -> Retrieved:
        return await applied(self._documents, request, self.pair, self.prompts, self._resolver.default_max_tokens)

    async def _begin(self, stream: Stream, found: Retrieved, place: Place, began_s: float, traceparent: str | None) -> None:
        request = found.request
        name = f"{tracing.operation_of(request)} {self.pair.full}"
        # A collector is elsewhere: of what may not leave it hears nothing.
        tracer = UNTRACED if request.is_private else self._tracer
        span = tracer.start(name, tracing.asked(request, self.pair), traceparent)
        try:
            assignment = await self._resolver.assign(found)
            self._promise(assignment, place)
            span.tell(tracing.assigned(assignment))
            stream.timeline = Timeline(began_s) if request.timeline else None
            meter = Meter(began_s, self.emulation.is_emulated, self.metrics, stream.timeline)
            meter.target = None if request.tokens_per_s is None else Target(request.tokens_per_s)
            self._launch(stream, assignment, meter, place, span)
        except BaseException as error:
            span.fail(type(error).__name__)
            span.end()
            raise

    def _launch(self, stream: Stream, assignment: Assignment, meter: Meter, place: Place, span: Span) -> None:
        if self.is_draining:
            raise LinkError(SHUTTING_DOWN)
        if self._tasks is None:
            raise ConfigurationError("the agent is not running: use it inside its 'async with'")
        numbers, put, pause_s = itertools.count(), stream.put, self.config.max_pause_s
        stream.begin(self._session_event(assignment, next(numbers)))
        route = self._router.route(assignment, self.pair.draft_context_length, meter.began_s)
        # Whatever is decided: of what may not leave, the way to the verifier is not there.
        connector = None if assignment.request.is_private else self._connector
        generation = Generation(route, self.pair, self._drafting, connector, meter, numbers, put, place, pause_s)
        self.metrics.began(meter, len(assignment.prompt))
        context = contextvars.copy_context()
        context.run(TRACEPARENT.set, span.traceparent)
        task = self._tasks.create_task(self._write(generation, stream, meter, span), context=context)
        stream.run_by(task, place, generation.pausing)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        task.add_done_callback(lambda _: place.leave())
        task.add_done_callback(lambda _: generation.pausing.end())  # also of one that was cut off while it waited for its place
        task.add_done_callback(lambda _: stream.ended())
        if stream.timeline is not None:
            task.add_done_callback(stream.timeline.close)
        task.add_done_callback(lambda _: self.metrics.ended(meter, None))
        task.add_done_callback(lambda _: span.end())

    async def _write(self, generation: Generation, stream: Stream, meter: Meter, span: Span) -> None:
        with self.emulation.watched(lambda: generation.emulation_changed(self.emulation.is_emulated)):
            last = await generation.run()
        span.tell(tracing.ended(last, meter.counts))
        if isinstance(last, ErrorEvent):
            span.fail(last.error["code"])
        # Before the last event: who has read it may start the next answer, and finds this one in the figures.
        self.metrics.ended(meter, last)
        stream.put([last])

    def _share_of(self, request: StreamRequest) -> Share:
        now_s = asyncio.get_running_loop().time()
        ends_s = None if request.deadline_ms is None else now_s + request.deadline_ms / 1000
        return Share(request.priority, request.tokens_per_s, ends_s)

    def _promise(self, assignment: Assignment, place: Place) -> None:
        """The rate that was asked for, where the phone may have to draft for it. Raises as ``Promises.make``."""
        place.share.max_tokens = assignment.max_tokens
        if assignment.request.mode is not Mode.CLOUD:
            is_alone = self._resolver.stays_here(assignment.request)
            self._places.promise(place, self._cache_tokens(assignment), is_alone)

    def _cache_tokens(self, assignment: Assignment) -> int:
        num_caches = 1 if self._resolver.stays_here(assignment.request) else self._drafting.num_branches
        return num_caches * assignment.limit

    async def judge(self, request: StreamRequest) -> int:
        """Whether an answer could be written here if nothing else were, and of how many tokens at most.

        Raises ``InvalidRequestError`` for what ``start`` would refuse at any time.
        """
        assignment = await self._resolver.assign(await self._found(request))
        if assignment.request.mode is not Mode.CLOUD:
            self._places.promises.judge(request.tokens_per_s, self._cache_tokens(assignment))
        return assignment.max_tokens

    def _session_event(self, assignment: Assignment, seq: int) -> SessionEvent:
        return SessionEvent(
            seq=seq,
            session_id=assignment.session_id,
            mode=assignment.request.mode.value,
            reveal=assignment.request.reveal.value,
            draft=self.pair.draft,
            full=self.pair.full,
            pair_digest=self.pair.identity.pair_digest,
            phone=self.emulation.phone,
            network=self.emulation.network,
            seed=assignment.parameters.seed,
            retrieval=assignment.retrieval,
        )

    def health(self) -> dict[str, Any]:
        """What the agent says of itself."""
        return {
            "status": "ok",
            "draft": self.pair.draft,
            "full": self.pair.full,
            "pair_digest": self.pair.identity.pair_digest,
            "pair": self.metrics.offer.to_json(),
            "phone": self.emulation.phone,
            "network": self.emulation.network,
            "verifier": self.config.verifier,
            "streams": self.num_streams,
            "max_streams": self.config.num_places,
            "queued": self._places.num_waiting,
            "max_queued_streams": self.config.max_queued_streams,
            "defaults": self._resolver.defaults(),
        }
