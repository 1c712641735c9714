"""llama.cpp's own server on the same weights, and what its clients get: a process beside this one, asked over HTTP.

    python -m benchmarks.processes.llama_server LLAMA_SERVER CHECKPOINT --counts N... [--temperatures T...] [--seconds S]

Each client asks for one recorded text after the other, as replay devices do (``devices.py``): its prompt as token ids, as many
tokens as were recorded, streamed. The server has a slot and a context for each client, runs on one thread, batches
continuously, and reuses no prompt, as the verifier beside it does not. Prints one line of JSON a count and temperature.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import re
import tempfile
import time
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from benchmarks.processes.devices import Script, scripts
from benchmarks.processes.peers import weights
from benchmarks.processes.yielding import yielding
from benchmarks.rivals.llama import write_gguf
from benchmarks.trace_file import load
from speculation.engines.package import load_pair

LISTENS = re.compile(rb"listening on (http://[\d.]+:\d+)")
DATA = "data: "
WARM_UP_S, WARM_UP_A_CLIENT_S = 1.0, 0.15
WINDOW_A_CLIENT_S = 0.25
"""More of the window for each client: it holds as many prompts for its tokens as the texts do only where each client writes a
text and more."""


@dataclass(slots=True)
class Counted:
    """Of all clients together. ``texts`` are those that ended, ``same_texts`` those that are the recorded ones."""

    tokens: int = 0
    texts: int = 0
    same_texts: int = 0


def write_model(folder: Path, checkpoint: Path) -> Path:
    """The checkpoint as GGUF in float32, with its vocabulary. Needs the extra ``rivals``."""
    config, tokenizer = (json.loads((checkpoint / name).read_text("utf-8")) for name in ("config.json", "tokenizer.json"))
    return write_gguf(folder / "model.gguf", config, weights(checkpoint), tokenizer)


def flags(model: Path, count: int, context_length: int) -> list[str]:
    """How the server is started for so many clients: one thread as the others have, a context for each client."""
    given = {
        "--model": model,
        "--host": "127.0.0.1",
        "--port": 0,
        "--threads": 1,
        "--threads-batch": 1,
        "--parallel": count,
        "--ctx-size": count * context_length,
        "--cache-ram": 0,
    }
    return [*(str(part) for flag in given.items() for part in flag), "--cont-batching", "--no-cache-prompt"]


def request(script: Script, done: int) -> dict[str, Any]:
    """What is asked of ``/completion`` behind the first ``done`` tokens of a text: the token ids, and no filter but the
    temperature, as in the recorded texts."""
    return {
        "prompt": [*script.prompt, *script.token_ids[:done]],
        "n_predict": len(script.token_ids) - done,
        "temperature": script.parameters.temperature,
        "seed": script.parameters.seed,
        "samplers": ["temperature"],
        "stream": True,
        "return_tokens": True,
        "cache_prompt": False,
    }


@asynccontextmanager
async def server(command: Sequence[str]) -> AsyncIterator[str]:
    """The address of a server that runs until the block is left. Raises ``RuntimeError`` where it does not start."""
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=STDOUT)
    try:
        url = await _listening(process)
        async with asyncio.TaskGroup() as tasks:
            # What it logs is read and dropped: a full pipe would stop it.
            tasks.create_task(process.communicate())
            yield url
            process.terminate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _listening(process: Process) -> str:
    assert process.stdout is not None
    said = b""
    async for line in process.stdout:
        said += line
        if found := LISTENS.search(line):
            return found[1].decode()
    raise RuntimeError(f"llama.cpp's server ended before it was up: {said[-500:].decode(errors='replace')}")


async def answer(http: httpx.AsyncClient, script: Script, done: int, counted: Counted) -> None:
    """One text. The server counts: a token that ends inside a character comes with a later event."""
    token_ids: list[int] = []
    before = 0
    async with http.stream("POST", "/completion", json=request(script, done)) as response:
        response.raise_for_status()
        async for line in response.aiter_lines():
            if line.startswith(DATA):
                said = json.loads(line.removeprefix(DATA))
                token_ids += said["tokens"]
                counted.tokens += said["tokens_predicted"] - before
                before = said["tokens_predicted"]
    counted.texts += 1
    counted.same_texts += token_ids == script.token_ids[done:]


async def client(number: int, http: httpx.AsyncClient, texts: Sequence[Script], counted: Counted) -> None:
    """Until cancelled. The first text is gone on with somewhere, so that clients do not end together."""
    chance = random.Random(number)
    for index in itertools.count(number):
        script = texts[index % len(texts)]
        await answer(http, script, chance.randrange(len(script.token_ids)) if index == number else 0, counted)


async def measure(url: str, texts: Sequence[Script], count: int, seconds: float) -> dict[str, float]:
    """What so many clients got within the seconds, and more for each client, once the first prompts of all of them are read.
    ``client_cpu`` is this process's, in cores."""
    counted = Counted()
    # A connection for each text: now and then the server closes one that is kept just as the next request comes.
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=None) as http, asyncio.TaskGroup() as clients:
        tasks = [clients.create_task(client(number, http, texts, counted)) for number in range(count)]
        await asyncio.sleep(WARM_UP_S + count * WARM_UP_A_CLIENT_S)
        tokens, began_s, cpu_s = counted.tokens, time.monotonic(), time.process_time()
        await asyncio.sleep(seconds + count * WINDOW_A_CLIENT_S)
        took_s, cpu_s = time.monotonic() - began_s, time.process_time() - cpu_s
        tokens = counted.tokens - tokens
        for task in tasks:
            task.cancel()
    return {
        "count": count,
        "tokens_per_s": tokens / took_s,
        "client_cpu": cpu_s / took_s,
        "texts": counted.texts,
        "same_texts": counted.same_texts,
    }


async def run(given: argparse.Namespace) -> None:
    pair, recording = load_pair(), load()
    with tempfile.TemporaryDirectory() as folder:
        model = write_model(Path(folder), given.checkpoint)
        for count in given.counts:
            command = [str(given.llama_server), *flags(model, count, pair.full.context_length)]
            async with server(command) as url:
                for temperature in given.temperatures:
                    texts = scripts(recording, pair, temperature)
                    with yielding():
                        found = await measure(url, texts, count, given.seconds)
                    print(json.dumps({"temperature": temperature} | found), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("llama_server", type=Path)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--counts", type=int, nargs="+", required=True)
    parser.add_argument("--temperatures", type=float, nargs="+", default=[0.0, 0.8])
    parser.add_argument("--seconds", type=float, default=5.0)
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
