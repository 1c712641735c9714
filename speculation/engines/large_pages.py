"""Large pages for a model's weights, on Linux.

A pass reads all weights once. In pages of 4 KiB the processor has to find an address for every 4 KiB of them, and in a virtual
machine each through the tables of two systems; a page of 2 MiB spares 511 of 512. ONNX Runtime does not ask for such pages, and
many systems grant them to those alone that ask (``madvise`` in ``/sys/kernel/mm/transparent_hugepage/enabled``).
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from speculation.errors import CapacityError

Ranges = Sequence[tuple[int, int]]
"""Addresses from each first to each last but one, ascending."""

SETTINGS = Path("/sys/kernel/mm/transparent_hugepage")
MAPS = Path("/proc/self/maps")
MADV_COLLAPSE = 25
"""Make large pages of what is there already, at once (Linux 6.1; ``mmap`` does not name it)."""


@contextmanager
def in_large_pages() -> Iterator[None]:
    """What the process allocates while the block runs, and still has at its end, is moved to large pages.

    Where the system does not grant them nothing happens: another system than Linux, large pages forbidden (``never``), no
    memory in one piece. Linux before 6.1 moves in the background, within minutes.
    """
    size = _page_bytes()
    before = _anonymous() if size else ()
    yield
    if size:
        for start, end in added(before, _anonymous()):
            _move(-(-start // size) * size, end // size * size, size)


def reserved(num_bytes: int, purpose: str) -> mmap.mmap:
    """Memory of this process alone, as an ordinary array has it, in large pages where they are to be had; it begins a page.

    Raises ``CapacityError`` where the system does not grant so much.
    """
    try:
        if sys.platform == "linux":
            memory = mmap.mmap(-1, num_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        else:
            memory = mmap.mmap(-1, num_bytes)
    except (OSError, OverflowError) as error:
        raise CapacityError(f"this system does not grant {num_bytes} bytes for {purpose}: {error}") from error
    if sys.platform == "linux":
        with suppress(OSError):
            memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


def added(before: Ranges, after: Ranges) -> list[tuple[int, int]]:
    """The parts of ``after`` that are not in ``before``."""
    found = []
    for start, end in after:
        for known_start, known_end in before:
            if known_end <= start or end <= known_start:
                continue
            if start < known_start:
                found.append((start, known_start))
            start = known_end
        if start < end:
            found.append((start, end))
    return found


def _page_bytes() -> int:
    """Bytes of a large page; 0 where there are none to be had."""
    if sys.platform != "linux":
        return 0
    try:
        is_forbidden = "[never]" in (SETTINGS / "enabled").read_text("ascii")
        return 0 if is_forbidden else int((SETTINGS / "hpage_pmd_size").read_text("ascii"))
    except (OSError, ValueError):
        return 0


def _anonymous() -> list[tuple[int, int]]:
    """Where this process has memory of its own that no file stands behind."""
    ranges = []
    with suppress(OSError):  # a system that shows no process its maps
        for line in MAPS.read_text("utf-8", "replace").splitlines():
            addresses, rights, _, _, _, *name = line.split(maxsplit=5)
            if rights == "rw-p" and (not name or name == ["[heap]"]):
                start, end = addresses.split("-")
                ranges.append((int(start, 16), int(end, 16)))
    return ranges


def _move(start: int, end: int, step: int) -> None:
    """Ask for large pages from ``start`` to ``end``, one by one: where one is refused the others are not."""
    if start >= end:
        return
    advise = ctypes.CDLL(None).madvise
    advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    advise(start, end - start, mmap.MADV_HUGEPAGE)
    for address in range(start, end, step):
        advise(address, step, MADV_COLLAPSE)
