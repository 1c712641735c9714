"""Delays, rates and overhead of ``outrider proxy`` in another process, by plain sockets of this one and in real time."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import httpx

CHUNK_BYTES = 256 * 1024
FIRST_NAME = "outrider"
F = TypeVar("F")
S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Pair:
    """Both ends of one connection, the client's and the server's."""

    client: socket.socket
    server: socket.socket


@dataclass(frozen=True, slots=True)
class Running:
    """A proxy process in front of ``listener``, or none: then connections are direct."""

    listener: socket.socket
    address: tuple[str, int]
    control: str = ""

    @contextlib.contextmanager
    def connected(self) -> Iterator[Pair]:
        with socket.create_connection(self.address) as client:
            server, _ = self.listener.accept()
            with server:
                for end in (client, server):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                yield Pair(client, server)


@contextlib.contextmanager
def direct() -> Iterator[Running]:
    """Connections without a proxy, to compare with."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield Running(listener, listener.getsockname())


@contextlib.contextmanager
def proxied(network: str, seed: int = 1) -> Iterator[Running]:
    """Connections through a proxy of that network, which runs while the block does."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        upstream = f"127.0.0.1:{listener.getsockname()[1]}"
        flags = ["--upstream", upstream, "--network", network, "--seed", str(seed), "--control", "127.0.0.1:0", "--json"]
        command = [sys.executable, "-m", "outrider", "proxy", "--listen", "127.0.0.1:0", *flags]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        try:
            told: dict[str, Any] = json.loads(process.stdout.readline())
            threading.Thread(target=process.stdout.read, daemon=True).start()
            host, port = told["listen"].rsplit(":", 1)
            yield Running(listener, (host, int(port)), f"http://{told['control']}/proxies/{FIRST_NAME}")
        finally:
            process.terminate()
            process.wait()
            process.stdout.close()


def delays_s(sender: socket.socket, receiver: socket.socket, size: int, count: int, interval_s: float) -> list[float]:
    """One-way delays of messages of ``size`` bytes, handed over at even intervals; there is when the last byte is read."""
    message = bytes(size)

    def send() -> list[float]:
        began_s, sent_s = time.monotonic(), []
        for number in range(count):
            time.sleep(max(0.0, began_s + number * interval_s - time.monotonic()))
            sent_s.append(time.monotonic())
            sender.sendall(message)
        return sent_s

    def receive() -> list[float]:
        received_s = []
        for _ in range(count):
            read(receiver, size)
            received_s.append(time.monotonic())
        return received_s

    sent_s, received_s = both(send, receive)
    return [there - here for here, there in zip(sent_s, received_s, strict=True)]


def rates_bytes_per_s(
    sender: socket.socket, receiver: socket.socket, settle_s: float, length_s: float, window_s: float
) -> list[float]:
    """Payload bytes a second in windows, of a sender that never stops; the beginning is left out."""
    ends_s = time.monotonic() + settle_s + length_s
    counts = [0] * round(length_s / window_s)

    def send() -> None:
        while time.monotonic() < ends_s:
            with contextlib.suppress(TimeoutError):
                sender.send(bytes(CHUNK_BYTES))

    def receive() -> None:
        buffer = bytearray(CHUNK_BYTES)
        while (now_s := time.monotonic()) < ends_s:
            with contextlib.suppress(TimeoutError):
                size = receiver.recv_into(buffer)
                window = math.floor((time.monotonic() - ends_s + length_s) / window_s)
                if 0 <= window < len(counts) and now_s < ends_s:
                    counts[window] += size

    sender.settimeout(0.2)
    receiver.settimeout(0.2)
    both(send, receive)
    return [count / window_s for count in counts]


def round_trips_s(pair: Pair, count: int, size: int = 100) -> list[float]:
    """Round trips of small messages, one at a time."""

    def answer() -> None:
        for _ in range(count):
            pair.server.sendall(read(pair.server, size))

    def ask() -> list[float]:
        found = []
        for _ in range(count):
            began_s = time.perf_counter()
            pair.client.sendall(bytes(size))
            read(pair.client, size)
            found.append(time.perf_counter() - began_s)
        return found

    return both(ask, answer)[0]


def throughput_bytes_per_s(pair: Pair, num_bytes: int) -> float:
    """Bytes a second of one long transfer, until the last of them is read."""

    def send() -> None:
        for _ in range(num_bytes // CHUNK_BYTES):
            pair.client.sendall(bytes(CHUNK_BYTES))

    def receive() -> float:
        began_s, left, buffer = time.perf_counter(), num_bytes // CHUNK_BYTES * CHUNK_BYTES, bytearray(CHUNK_BYTES)
        while left:
            left -= pair.server.recv_into(buffer)
        return time.perf_counter() - began_s

    return num_bytes / both(send, receive)[1]


def are_bytes_kept(running: Running, toxics: list[dict[str, Any]], num_bytes: int) -> tuple[bool, int]:
    """Whether random bytes arrive unchanged both ways at once while toxics come and go, and how often they did."""
    done, draw, toggles = threading.Event(), random.Random(1), 0

    def toggle() -> None:
        nonlocal toggles
        with httpx.Client(base_url=running.control) as client:
            while not done.is_set():
                toxic = draw.choice(toxics)
                name = f"{toxic['type']}_{toxic['stream']}"
                if client.delete(f"/toxics/{name}").status_code == 404:
                    client.post("/toxics", json=toxic).raise_for_status()
                toggles += 1

    with running.connected() as pair:
        toggling = threading.Thread(target=toggle)
        toggling.start()
        try:
            up = partial(_is_kept, pair.client, pair.server, 1, num_bytes)
            down = partial(_is_kept, pair.server, pair.client, 2, num_bytes)
            kept = both(up, down)
        finally:
            done.set()
            toggling.join()
    return all(kept), toggles


def _is_kept(sender: socket.socket, receiver: socket.socket, seed: int, num_bytes: int) -> bool:
    def send() -> str:
        draw, digest = random.Random(seed), hashlib.sha256()
        for _ in range(num_bytes // CHUNK_BYTES):
            data = draw.randbytes(CHUNK_BYTES)
            digest.update(data)
            sender.sendall(data)
        sender.shutdown(socket.SHUT_WR)
        return digest.hexdigest()

    def receive() -> str:
        digest = hashlib.sha256()
        while data := receiver.recv(CHUNK_BYTES):
            digest.update(data)
        return digest.hexdigest()

    sent, received = both(send, receive)
    return sent == received


def read(end: socket.socket, size: int) -> bytes:
    """Exactly so many bytes."""
    data = bytearray()
    while len(data) < size:
        piece = end.recv(size - len(data))
        if not piece:
            raise ConnectionError("the connection ended early")
        data += piece
    return bytes(data)


def both(first: Callable[[], F], second: Callable[[], S]) -> tuple[F, S]:
    """What two blocking functions return that run at the same time."""
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.submit(first), pool.submit(second)
        return one.result(), other.result()
