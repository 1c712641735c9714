"""Large pages: what is allocated within a block, and nothing else, is moved to them, and stays as it was."""

from __future__ import annotations

import ctypes
import mmap
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speculation.engines import large_pages, loading, stock
from speculation.engines.large_pages import added, in_large_pages
from speculation.engines.onnx import OnnxEngine
from speculation.engines.package import load_pair

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="large pages are asked for on Linux")
NUM_BYTES = 16 << 20
EDGES = st.lists(st.integers(0, 60), unique=True, max_size=12).map(sorted)


def ranges(edges: list[int]) -> list[tuple[int, int]]:
    return list(zip(edges[::2], edges[1::2], strict=False))


def places(found: list[tuple[int, int]]) -> set[int]:
    return {place for start, end in found for place in range(start, end)}


@given(EDGES, EDGES)
def test_what_was_added_is_what_there_is_less_what_there_was(before: list[int], after: list[int]) -> None:
    found = added(ranges(before), ranges(after))
    assert places(found) == places(ranges(after)) - places(ranges(before))
    assert all(start < end for start, end in found)


@pytest.fixture
def memories() -> Iterator[list[mmap.mmap]]:
    """Anonymous memory that a test took, given back at its end."""
    taken: list[mmap.mmap] = []
    yield taken
    for memory in taken:
        memory.close()


def written(memories: list[mmap.mmap]) -> mmap.mmap:
    """Memory of this process alone, as an allocator takes it: for small pages, and then written."""
    memory = mmap.mmap(-1, NUM_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    memory[:] = bytes(range(256)) * (NUM_BYTES // 256)
    memories.append(memory)
    return memory


def large_bytes(memory: mmap.mmap) -> int:
    """How much of it lies in large pages."""
    address, found, is_inside = np.frombuffer(memory, np.uint8).ctypes.data, 0, False
    for line in Path("/proc/self/smaps").read_text("utf-8").splitlines():
        if heading := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            is_inside = int(heading[1], 16) < address + NUM_BYTES and address < int(heading[2], 16)
        elif is_inside and line.startswith("AnonHugePages:"):
            found += 1024 * int(line.split()[1])
    return found


def are_granted(memories: list[mmap.mmap]) -> bool:
    """Whether this system moves memory to large pages for who asks it directly."""
    memory = written(memories)
    address, size = np.frombuffer(memory, np.uint8).ctypes.data, large_pages._page_bytes()
    memory.madvise(mmap.MADV_HUGEPAGE)
    start = ctypes.c_void_p(-(-address // size) * size)
    return ctypes.CDLL(None).madvise(start, ctypes.c_size_t(size), large_pages.MADV_COLLAPSE) == 0


@LINUX
def test_only_what_came_within_the_block_is_moved(memories: list[mmap.mmap]) -> None:
    if large_pages._page_bytes() == 0:
        pytest.skip("this system forbids large pages, or has none")
    earlier = written(memories)
    with in_large_pages():
        came = written(memories)
    later = written(memories)
    if not are_granted(memories):
        pytest.skip("this system moves nothing to large pages at once (Linux before 6.1), or has none left")
    assert large_bytes(came) >= NUM_BYTES // 2
    assert large_bytes(earlier) == large_bytes(later) == 0
    assert came[:] == earlier[:]


@LINUX
@pytest.mark.parametrize("enabled", ["always madvise [never]\n", None])
def test_where_they_are_forbidden_none_are_made(
    memories: list[mmap.mmap], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, enabled: str | None
) -> None:
    monkeypatch.setattr(large_pages, "SETTINGS", tmp_path)
    (tmp_path / "hpage_pmd_size").write_text("2097152\n")
    if enabled:
        (tmp_path / "enabled").write_text(enabled)
    with in_large_pages():
        came = written(memories)
    assert large_bytes(came) == 0


@pytest.mark.parametrize("size", ["", "many"])
def test_a_size_that_means_nothing_is_no_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: str) -> None:
    monkeypatch.setattr(large_pages, "SETTINGS", tmp_path)
    (tmp_path / "enabled").write_text("always [madvise] never\n")
    (tmp_path / "hpage_pmd_size").write_text(size)
    with in_large_pages():
        assert large_pages._page_bytes() == 0


def test_a_process_that_does_not_see_its_own_maps_goes_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_pages, "MAPS", tmp_path / "none")
    with in_large_pages():
        pass


def test_an_error_of_the_block_is_passed_on() -> None:
    with pytest.raises(KeyError), in_large_pages():
        raise KeyError


@pytest.mark.parametrize("engines", [loading, stock])
def test_engines_load_their_weights_within_the_block(engines: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    is_within = []

    class Runtime:
        def __getattr__(self, name: str) -> Any:
            if name == "InferenceSession":
                is_within.append(bool(opened))
            return getattr(onnxruntime, name)

    opened: list[None] = []

    @contextmanager
    def recorded() -> Iterator[None]:
        opened.append(None)
        yield
        opened.pop()

    monkeypatch.setattr(engines, "in_large_pages", recorded)
    monkeypatch.setattr(engines, "onnxruntime", Runtime())
    package = load_pair().draft
    if engines is loading:
        OnnxEngine(package, num_slots=1)
    else:
        stock.load_session(str(package.graph("fp32")), package.path, 1)
    assert is_within == [True]
