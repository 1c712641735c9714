"""The committed recording, its replay, and a recording of a small pair."""

import pytest

from benchmarks.trace_file import (
    load,
)
from benchmarks.trace_recorder import record
from benchmarks.trace_replay import Replay
from tests.benchmarks.trace_scene import TINY_PLAN
from tests.speculation.engines.tiny import tiny_pair


@pytest.fixture(scope="module")
def recording():
    return load()


@pytest.fixture(scope="module")
def replay(recording):
    return Replay(recording)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The folder of a pair of random models, and its recording."""
    folder = tmp_path_factory.mktemp("tiny")
    tiny_pair(folder)
    return folder, record(TINY_PLAN, folder)
