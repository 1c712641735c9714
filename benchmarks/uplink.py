"""What a drafted token costs on the uplink: all bytes that the agent's socket writes while it generates, over tokens drafted.

Real gRPC over TCP through a proxy that counts, in wall time, with the demo's phone and cloud played: gRPC, HTTP/2 and TLS-less
TCP payload are all in it, the connection's own set-up is not (it is made once, and kept). Drafted are the nodes that were sent.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass

from rich.progress import Progress

import cloud_verifier.server
import device_agent.build
from benchmarks.report import Grid, add_arguments, publish
from benchmarks.virtual import last_event
from cloud_verifier.config import VerifierConfig
from device_agent.config import AgentConfig
from device_agent.request import StreamRequest
from speculation.engines.package import load_pair
from speculation.shaping.profiles import DEFAULT_CLOUD, DEFAULT_PHONE

NUM_TOKENS, NUM_PROMPTS, NUM_PROMPTS_QUICK = 128, 8, 1
TEMPERATURES = (0.0, 0.8)
POLICIES = ("adaptive", "ahead", "second-branch", "fixed-length")
MOST_BITS = 100
COLUMNS = ("temperature", "policy", "bytes written", "messages", "tokens drafted", "bits a drafted token", "tokens/s", "")


@dataclass(slots=True)
class Count:
    """Bytes that went up through the proxy."""

    up_bytes: int = 0


@asynccontextmanager
async def counting_proxy(target: str, count: Count) -> AsyncIterator[str]:
    """A TCP port on loopback that passes everything on to ``target`` and counts what its client writes."""
    host, port = target.rsplit(":", 1)

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, is_up: bool) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                count.up_bytes += len(data) * is_up
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_connection(host, int(port))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(pump(reader, upstream_writer, True))
            tasks.create_task(pump(upstream_reader, writer, False))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


@dataclass(frozen=True, slots=True)
class Row:
    """One policy at one temperature, over all prompts."""

    temperature: float
    policy: str
    up_bytes: int
    messages: int
    drafted: int
    tokens_per_s: float

    @property
    def bits(self) -> float:
        return 8 * self.up_bytes / self.drafted

    def cells(self) -> list[str]:
        figures = [f"{self.up_bytes}", f"{self.messages}", f"{self.drafted}", f"{self.bits:.0f}", f"{self.tokens_per_s:.1f}"]
        return [f"{self.temperature}", self.policy, *figures, "" if self.bits < MOST_BITS else "OVER"]


async def row(policy: str, temperature: float, prompts: Sequence[str], progress: Progress) -> Row:
    count, drafted, messages, rates = Count(), 0, 0, []
    patience = "never" if policy == "fixed-length" else "auto"
    async with (
        cloud_verifier.server.serve(VerifierConfig(port=0, cloud=DEFAULT_CLOUD, patience=patience)) as verifier,
        counting_proxy(verifier.target, count) as target,
        device_agent.build.build_agent(AgentConfig(verifier=target, phone=DEFAULT_PHONE, drafting=policy)) as agent,
    ):
        await last_event(agent, StreamRequest(prompts[0], max_tokens=2))
        count.up_bytes = 0
        task = progress.add_task(f"{policy}, temperature {temperature}", total=len(prompts))
        for seed, prompt in enumerate(prompts):
            request = StreamRequest(prompt, max_tokens=NUM_TOKENS, temperature=temperature, seed=seed)
            done = await last_event(agent, request)
            drafted += done.usage["proposed"]
            messages += done.figures["messages_up"]["value"]
            rates.append(done.figures["tokens_per_s"]["value"])
            progress.advance(task)
    return Row(temperature, policy, count.up_bytes, messages, drafted, sum(rates) / len(rates))


async def measure(num_prompts: int) -> list[Row]:
    prompts = [str(prompt["text"]) for prompt in load_pair().prompts[:num_prompts]]
    with Progress(transient=True) as progress:
        return [await row(p, t, prompts, progress) for t in TEMPERATURES for p in POLICIES]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    arguments = parser.parse_args()
    rows = asyncio.run(measure(NUM_PROMPTS_QUICK if arguments.quick else NUM_PROMPTS))
    title = (
        f"Uplink while generating (bundled pair on an emulated phone and cloud; aim: under {MOST_BITS} bits a drafted token)"
    )
    publish(
        arguments, "uplink", [Grid(title, COLUMNS, [r.cells() for r in rows])], [asdict(r) | {"bits": r.bits} for r in rows]
    )


if __name__ == "__main__":
    main()
