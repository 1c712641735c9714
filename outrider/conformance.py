"""``outrider conformance``: whether a running verifier keeps what ``docs/protocol.md`` promises a device, case by case."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.text import Text

from outrider import conformance_drafts, conformance_logprobs, conformance_sessions
from outrider.conformance_bench import Bench, Case, Subject, bench_at
from outrider.conformance_stream import CheckFailedError, OvertakenError
from speculation.certificates import ClientTls
from speculation.engines.package import load_pair
from speculation.errors import InvalidRequestError, OutriderError, PackageError, UnknownNameError, status_of
from speculation.links.grpc import GrpcConnector
from speculation.links.targets import is_target

CASES: tuple[Case, ...] = (*conformance_sessions.CASES, *conformance_drafts.CASES, *conformance_logprobs.CASES)
LEARNS_THE_TEXT = CASES[0]
TRIES = 20
"""Of a case that found the session over before its message could come: on a busy machine, beside passes of half a millisecond,
five were too few once."""
TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Result:
    """How one case went; ``failure`` is what was expected and what came, None where the case passed."""

    name: str
    promise: str
    failure: str | None

    @property
    def passed(self) -> bool:
        return self.failure is None


async def run(
    target: str,
    pair: Path | None,
    is_json: bool,
    timeout_s: float = TIMEOUT_S,
    only: Sequence[str] = (),
    key: str | None = None,
    tls: ClientTls | None = None,
) -> int:
    """Check the verifier at ``target`` and print a line for each case. The exit code: 1 where a case failed.

    Raises ``InvalidRequestError`` and ``UnknownNameError`` for bad arguments, ``LinkError`` where nobody listens.
    """
    _require_arguments(target, timeout_s, only)
    subject = _subject(pair)
    await _require_somebody(target, tls)
    console = Console(highlight=False)
    results: list[Result] = []
    async with aclosing(check(target, subject, timeout_s, only, key, tls)) as checked:
        async for result in checked:
            results.append(result)
            _print(result, console, is_json)
    _conclude(results, target, console, is_json)
    return 0 if all(result.passed for result in results) else 1


async def check(
    target: str,
    subject: Subject,
    timeout_s: float = TIMEOUT_S,
    only: Collection[str] = (),
    key: str | None = None,
    tls: ClientTls | None = None,
) -> AsyncGenerator[Result, None]:
    """The results, as they come. The full model's text is learned first, even where ``only`` names other cases: that this
    failed is then told too, for it is why they do.
    """
    async with bench_at(target, subject, key, tls) as bench:
        for case in CASES:
            is_wanted = not only or case.name in only
            if is_wanted or case is LEARNS_THE_TEXT:
                result = await _result(case, bench, timeout_s)
                if is_wanted or not result.passed:
                    yield result


async def _result(case: Case, bench: Bench, timeout_s: float) -> Result:
    try:
        async with asyncio.timeout(timeout_s):
            await _try(case, bench)
    except TimeoutError:
        return Result(case.name, case.promise, f"no end of the case within {timeout_s:g} s")
    except CheckFailedError as error:
        return Result(case.name, case.promise, str(error))
    except OutriderError as error:
        return Result(case.name, case.promise, f"expected no error here; got {status_of(error).grpc} ({error})")
    return Result(case.name, case.promise, None)


async def _try(case: Case, bench: Bench) -> None:
    """Once more, a few times, where the session outran our messages: that says nothing of the verifier."""
    for _ in range(TRIES - 1):
        try:
            return await case.check(bench)
        except OvertakenError:
            continue
    return await case.check(bench)


def _require_arguments(target: str, timeout_s: float, only: Sequence[str]) -> None:
    if not is_target(target.removeprefix("dns:///")):  # an agent may know several, or who tells them; here one is checked
        raise InvalidRequestError(
            f"--verifier is the one to check, as host:port, such as 127.0.0.1:50051, not {target!r}", "verifier"
        )
    if not timeout_s > 0:
        raise InvalidRequestError(f"timeout must be over 0 s, not {timeout_s:g}", "timeout")
    names = [case.name for case in CASES]
    for name in only:
        if name not in names:
            raise UnknownNameError("case", name, names)


def _subject(path: Path | None) -> Subject:
    try:
        return Subject.of_pair(load_pair(path))
    except PackageError as error:
        if path is None:
            raise
        raise InvalidRequestError(f"--pair: {error}", "pair") from error


async def _require_somebody(target: str, tls: ClientTls | None) -> None:
    connector = GrpcConnector(target, tls=tls)
    try:
        await (await connector.connect()).aclose()
    finally:
        await connector.aclose()


def _print(result: Result, console: Console, is_json: bool) -> None:
    if is_json:
        print(json.dumps({"event": "case", "passed": result.passed} | asdict(result), ensure_ascii=False), flush=True)
        return
    line = Text("passed  ", "green") if result.passed else Text("FAILED  ", "bold red")
    line.append(result.name, "bold").append(f": {result.promise}")
    if result.failure is not None:
        line.append(" | " + " ".join(result.failure.split()), "red")
    console.print(line, soft_wrap=True)


def _conclude(results: Sequence[Result], target: str, console: Console, is_json: bool) -> None:
    num_passed = sum(result.passed for result in results)
    if is_json:
        summary = {"event": "summary", "verifier": target, "passed": num_passed, "failed": len(results) - num_passed}
        print(json.dumps(summary), flush=True)
        return
    style = "bold green" if num_passed == len(results) else "bold red"
    console.print(Text(f"{num_passed} of {len(results)} cases passed by the verifier at {target}", style), soft_wrap=True)
