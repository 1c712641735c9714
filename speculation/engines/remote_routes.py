"""How servers are asked for log-probabilities of a prompt, and what they answer: vLLM's route, and SGLang's. No socket here.

A row is what follows behind one position. Of a prompt with L tokens the last row lies behind all of them, so it comes as the
first generated token's alternatives; the rows before it come as the alternatives to tokens of the prompt. Both servers give
the N likeliest tokens, and vLLM one more: the token that stands there, or was drawn. That one is left out again where it is
not among the N, since it would make a row depend on what follows it: a draft would be weighed because it was drafted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from speculation.errors import EngineError

UNLIKELY = np.float32(-1e30)
"""In the place of a token that was not returned: finite, and too low to be chosen at any temperature."""

TOKEN_ID = "token_id:"
ENTRY_BYTES, ANSWER_BYTES, MOST_BYTES = 512, 256 * 1024, 256 * 1024 * 1024
"""Bounds of one token's entry with its text, of what stands around the rows, and of a whole answer."""


class Row(NamedTuple):
    """The returned tokens of one row, without order."""

    token_ids: NDArray[np.int64]
    values: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Asked:
    """The rows that are wanted: the last ``num_rows`` (1 or more) of a prompt."""

    token_ids: Sequence[int]
    num_rows: int


@dataclass(frozen=True, slots=True)
class Served:
    """What every request names: the model, the size of its vocabulary, and how many tokens of a row are returned."""

    model: str
    vocabulary_size: int
    num_logprobs: int


class Route(Protocol):
    """One way to ask. ``rows`` raises ``EngineError`` for rows that are missing; whatever else it raises means that the answer
    is none of this route."""

    @property
    def path(self) -> str: ...

    def request(self, asked: Asked) -> dict[str, Any]:
        """The body of the request."""

    def rows(self, answer: Any, asked: Asked) -> list[Row]: ...

    def limit_bytes(self, asked: Asked) -> int:
        """An answer has no more."""


@dataclass(frozen=True, slots=True)
class VllmRoute:
    """vLLM's ``/v1/completions`` with ``prompt_logprobs``, where more than the last row is wanted: the answer then has a row
    for every position of the prompt, and vLLM computes the whole prompt again, past its prefix cache."""

    served: Served
    path: str = "/v1/completions"

    def request(self, asked: Asked) -> dict[str, Any]:
        body = _completion(self.served, list(asked.token_ids))
        return body if asked.num_rows == 1 else body | {"prompt_logprobs": self.served.num_logprobs}

    def rows(self, answer: Any, asked: Asked) -> list[Row]:
        choice = _only(answer["choices"], "choice")
        return [*self._of_prompt(choice, asked), _generated(choice, self.served)]

    def limit_bytes(self, asked: Asked) -> int:
        return _limit(self.served, 1 if asked.num_rows == 1 else len(asked.token_ids))

    def _of_prompt(self, choice: Mapping[str, Any], asked: Asked) -> Iterable[Row]:
        length = len(asked.token_ids)
        if asked.num_rows == 1:
            return
        entries = choice["prompt_logprobs"]
        if len(entries) != length:
            raise EngineError(f"prompt_logprobs has {len(entries)} rows for a prompt of {length} tokens")
        for position in range(length - asked.num_rows + 1, length):
            if (entry := entries[position]) is None:
                raise EngineError(f"prompt_logprobs has no row at position {position}: was a prefix cache read?")
            found = [(int(key), value["logprob"]) for key, value in entry.items()]
            yield _row(found, int(asked.token_ids[position]), self.served)


@dataclass(frozen=True, slots=True)
class VllmPrefixesRoute:
    """vLLM's ``/v1/completions`` with one prompt a row, in one request: each ends where its row begins. Prefix caches are
    read, the answer holds what is wanted and nothing else, and all rows are computed in one way."""

    served: Served
    path: str = "/v1/completions"

    def request(self, asked: Asked) -> dict[str, Any]:
        token_ids = list(asked.token_ids)
        first = len(token_ids) - asked.num_rows + 1
        return _completion(self.served, [token_ids[:end] for end in range(first, len(token_ids) + 1)])

    def rows(self, answer: Any, asked: Asked) -> list[Row]:
        choices = {int(choice["index"]): choice for choice in answer["choices"]}
        if sorted(choices) != list(range(asked.num_rows)) or len(answer["choices"]) != asked.num_rows:
            raise EngineError(f"choices {sorted(choices)} came for {asked.num_rows} prompts")
        return [_generated(choices[index], self.served) for index in range(asked.num_rows)]

    def limit_bytes(self, asked: Asked) -> int:
        return _limit(self.served, asked.num_rows)


@dataclass(frozen=True, slots=True)
class SglangRoute:
    """SGLang's ``/generate``: rows from ``logprob_start_len`` on, of which the first has no alternatives; its cache is read up
    to there."""

    served: Served
    path: str = "/generate"

    def request(self, asked: Asked) -> dict[str, Any]:
        # At temperature 1 the generated token's log-probabilities are those of the model: SGLang divides before it takes them.
        sampling = {"max_new_tokens": 1, "temperature": 1.0, "top_p": 1.0, "top_k": -1, "min_p": 0.0, **NO_PENALTIES}
        return {
            "input_ids": list(asked.token_ids),
            "sampling_params": sampling,
            "return_logprob": True,
            "logprob_start_len": len(asked.token_ids) - asked.num_rows if asked.num_rows > 1 else -1,
            "top_logprobs_num": self.served.num_logprobs,
            "return_text_in_logprobs": False,
            "stream": False,
        }

    def rows(self, answer: Any, asked: Asked) -> list[Row]:
        meta = answer["meta_info"]
        entries = []
        if asked.num_rows > 1:
            entries = meta["input_top_logprobs"]
            if len(entries) != asked.num_rows:
                raise EngineError(f"input_top_logprobs has {len(entries)} rows, not {asked.num_rows}")
        entries = [*entries[1:], _only(meta["output_top_logprobs"], "row of output_top_logprobs")]
        if None in entries:
            raise EngineError(f"row {entries.index(None)} of {len(entries)} has no top log-probabilities")
        return [_row([(token_id, value) for value, token_id, *_ in entry], None, self.served) for entry in entries]

    def limit_bytes(self, asked: Asked) -> int:
        return _limit(self.served, asked.num_rows + 1)


ROUTES: Mapping[str, type[VllmRoute] | type[VllmPrefixesRoute] | type[SglangRoute]] = {
    "vllm": VllmRoute,
    "vllm-prefixes": VllmPrefixesRoute,
    "sglang": SglangRoute,
}

NO_PENALTIES = {"repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
"""Said aloud, since a server may have other defaults from the model's ``generation_config.json``."""


def _completion(served: Served, prompt: Sequence[int] | Sequence[Sequence[int]]) -> dict[str, Any]:
    body = {"model": served.model, "prompt": prompt, "max_tokens": 1, "temperature": 0.0, "logprobs": served.num_logprobs}
    return body | {"return_tokens_as_token_ids": True, "stream": False, **NO_PENALTIES}


def _generated(choice: Mapping[str, Any], served: Served) -> Row:
    """The row of the one token that vLLM generated."""
    logprobs = choice["logprobs"]
    token, entry = _only(logprobs["tokens"], "token"), _only(logprobs["top_logprobs"], "row of top_logprobs")
    return _row([(_token_id(key), value) for key, value in entry.items()], _token_id(token), served)


def _token_id(key: str) -> int:
    if not key.startswith(TOKEN_ID):
        raise EngineError(f"tokens must come as {TOKEN_ID}N, not as {key!r}: return_tokens_as_token_ids is not known there")
    return int(key.removeprefix(TOKEN_ID))


def _only(entries: Sequence[Any], what: str) -> Any:
    if len(entries) != 1:
        raise EngineError(f"one {what} was asked for, {len(entries)} came")
    return entries[0]


def _row(found: Sequence[tuple[int, float | None]], extra: int | None, served: Served) -> Row:
    """A row with the token that vLLM adds taken out again; None (JSON's minus infinity) is unlikely."""
    if len(found) > served.num_logprobs:
        found = [(token_id, value) for token_id, value in found if token_id != extra]
    if len(found) != served.num_logprobs:
        raise EngineError(f"a row has {len(found)} tokens, {served.num_logprobs} were asked for")
    token_ids = np.array([token_id for token_id, _ in found], np.int64)
    if token_ids.min() < 0 or token_ids.max() >= served.vocabulary_size or len(np.unique(token_ids)) < len(token_ids):
        said = f"ids {token_ids.min()} to {token_ids.max()}, {len(np.unique(token_ids))} different ones of {len(token_ids)}"
        raise EngineError(f"a row must have different tokens of a vocabulary of {served.vocabulary_size}: {said}")
    values = np.array([UNLIKELY if value is None else value for _, value in found], np.float64)
    if not values.max() > UNLIKELY or not values.max() < -UNLIKELY:
        raise EngineError(f"a row's highest log-probability is {values.max()}")
    return Row(token_ids, np.maximum(values, UNLIKELY).astype(np.float32))


def _limit(served: Served, num_rows: int) -> int:
    return min(ANSWER_BYTES + num_rows * (served.num_logprobs + 1) * ENTRY_BYTES, MOST_BYTES)
