"""Users, as Locust runs them: what all have in common, and those who read over REST. Each asks, reads to the end, asks on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import gevent
from locust import HttpUser, User, task

from loadtest.answers import Answer, Drafts, End, Times, judge
from loadtest.asking import Request
from loadtest.scenario import Group
from loadtest.streaming import StreamTimes
from loadtest.world import World
from speculation.tenants import AUTHORIZATION, bearer

CUT = "cut"
UNREACHABLE = "unreachable"
NO_END = "no end"
AFTER_FAILURE_S = 1.0
UNVERIFIED = "unverified: the device ended the answer alone"


class Person(User):
    """Whoever there is: comes, asks, thinks, asks again, goes."""

    abstract = True
    group: ClassVar[Group]
    world: ClassVar[World]
    has_failed = False

    def on_start(self) -> None:
        self.world.ledger.came(self.group.name, self.world.now_s())

    def on_stop(self) -> None:
        self.world.ledger.went(self.group.name, self.world.now_s())

    def wait_time(self) -> float:
        think_s = self.world.chance.uniform(*self.group.think_s)
        # Where nobody listens, a thousand tries a second would tell no more than one.
        return max(think_s, AFTER_FAILURE_S) if self.has_failed else think_s

    @property
    def key(self) -> str | None:
        return self.world.keys.get(self.group.tenant)

    def cut_at(self) -> int | None:
        """The number of final tokens at which this answer's connection is cut; None where it is not."""
        chance, group = self.world.chance, self.group
        return chance.randint(1, max(1, group.max_tokens // 2)) if chance.random() < group.cut_share else None

    def comes_back(self) -> bool:
        return self.world.chance.random() < self.group.return_share

    @contextmanager
    def asked(self, times: Times) -> Iterator[None]:
        """An answer that is asked for in the block; kept even where this user is stopped meanwhile.

        Locust waits ``stop_limit_s`` for an answer that is under way. Whoever is stopped sooner was about to ask
        when its time was over; whoever is stopped then waits for an end that does not come.
        """
        self.world.ledger.began += 1
        try:
            yield
        except gevent.GreenletExit:
            is_young = self.world.now_s() - times.began_s < self.world.scenario.stop_limit_s
            end, how = (End.LEFT, "stopped") if is_young else (End.FAILED, NO_END)
            self.world.note(Answer(self.group.name, times, self.world.now_s(), end, how))
            raise

    def left(self, times: Times) -> None:
        """This user cut the connection and never comes back for the rest."""
        self.world.note(Answer(self.group.name, times, self.world.now_s(), End.LEFT, CUT))

    def ended(self, times: Times, how: str, drafts: Drafts, is_resumed: bool = False) -> None:
        """Note the end, and tell Locust, too."""
        answer = self.world.ended(self.group, times, how, drafts, is_resumed)
        error = RuntimeError(how) if answer.end is End.FAILED else None
        self._fire("whole answer", answer.ended_s - times.began_s, times.num_tokens, error)
        self.has_failed = answer.end is End.FAILED
        if answer.end is End.DONE:
            self._fire("first visible token", times.first_visible_s)
            self._fire("first final token", times.first_final_s)
            for gap_s in times.gaps_s:
                self._fire("inter-token", gap_s)

    def text_fault(self, request: Request, prompt: tuple[int, ...], token_ids: tuple[int, ...]) -> str:
        """What is wrong with the text of an answer, if anything."""
        known_as = (prompt, request.temperature, request.seed)
        return "" if self.world.texts.agrees(known_as, token_ids) else "another text for the same request"

    def _fire(self, name: str, seconds: float | None, length: int = 0, error: Exception | None = None) -> None:
        if seconds is None:
            return
        told: dict[str, Any] = {"response_time": seconds * 1000, "response_length": length, "exception": error}
        event = self.environment.events.request
        event.fire(request_type=self.group.kind.value, name=f"{self.group.name}: {name}", context={}, **told)


class Reader(Person, HttpUser):
    """Asks an agent over REST and reads the stream to its end; may lose the connection and read on."""

    abstract = True

    def on_start(self) -> None:
        super().on_start()
        if self.key is not None:
            self.client.headers[AUTHORIZATION] = bearer(self.key)

    @task
    def ask(self) -> None:
        request, stream = self.world.request(self.group), StreamTimes(self.world.now_s())
        with self.asked(stream.times):
            how = self._read("POST", "/v1/stream", stream, self.cut_at(), json=request.body)
            if is_cut := how == CUT:
                if not self.comes_back():
                    self.left(stream.times)
                    return
                path = f"/v1/stream/{stream.session_id}?starting_after={stream.last_seq}"
                how = self._read("GET", path, stream, None)
            self.ended(stream.times, how or self._fault(request, stream), stream.drafts, is_cut)

    def _read(self, method: str, path: str, stream: StreamTimes, cut_at: int | None, **more: Any) -> str:
        """Read until the end, which is empty where all is well, or until the cut."""
        name = f"{self.group.name}: {method} /v1/stream"
        left_s = stream.began_s + self.world.scenario.answer_limit_s - self.world.now_s()
        try:
            with (
                gevent.Timeout(left_s, TimeoutError),
                self.client.request(method, path, name=name, stream=True, catch_response=True, **more) as response,
            ):
                how = self._follow(response, stream, cut_at)
                is_fault = how != CUT and judge(how, self.group.expected) is End.FAILED
                response.failure(how) if is_fault else response.success()
                return how
        except TimeoutError:
            return NO_END

    def _follow(self, response: Any, stream: StreamTimes, cut_at: int | None) -> str:
        if response.status_code != 200:
            return f"{response.status_code or UNREACHABLE}: {_said(response)}"
        for line in response.iter_lines(chunk_size=None, decode_unicode=True):
            stream.feed(line, self.world.now_s())
            if cut_at is not None and stream.num_tokens >= cut_at and not stream.is_done:
                response.close()
                return CUT
        return stream.failure or ("" if stream.is_done else NO_END)

    def _fault(self, request: Request, stream: StreamTimes) -> str:
        """What is wrong with an answer that came to its end."""
        done = stream.done or {}
        token_ids = done["token_ids"]
        if done["verified_count"] < len(token_ids):
            return UNVERIFIED
        return self.text_fault(request, tuple(done["prompt_token_ids"]), tuple(token_ids))


def _said(response: Any) -> str:
    """What a refusal says."""
    try:
        return str(response.json()["error"]["message"])
    except (ValueError, LookupError, TypeError):
        return str(response.error or response.text[:100])
