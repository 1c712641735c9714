"""Runs a command where there is no way out: ``python -m tests.support.no_way_out PROGRAM ARGUMENT...``.

Started by ``unshare --net --mount``, so the only interface is loopback, and files may be covered with others. The kernel counts
what anything in there, Python or not, tries to send elsewhere: no route leads there. The last line is how often that was.
"""

from __future__ import annotations

import fcntl
import socket
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

_SET_ADDRESS, _SET_FLAGS = 0x8916, 0x8914
_UP_AND_RUNNING = 0x41


def start_loopback() -> None:
    """Loopback, with an address beside 127.0.0.1: a machine without any looks up even numbers as if they were names."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SET_FLAGS, struct.pack("16sh14x", b"lo", _UP_AND_RUNNING))
        address = struct.pack("HH4s8x", socket.AF_INET, 0, socket.inet_aton("198.51.100.1"))
        fcntl.ioctl(control, _SET_ADDRESS, struct.pack("16s16s", b"lo:1", address))


def ask_names_elsewhere() -> None:
    """A resolver on loopback would hide that a name was asked for; one on another machine does not."""
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as file:
        file.write("nameserver 192.0.2.53\noptions timeout:1 attempts:1\n")
        file.flush()
        subprocess.run(["mount", "--bind", file.name, "/etc/resolv.conf"], check=True)


def attempts() -> int:
    """Packets of either version of IP for which there was no route, until now."""
    names, values = [line.split() for line in Path("/proc/net/snmp").read_text("utf-8").splitlines() if line.startswith("Ip:")]
    counted = int(dict(zip(names, values, strict=True))["OutNoRoutes"])
    sixes = Path("/proc/net/snmp6")
    lines = sixes.read_text("utf-8").splitlines() if sixes.exists() else []
    return counted + sum(int(line.split()[1]) for line in lines if line.startswith("Ip6OutNoRoutes"))


if __name__ == "__main__":
    start_loopback()
    ask_names_elsewhere()
    before = attempts()
    code = subprocess.run(sys.argv[1:], check=False).returncode
    print(attempts() - before)
    sys.exit(code)
