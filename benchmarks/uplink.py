"""What a drafted token costs on the uplink: all bytes that the agent's socket writes while it generates, over tokens drafted.

Real gRPC over TCP through a proxy that counts, in wall time, with the demo's phone and cloud played: gRPC, HTTP/2 and TLS-less
TCP payload are all in it, the connection's own set-up is not (it is made once, and kept). Drafted are the nodes that were sent.
The second table says what the bytes were for (``frames.py``).
"""

from __future__ import annotations

import argparse
import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass

from rich.progress import Progress

import cloud_verifier.server
import device_agent.build
from benchmarks.frames import Share, UplinkBytes
from benchmarks.report import Grid, add_arguments, publish
from benchmarks.virtual import last_event
from cloud_verifier.config import VerifierConfig
from device_agent.config import AgentConfig
from device_agent.request import StreamRequest
from speculation.engines.package import load_pair
from speculation.shaping.profiles import DEFAULT_CLOUD, DEFAULT_NETWORK, DEFAULT_PHONE, UNSHAPED

NUM_TOKENS, NUM_PROMPTS = 128, 8
NUM_TOKENS_QUICK, NUM_PROMPTS_QUICK = 32, 1
TEMPERATURES = (0.0, 0.8)
CASES = (
    ("adaptive", UNSHAPED),
    ("adaptive", DEFAULT_NETWORK),
    ("ahead", UNSHAPED),
    ("second-branch", UNSHAPED),
    ("fixed-length", UNSHAPED),
)
"""Policies, each on a network; without one, a message is there at once. The short form runs the second, drawn."""
MOST_BITS = 100
WHO = ("temperature", "policy", "network")
COLUMNS = (*WHO, "bytes written", "messages", "tokens drafted", "bits a drafted token", "tokens/s", "")
SHARE_COLUMNS = (*WHO, *Share, "all bits", "tokens a message", "messages a pass")


@asynccontextmanager
async def counting_proxy(target: str, count: UplinkBytes) -> AsyncIterator[str]:
    """A TCP port on loopback that passes everything on to ``target`` and counts what its one client writes."""
    host, port = target.rsplit(":", 1)
    connections: set[asyncio.Task[None]] = set()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, is_up: bool) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                if is_up:
                    count.feed(data)
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if (task := asyncio.current_task()) is not None:
            connections.add(task)
        upstream_reader, upstream_writer = await asyncio.open_connection(host, int(port))
        try:
            with suppress(asyncio.CancelledError):  # the block below is left: nobody else ends this task
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(pump(reader, upstream_writer, True))
                    tasks.create_task(pump(upstream_reader, writer, False))
        finally:
            upstream_writer.close()
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections)
        await server.wait_closed()  # from Python 3.12 on for its connections, too


@dataclass(frozen=True, slots=True)
class Row:
    """One policy on one network at one temperature, over all prompts. ``shares``: bytes written, by what they were for."""

    temperature: float
    policy: str
    network: str
    shares: dict[str, int]
    messages: int
    drafts: int
    drafted: int
    passes: int
    tokens_per_s: float

    @property
    def up_bytes(self) -> int:
        return sum(self.shares.values())

    @property
    def bits(self) -> float:
        return self._a_token(self.up_bytes)

    def cells(self) -> list[str]:
        figures = [f"{self.up_bytes}", f"{self.messages}", f"{self.drafted}", f"{self.bits:.0f}", f"{self.tokens_per_s:.1f}"]
        return [*self._who(), *figures, "" if self.bits < MOST_BITS else "OVER"]

    def share_cells(self) -> list[str]:
        bits = [f"{self._a_token(self.shares[share]):.1f}" for share in Share]
        counts = [f"{self.drafted / max(self.drafts, 1):.1f}", f"{self.drafts / max(self.passes, 1):.2f}"]
        return [*self._who(), *bits, f"{self.bits:.1f}", *counts]

    def _who(self) -> list[str]:
        return [f"{self.temperature}", self.policy, self.network]

    def _a_token(self, num_bytes: int) -> float:
        return 8 * num_bytes / max(self.drafted, 1)


async def row(
    policy: str, network: str, temperature: float, prompts: Sequence[str], num_tokens: int, progress: Progress
) -> Row:
    count, messages, rates, usage = UplinkBytes(), 0, [], Counter[str]()
    patience = "never" if policy == "fixed-length" else "auto"
    async with (
        cloud_verifier.server.serve(VerifierConfig(port=0, cloud=DEFAULT_CLOUD, patience=patience)) as verifier,
        counting_proxy(verifier.target, count) as target,
        device_agent.build.build_agent(
            AgentConfig(verifier=target, phone=DEFAULT_PHONE, network=network, drafting=policy)
        ) as agent,
    ):
        await last_event(agent, StreamRequest(prompts[0], max_tokens=2))
        count.clear()
        task = progress.add_task(f"{policy}, {network}, temperature {temperature}", total=len(prompts))
        for seed, prompt in enumerate(prompts):
            request = StreamRequest(prompt, max_tokens=num_tokens, temperature=temperature, seed=seed)
            done = await last_event(agent, request)
            usage.update({name: done.usage[name] for name in ("proposed", "passes")})
            messages += done.figures["messages_up"]["value"]
            rates.append(done.figures["tokens_per_s"]["value"])
            progress.advance(task)
    shares = {share.value: count.shares[share] for share in Share}
    rate = sum(rates) / len(rates)
    return Row(temperature, policy, network, shares, messages, count.num_drafts, usage["proposed"], usage["passes"], rate)


async def measure(is_quick: bool) -> list[Row]:
    num_prompts, num_tokens = (NUM_PROMPTS_QUICK, NUM_TOKENS_QUICK) if is_quick else (NUM_PROMPTS, NUM_TOKENS)
    cases, temperatures = (CASES[1:2], TEMPERATURES[1:]) if is_quick else (CASES, TEMPERATURES)
    prompts = [str(prompt["text"]) for prompt in load_pair().prompts[:num_prompts]]
    with Progress(transient=True) as progress:
        return [await row(*case, t, prompts, num_tokens, progress) for t in temperatures for case in cases]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    arguments = parser.parse_args()
    rows = asyncio.run(measure(arguments.quick))
    title = (
        f"Uplink while generating (bundled pair on an emulated phone and cloud; aim: under {MOST_BITS} bits a drafted token)"
    )
    grids = [
        Grid(title, COLUMNS, [r.cells() for r in rows]),
        Grid("What they are for: bits a drafted token", SHARE_COLUMNS, [r.share_cells() for r in rows]),
    ]
    publish(arguments, "uplink", grids, [asdict(r) | {"up_bytes": r.up_bytes, "bits": r.bits} for r in rows])


if __name__ == "__main__":
    main()
