"""Checkpoints are read as they are, and hostile ones refused with the reason."""

import json
import os
import struct

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from speculation.engines import checkpoint as module
from speculation.engines import safetensors_file
from speculation.engines.architecture import Architecture
from speculation.engines.checkpoint import INDEX, Checkpoint
from speculation.engines.safetensors_file import BLOCK_WEIGHTS, SafetensorsFile
from speculation.errors import PackageError
from tests.speculation.engines.families import FAMILIES, LLAMA3, YARN, config_of, weights_of, write_checkpoint

CONFIG = config_of("qwen2")
WEIGHTS = weights_of(CONFIG)
GOOD = save({"a": np.ones((2, 3), np.float32), "b": np.ones(5, np.float16), "c": np.ones((4, 1), ml_dtypes.bfloat16)})
ENTRIES = sorted(
    {name for family in FAMILIES for name in config_of(family)} | LLAMA3.keys() | YARN.keys() | {"mscale", "beta_fast"}
)


@pytest.fixture
def path(tmp_path):
    return write_checkpoint(tmp_path / "checkpoint", CONFIG, WEIGHTS)


@pytest.fixture
def sharded(tmp_path):
    return write_checkpoint(tmp_path / "sharded", CONFIG, WEIGHTS, ml_dtypes.bfloat16, shards=3)


def refused(path):
    with pytest.raises(PackageError) as refusal:
        Checkpoint(path)
    return str(refusal.value)


def edit(file, change):
    """Change a JSON file in place."""
    value = json.loads(file.read_text())
    change(value)
    file.write_text(json.dumps(value))


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("shards", [1, 3])
def test_weights_come_as_float32_whatever_they_are_stored_in(tmp_path, dtype, shards):
    found = Checkpoint(write_checkpoint(tmp_path, CONFIG, WEIGHTS, dtype, shards))
    assert set(found) == WEIGHTS.keys()
    for name, values in WEIGHTS.items():
        assert found[name].dtype == np.float32
        np.testing.assert_array_equal(found[name], values.astype(dtype).astype(np.float32))


def test_a_weight_that_is_larger_than_a_block_is_read_whole(tmp_path):
    values = np.arange(BLOCK_WEIGHTS + 7, dtype=np.float32)
    found = Checkpoint(write_checkpoint(tmp_path, CONFIG, {"one": np.ones(3), "two": values}))
    np.testing.assert_array_equal(found["two"], values)
    assert found.are_equal("two", "two")
    assert not found.are_equal("one", "two")


def header_of(path):
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


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


def test_a_file_that_shrinks_while_it_is_read_is_refused(path):
    file = SafetensorsFile(path / "model.safetensors")
    os.truncate(file.path, file.path.stat().st_size - 4)
    last = max(file.tensors, key=lambda name: file.tensors[name].end)
    with pytest.raises(PackageError, match=f"{last} ends early"):
        file.read(last)


@pytest.mark.parametrize("cut", range(0, 400, 13))
def test_a_file_that_is_cut_anywhere_is_refused(path, cut):
    file = path / "model.safetensors"
    os.truncate(file, cut if cut < 200 else file.stat().st_size - cut)
    assert str(file) in refused(path)


def test_a_missing_shard_is_named(sharded):
    (sharded / "model-00002-of-00003.safetensors").unlink()
    assert "model-00002-of-00003.safetensors is not there; the checkpoint is incomplete" in refused(sharded)


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/hostname", "a/../../b", "c:\\x", "."])
def test_a_shard_outside_the_folder_is_refused(sharded, name):
    edit(sharded / INDEX, lambda index: index["weight_map"].update({"model.norm.weight": name}))
    assert "must be a relative path inside the checkpoint" in refused(sharded)


@pytest.mark.parametrize("name", ["model-00001-of-00003.safetensors", INDEX, "config.json", "tokenizer.json"])
def test_a_symbolic_link_is_refused(sharded, name):
    (sharded / name).rename(sharded.parent / "elsewhere")
    (sharded / name).symlink_to(sharded.parent / "elsewhere")
    assert f"{name} is a symbolic link; a checkpoint holds plain files only" in refused(sharded)


def test_weights_behind_a_symbolic_link_are_refused(path):
    (path / "model.safetensors").rename(path.parent / "elsewhere")
    (path / "model.safetensors").symlink_to(path.parent / "elsewhere")
    assert "is a symbolic link" in refused(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda index: index["weight_map"].update(other="model-00001-of-00003.safetensors"), "which has no such tensor"),
        (lambda index: index["weight_map"].pop("model.norm.weight"), "holds model.norm.weight, which .* does not place there"),
        (lambda index: index.pop("weight_map"), "must have weight_map"),
        (lambda index: index.update(weight_map={}), "must have weight_map"),
        (lambda index: index.update(weight_map={"model.norm.weight": 7}), "must have weight_map"),
    ],
)
def test_an_index_that_does_not_fit_its_shards_is_refused(sharded, change, message):
    edit(sharded / INDEX, change)
    with pytest.raises(PackageError, match=message):
        Checkpoint(sharded)


def test_an_index_that_places_a_weight_twice_is_refused(sharded):
    text = (sharded / INDEX).read_text()
    twice = text.replace('"weight_map": {', '"weight_map": {"model.norm.weight": "x.safetensors", ')
    (sharded / INDEX).write_text(twice)
    assert "the key 'model.norm.weight' stands twice" in refused(sharded)


def test_pickles_are_refused_unread(path):
    (path / "model.safetensors").unlink()
    (path / "pytorch_model.bin").write_bytes(b"cos\nsystem\n")
    assert "pytorch_model.bin, and a pickle can run code: save it as safetensors" in refused(path)


def test_a_folder_without_weights_is_refused(path):
    (path / "model.safetensors").unlink()
    assert "neither model.safetensors nor model.safetensors.index.json" in refused(path)


def test_what_is_no_folder_is_refused(tmp_path):
    assert "is not a folder; a checkpoint is a folder with" in refused(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_a_missing_file_is_named(path, name):
    (path / name).unlink()
    assert f"{name} is not there; the checkpoint is incomplete" in refused(path)


@pytest.mark.parametrize(
    ("name", "limit"),
    [
        ("config.json", "CONFIG_LIMIT_BYTES"),
        ("tokenizer.json", "TOKENIZER_LIMIT_BYTES"),
        ("generation_config.json", "CONFIG_LIMIT_BYTES"),
        (INDEX, "INDEX_LIMIT_BYTES"),
    ],
)
def test_small_files_have_a_limit(sharded, monkeypatch, name, limit):
    with (sharded / name).open("a") as file:
        file.write(" " * 20_001)
    monkeypatch.setattr(module, limit, 20_000)
    assert f"{name} has " in refused(sharded)
    assert "at most 20000 are read" in refused(sharded)


def test_a_configuration_with_a_key_twice_is_refused(path):
    (path / "config.json").write_text('{"model_type": "llama", "model_type": "qwen2"}')
    assert "the key 'model_type' stands twice" in refused(path)


def test_a_configuration_that_is_no_object_is_refused(path):
    (path / "config.json").write_text("[]")
    assert "config.json must hold a JSON object" in refused(path)


def test_a_checkpoint_that_is_quantised_already_is_refused(path):
    edit(path / "config.json", lambda config: config.update(quantization_config={"quant_method": "gptq"}))
    assert "has quantization_config; convert the checkpoint that it was made from" in refused(path)


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


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.just("yarn"),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(ENTRIES), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=300, deadline=None)
@given(
    family=st.sampled_from(sorted(FAMILIES)), changes=st.dictionaries(st.sampled_from(ENTRIES), JSON, min_size=1, max_size=3)
)
def test_whatever_stands_in_a_configuration_it_is_an_architecture_or_a_refusal(family, changes):
    refusal, shape = refusal_or_value(lambda: Architecture.from_config(config_of(family) | changes))
    assert (refusal or "config.json").startswith("config.json")
    if shape and shape.head_size < 1000:
        assert np.isfinite(shape.rotary.tables(4, shape.head_size)).all()
