"""What else decodes the same weights on this machine, one thread each: the peers of the capacity benchmark, where installed.

Each is asked once for every number of devices, before the rounds. One that is not there is left out, and the reason is printed.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from speculation.engines.package import bundled_pair_path

NEEDS = {
    "transformers generate": ("transformers", ("torch", "transformers", "safetensors")),
    "llama.cpp, no server": ("llama.cpp", ("llama_cpp", "gguf", "safetensors")),
}
"""A column's name -> the engine as ``processes/peers.py`` calls it, and the modules that it imports."""
SERVER, SERVER_NEEDS = "llama.cpp's server", ("gguf", "safetensors")
PEER_STEPS = 64
SERVER_SECONDS = 5.0

Peers = Mapping[float, Mapping[str, Mapping[int, float]]]
"""Tokens a second by temperature, name and number of devices."""


async def peers(counts: Sequence[int], llama_server: Path | None) -> Peers:
    """The rates of all that is there. Raises ``RuntimeError`` where one of them fails."""
    greedy: dict[str, dict[int, float]] = {}
    for name, (engine, modules) in NEEDS.items():
        if not _is_left_out(name, modules):
            answers = await _asked("benchmarks.processes.peers", engine, counts, "--steps", str(PEER_STEPS))
            greedy[name] = {answer["count"]: answer["tokens_per_s"] for answer in answers}
    found = {0.0: greedy}
    for answer in await _server(counts, llama_server):
        rates = found.setdefault(answer["temperature"], {}).setdefault(SERVER, {})
        rates[answer["count"]] = answer["tokens_per_s"]
        if answer["temperature"] == 0:  # what is drawn is its own
            same = f"{answer['same_texts']} of {answer['texts']} texts are the recorded ones"
            print(f"{SERVER}, {answer['count']} clients, temperature 0: {same}", file=sys.stderr)
    return found


async def _server(counts: Sequence[int], given: Path | None) -> list[dict[str, Any]]:
    path = shutil.which(given or "llama-server")
    if path is None:
        _say_left_out(SERVER, f"no program {given or 'llama-server'}; name one by --llama-server PATH")
        return []
    if _is_left_out(SERVER, SERVER_NEEDS):
        return []
    return await _asked("benchmarks.processes.llama_server", path, counts, "--seconds", str(SERVER_SECONDS))


def _is_left_out(name: str, modules: Sequence[str]) -> bool:
    lacking = [module for module in modules if importlib.util.find_spec(module) is None]
    if lacking:
        _say_left_out(name, f"{', '.join(lacking)} not installed; pip install 'outrider[rivals]'")
    return bool(lacking)


def _say_left_out(name: str, why: str) -> None:
    print(f"left out: {name} ({why})", file=sys.stderr)


async def _asked(module: str, what: str, counts: Sequence[int], *flags: str) -> list[dict[str, Any]]:
    command = ["-m", module, what, str(bundled_pair_path() / "full"), *flags, "--counts", *map(str, counts)]
    process = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=asyncio.subprocess.PIPE)
    lines = (await process.communicate())[0].decode().splitlines()
    if process.returncode:
        raise RuntimeError(f"{what} failed")
    return [json.loads(line) for line in lines if line.startswith("{")]
