"""What is asked for: the bundled pair's held-out prompts with the seeds of their recording, and longer ones made of them."""

from __future__ import annotations

import random
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, cycle, islice

from benchmarks.trace_file import Recording, Trace
from loadtest.drafts import Drafter, FromText, Recorded
from loadtest.scenario import Group
from speculation.engines.package import Pair
from speculation.errors import ConfigurationError
from speculation.parameters import SamplingParameters
from speculation.protocol.device import DeviceSession


@dataclass(frozen=True, slots=True)
class Request:
    """One thing to ask. ``trace`` is the pair's own recording of it, where there is one."""

    token_ids: tuple[int, ...]
    text: str
    seed: int
    temperature: float
    max_tokens: int
    trace: Trace | None = None

    @property
    def body(self) -> dict[str, object]:
        """For ``POST /v1/stream``."""
        return {"prompt": self.text, "max_tokens": self.max_tokens, "temperature": self.temperature, "seed": self.seed}


class Library:
    """Requests and drafts of one pair. ``recording`` is used where it is of this very pair."""

    def __init__(self, pair: Pair, recording: Recording) -> None:
        self.vocabulary_size = pair.full.vocabulary_size
        self._pair = pair
        self._texts = [prompt["text"] for prompt in pair.prompts]
        self._encoded = [tuple(pair.full.tokenizer.encode(text).ids) for text in self._texts]
        is_ours = recording.pair_digest == pair.identity.pair_digest
        self._traces = {(trace.seed, trace.temperature): trace for trace in recording.traces} if is_ours else {}

    def check(self, groups: Sequence[Group]) -> None:
        """Raises ``ConfigurationError`` for prompts that leave no room for an answer: no service could be blamed for those."""
        most = self._pair.full.context_length - 1
        for group in groups:
            if group.prompt_tokens is not None and group.prompt_tokens[1] > most:
                raise ConfigurationError(
                    f"the group {group.name}: prompt_tokens go to {group.prompt_tokens[1]}, and prompts of the pair to {most}"
                )

    def request(self, group: Group, number: int, chance: random.Random) -> Request:
        """The request with a number, all over the prompts again and again; ``chance`` draws the length of a longer one."""
        if group.prompt_tokens is not None:
            index = number % len(self._texts)
            token_ids = self._long(index, chance.randint(*group.prompt_tokens))
            text, trace = self._pair.full.tokenizer.decode(list(token_ids)), None
        else:
            index = self._recorded(number, group.temperature)
            token_ids, text = self._encoded[index], self._texts[index]
            trace = self._traces.get((_seed(index), group.temperature))
        room = self._pair.full.context_length - len(token_ids)
        return Request(token_ids, text, _seed(index), group.temperature, min(group.max_tokens, room), trace)

    def session(self, request: Request) -> DeviceSession:
        """A device's session that asks for it."""
        return DeviceSession(
            session_id=uuid.uuid4().hex,
            identity=self._pair.identity,
            prompt=request.token_ids,
            parameters=SamplingParameters(temperature=request.temperature, seed=request.seed),
            max_tokens=request.max_tokens,
            end_token_ids=self._pair.full.end_token_ids,
        )

    def drafter(self, request: Request) -> Drafter:
        """Who drafts for it: the recording where there is one."""
        if request.trace is not None:
            return Recorded(request.trace)
        return FromText(request.token_ids, self.vocabulary_size)

    def _recorded(self, number: int, temperature: float) -> int:
        """A prompt that was recorded at this temperature; any, where none was."""
        prompts = range(len(self._texts))
        recorded = [index for index in prompts if (_seed(index), temperature) in self._traces] or prompts
        return recorded[number % len(recorded)]

    def _long(self, index: int, length: int) -> tuple[int, ...]:
        texts: Sequence[tuple[int, ...]] = [*self._encoded[index:], *self._encoded[:index]]
        return tuple(islice(chain.from_iterable(cycle(texts)), length))


def _seed(index: int) -> int:
    """The seed of a prompt with which the recorder asked for it."""
    return index + 1
