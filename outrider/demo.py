"""``outrider demo``: one prompt and seed, written three ways, and what each of them took."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from rich.console import Console
from rich.text import Text

from device_agent.events import DoneEvent
from device_agent.request import Mode
from outrider import generate
from outrider.client import Client
from outrider.comparison import TITLES, Comparison
from outrider.display import LineView, LiveView, SilentView, TextView, View, is_watched
from outrider.local import BUNDLED, Emulation, Models
from outrider.running import say, waiting
from speculation.engines.package import load_pair
from speculation.errors import InvalidRequestError

OFFERED = 8
WARM_UP_TOKENS = 4


def list_prompts(is_json: bool = False) -> None:
    """Print every held-out prompt with its number; or, for a program, one JSON object a line, with its text."""
    for number, prompt in enumerate(load_pair().prompts, 1):
        if is_json:
            print(json.dumps({"number": number} | dict(prompt), ensure_ascii=False))
        else:
            print(f"{number:3}  {prompt['title']}  ({prompt['source']})")


def choose_prompt(number: int | None, is_quiet: bool) -> str:
    """The text of a held-out prompt: the one asked for, the one chosen at a terminal, else the first.

    Raises ``InvalidRequestError`` for a number that no prompt has.
    """
    prompts = load_pair().prompts
    if number is None:
        is_asked = not is_quiet and sys.stdin.isatty() and sys.stdout.isatty()
        number = _ask(prompts) if is_asked else 1
    if not 1 <= number <= len(prompts):
        raise InvalidRequestError(f"there is no prompt {number}; they go from 1 to {len(prompts)}", "prompt")
    return prompts[number - 1]["text"]


def _ask(prompts: Sequence[Mapping[str, str]]) -> int:
    for number, prompt in enumerate(prompts[:OFFERED], 1):
        print(f"{number:3}  {prompt['title']}")
    answer = input(f"Which prompt (1 to {len(prompts)}, Enter for 1)? ").strip()
    if not answer.isdecimal():
        if answer:
            raise InvalidRequestError(f"{answer!r} is no number of a prompt", "prompt")
        return 1
    return int(answer)


async def run(
    request: generate.Request,
    emulation: Emulation | None,
    agent: str | None,
    is_json: bool,
    models: Models = BUNDLED,
    key: str | None = None,
) -> int:
    """Write ``request`` in each mode, then compare. ``key`` is for a running ``agent``. The exit code: 1 where the texts
    differ.
    """
    console = Console(highlight=False)
    if is_json:
        with generate.JsonLines(sys.stdout) as lines:
            async with _warm_client(request, emulation, agent, models, key) as client:
                comparison = await _compare_json(client, request, lines)
        print(json.dumps(comparison.to_json()), flush=True)
    else:
        if agent is None and not is_watched(console):
            say("starting a verifier and an agent ...")
        async with _warm_client(request, emulation, agent, models, key) as client:
            comparison = await _compare(client, request, console)
        _conclude(console, comparison, emulation, models)
    return 0 if comparison.is_same_text else 1


@asynccontextmanager
async def _warm_client(
    request: generate.Request, emulation: Emulation | None, agent: str | None, models: Models, key: str | None
) -> AsyncIterator[Client]:
    """A client of an agent that has answered before, so that no figure holds what only a first answer costs."""
    async with generate.client_at(agent, emulation, models, key) as client:
        with waiting("a few tokens to warm up"):
            await generate.answer(client, replace(request, max_tokens=WARM_UP_TOKENS), SilentView())
        yield client


async def _compare_json(client: Client, request: generate.Request, lines: generate.JsonLines) -> Comparison:
    done: dict[Mode, DoneEvent] = {}
    for mode in TITLES:
        lines.begin(run=mode.value)
        done[mode] = await generate.pass_on(client, replace(request, mode=mode), lines)
    return Comparison(done)


async def _compare(client: Client, request: generate.Request, console: Console) -> Comparison:
    console.print(Text(request.prompt, "bold"))
    done: dict[Mode, DoneEvent] = {}
    for mode, title in TITLES.items():
        console.print(Text(f"\n{title}:", "cyan"))
        done[mode], _ = await generate.answer(client, replace(request, mode=mode), _view(console, request.prompt, mode))
    return Comparison(done)


def _view(console: Console, prompt: str, mode: Mode) -> View:
    """All three in place on a terminal; elsewhere the collaborative answer by steps, the others as text."""
    if is_watched(console):
        return LiveView(console, before=generate.end_of(prompt))
    return LineView(console) if mode is Mode.COLLABORATE else TextView(sys.stdout)


def _conclude(console: Console, comparison: Comparison, emulation: Emulation | None, models: Models) -> None:
    console.print()
    console.print(comparison.table())
    console.print(Text("\n" + _whose(emulation, models), "dim"), soft_wrap=True)
    console.print(Text(comparison.speed_sentence))
    console.print(Text(comparison.sentence, "bold green" if comparison.is_same_text else "bold red"), soft_wrap=True)


def _whose(emulation: Emulation | None, models: Models) -> str:
    """Whose tokens and whose time the figures show."""
    if emulation is None:
        return "Tokens are those of the agent's own pair; emulated figures show the time of what it and its verifier play."
    own = "the bundled pair's own" if models.full is None else f"those of {models.draft} and {models.full}"
    if not emulation.lines:
        return f"Tokens and times are {own}, on this computer."
    return f"Tokens are {own}. Emulated figures show the time of\n  " + "\n  ".join(emulation.lines)
