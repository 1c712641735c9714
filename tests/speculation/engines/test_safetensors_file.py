"""One file's header and data, whole, damaged and made to mislead."""

import json
import os
import struct

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from speculation.engines import safetensors_file
from speculation.engines.safetensors_file import SafetensorsFile
from speculation.errors import PackageError

GOOD = save({"a": np.ones((2, 3), np.float32), "b": np.ones(5, np.float16), "c": np.ones((4, 1), ml_dtypes.bfloat16)})


def write(path, header, data=b"", length=None):
    """A safetensors file of a header, a value or bytes, and its data."""
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(content) if length is None else length) + content + data)
    return path


def entry(shape=(2,), begin=0, end=8, dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        ({"a": entry(end=12)}, bytes(12), r"a has a range of 12 bytes; F32 of shape \[2\] takes 8"),
        ({"a": entry(begin=8, end=0)}, bytes(8), r"a has a range of -8 bytes; F32 of shape \[2\] takes 8"),
        ({"a": entry()}, bytes(4), "has .* bytes, but its header places tensors up to byte .*cut off"),
        ({"a": entry()}, bytes(9), "or something was put behind it"),
        ({"a": entry(), "b": entry(begin=4, end=12)}, bytes(12), "b overlaps the tensor before it: it begins at"),
        ({"a": entry(), "b": entry()}, bytes(8), "b overlaps the tensor before it"),
        ({"a": entry(), "b": entry(begin=12, end=20)}, bytes(20), "b leaves a hole before it"),
        ({"a": entry(begin=2**70, end=2**70 + 8)}, bytes(8), "a leaves a hole before it"),
        ({"a": entry(shape=(2**40, 2**40))}, bytes(8), "takes 4835703278458516698824704"),
        ({"a": entry(shape=[2**62] * 300)}, bytes(8), "takes more than any file has"),
        ({"a": entry(shape=(-2, -1))}, bytes(8), "a shape is a list of whole numbers"),
        ({"a": entry(shape=(2.0,))}, bytes(8), "a shape is a list of whole numbers"),
        ({"a": entry(shape=(True, 2))}, bytes(8), "a shape is a list of whole numbers"),
        ({"a": entry(dtype="I32")}, bytes(8), "a has dtype 'I32'; converted are F32, F16, BF16"),
        ({"a": entry(dtype=["F32"])}, bytes(8), "has dtype .'F32'."),
        ({"a": {**entry(), "data_offsets": [0, 4, 8]}}, bytes(8), "they are two whole numbers"),
        ({"a": {"dtype": "F32"}}, bytes(8), "a must have data_offsets, dtype, shape"),
        ({"a": []}, bytes(8), "a must have data_offsets, dtype, shape"),
        ({"__metadata__": {}}, b"", "holds no tensor"),
        ([], b"", "must be a JSON object"),
        (b"{", b"", "is not JSON"),
        (b"\xff", b"", "is not JSON"),
        (b"[" * 100_000, b"", "nested too deeply"),
        (b'{"a": 1, "a": 2}', b"", "the key 'a' stands twice"),
        (b'{"a": NaN}', b"", "NaN is no number"),
        ({"a": entry()}, np.array([1, np.inf], "<f4").tobytes(), "a holds values that are no numbers"),
        ({"a": entry(end=4, dtype="BF16")}, b"\x80\x3f\xc0\x7f", "a holds values that are no numbers"),
    ],
)
def test_a_file_that_does_not_fit_together_is_refused(tmp_path, header, data, message):
    path = write(tmp_path / "model.safetensors", header, data)
    with pytest.raises(PackageError, match=f"model.safetensors.*{message}"):
        SafetensorsFile(path).read("a")


@pytest.mark.parametrize("length", [3, 2**63, safetensors_file.HEADER_LIMIT_BYTES + 1])
def test_a_header_that_is_longer_than_the_file_or_the_limit_is_refused(tmp_path, length):
    path = write(tmp_path / "model.safetensors", b"{}", length=length)
    with pytest.raises(PackageError, match=f"says that its header has {length} bytes; it may have 2 at most"):
        SafetensorsFile(path)


def test_a_header_over_the_limit_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(safetensors_file, "HEADER_LIMIT_BYTES", 64)
    path = write(tmp_path / "model.safetensors", {"a": entry()} | {"__metadata__": {"x": "y" * 100}}, bytes(8))
    with pytest.raises(PackageError, match="it may have 64 at most"):
        SafetensorsFile(path)


def test_a_file_of_a_few_bytes_is_refused(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"abc")
    with pytest.raises(PackageError, match="has 3 bytes; a safetensors file begins with 8"):
        SafetensorsFile(tmp_path / "model.safetensors")


def test_a_file_that_shrinks_while_it_is_read_is_refused(tmp_path):
    file = SafetensorsFile(write(tmp_path / "model.safetensors", {"a": entry()}, bytes(8)))
    os.truncate(file.path, file.path.stat().st_size - 4)
    with pytest.raises(PackageError, match="a ends early"):
        file.read("a")


def refusal_or_value(work):
    """Why it is refused, or else what comes out; any other error goes on."""
    try:
        return "", work()
    except PackageError as refusal:
        return str(refusal), None


def size_of(file):
    """Bytes of all tensors of a file, each of them read."""
    return sum(file.read(name).nbytes for name in file.tensors)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=6))
def test_damage_anywhere_in_a_header_is_a_refusal_or_changes_nothing_but_names(tmp_path_factory, changes):
    """Whatever bytes stand there, no other error comes out, and what is read has the size that the file has room for."""
    path = tmp_path_factory.mktemp("damaged") / "model.safetensors"
    content = bytearray(GOOD)
    for place, value in changes:
        content[place % len(content)] = value
    path.write_bytes(content)
    refusal, size = refusal_or_value(lambda: size_of(SafetensorsFile(path)))
    assert str(path) in refusal if refusal else size <= 2 * len(content)
