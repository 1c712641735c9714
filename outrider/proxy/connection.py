"""One proxied connection: two sockets, and a lane each way between them. Callbacks alone, no task.

Bounded: a lane that is full, or a socket that takes no more, stops the reading at the other end, and so TCP's own flow control
stops whoever sends.
"""

from __future__ import annotations

import asyncio
import math
import socket
import struct
from collections.abc import Callable

from speculation.shaping.lane import Lane
from speculation.shaping.stages import Kind

WRITE_BUFFER_BYTES = 512 * 1024
"""What may wait for a socket to take it before nothing more is written."""

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Connection:
    """Two ends that exchange what they get through a lane each way. ``on_end`` is called once, when both are closed."""

    def __init__(self, upstream: Lane, downstream: Lane, on_end: Callable[[Connection], None]) -> None:
        self.client = End(self, upstream)
        self.server = End(self, downstream)
        self.client.peer, self.server.peer = self.server, self.client
        self.is_closing = False
        self._on_end: Callable[[Connection], None] | None = on_end

    @property
    def ends(self) -> tuple[End, End]:
        return self.client, self.server

    def finish(self) -> None:
        """Close both ends; what their sockets were handed is sent."""
        self.is_closing = True
        for end in self.ends:
            end.close()

    def reset(self) -> None:
        """End both at once, with a reset: what is under way is lost."""
        self.is_closing = True
        for end in self.ends:
            end.abort()

    def end_is_closed(self) -> None:
        if self.client.is_closed and self.server.is_closed and self._on_end is not None:
            on_end, self._on_end = self._on_end, None
            on_end(self)


class End(asyncio.Protocol):
    """One socket. What it reads goes through its lane to its peer, which writes it when it is due."""

    peer: End

    def __init__(self, connection: Connection, lane: Lane) -> None:
        self.lane = lane
        self.num_bytes = 0
        self.is_closed = False
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_writable = False
        self._is_reading = True
        self._has_ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Nothing is read from one end before the other is there: until then TCP itself keeps what comes."""
        assert isinstance(transport, asyncio.Transport)
        transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        self._transport = transport
        if self._connection.is_closing:  # while this end was being connected
            self.abort()
            return
        self._is_writable = True
        for end in self._connection.ends:
            end.adjust_reading()

    def data_received(self, data: bytes) -> None:
        self.num_bytes += len(data)
        if self.lane.is_clear:
            self.peer.write(data)
            return
        self.lane.offer(self._loop.time(), data)
        self.deliver()

    def eof_received(self) -> bool:
        """A half-close is carried to the other end, behind all that came before it. This end can still be written to."""
        self.lane.end(self._loop.time())
        self.deliver()
        return True

    def connection_lost(self, error: Exception | None) -> None:
        """What a socket sent before it broke is delivered, and then the break."""
        self.is_closed = True
        self._is_writable = False
        if not self._connection.is_closing:
            self.lane.end(self._loop.time(), Kind.RESET)
            self.deliver()
        elif self._timer is not None:
            self._timer.cancel()
        self._connection.end_is_closed()

    def pause_writing(self) -> None:
        self._is_writable = False
        self.peer.adjust_reading()

    def resume_writing(self) -> None:
        self._is_writable = True
        self.peer.deliver()

    def deliver(self) -> None:
        """Hand to the peer what is due, set the timer for what is not yet, and read on where there is room."""
        if self._connection.is_closing:
            return
        if self.peer._is_writable or self.peer.is_closed:
            self._take()
            self._set_timer(self.lane.next_due_s)
        elif self.peer._transport is not None:  # the end that a toxic makes waits for nobody who reads nothing
            if self.lane.cut_s <= self._loop.time():
                self._take()
            self._set_timer(self.lane.cut_s)
        self.adjust_reading()

    def adjust_reading(self) -> None:
        """Read exactly while there is room for what comes."""
        if self._transport is None or self._transport.is_closing():
            return
        should_read = self.peer._is_writable and not self.lane.is_full
        if should_read != self._is_reading:
            self._is_reading = should_read
            (self._transport.resume_reading if should_read else self._transport.pause_reading)()

    def write(self, data: bytes | memoryview) -> None:
        if self._transport is not None and not self.is_closed:
            self._transport.write(data)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
        else:
            self.is_closed = True

    def abort(self) -> None:
        """Close at once, and have TCP send a reset."""
        if self._transport is None:
            self.is_closed = True
            return
        sock: socket.socket | None = self._transport.get_extra_info("socket")
        if sock is not None and sock.fileno() >= 0:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._transport.abort()

    def _take(self) -> None:
        for item in self.lane.take(self._loop.time()):
            match item.kind:
                case Kind.DATA:
                    self.peer.write(item.data)
                case Kind.END:
                    self._end()
                case Kind.CLOSE:
                    self._connection.finish()
                case Kind.RESET:
                    self._connection.reset()

    def _end(self) -> None:
        """This end's half-close has arrived at the peer; the second of two closes the connection."""
        self._has_ended = True
        if self.peer._has_ended:
            self._connection.finish()
        elif self.peer._transport is not None and not self.peer._transport.is_closing():
            self.peer._transport.write_eof()

    def _set_timer(self, due_s: float) -> None:
        if self._timer is not None:
            if self._timer.when() == due_s and not self._timer.cancelled():
                return
            self._timer.cancel()
            self._timer = None
        if due_s < math.inf:
            self._timer = self._loop.call_at(due_s, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self.deliver()
