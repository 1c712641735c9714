"""Weights beside their graph: the same as within it, checked, movable, and written with little in memory."""

import shutil
import tracemalloc
import weakref
from collections.abc import Mapping

import numpy as np
import onnx
import pytest

from speculation.engines.architecture import Architecture
from speculation.engines.external import ALIGNMENT_BYTES, ExternalData
from speculation.engines.graph import build
from speculation.engines.variants import LINEARS
from speculation.errors import PackageError
from tests.speculation.engines.conversions import CONFIG, VARIANTS, WEIGHTS, logits_of, made
from tests.speculation.engines.families import config_of, shapes_of, write_checkpoint


@pytest.fixture
def checkpoint(tmp_path):
    return write_checkpoint(tmp_path / "checkpoint", CONFIG, WEIGHTS)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "packages" / "made"


@pytest.mark.parametrize("variant", VARIANTS)
def test_weights_beside_the_graph_are_those_within_it(checkpoint, out, tmp_path, variant):
    inside = made(checkpoint, out, variants=(variant,))
    beside = made(checkpoint, tmp_path / "beside", variants=(variant,), external_bytes=0)
    graph = inside.manifest.variants[variant].graph
    assert beside.manifest.files.keys() == {*inside.manifest.files, f"{graph}_data"}
    assert (tmp_path / "beside" / graph).stat().st_size < 60_000
    assert logits_of(inside, variant).tobytes() == logits_of(beside, variant).tobytes()
    assert inside.weight_bytes(variant) == beside.weight_bytes(variant)


def test_weights_beside_the_graph_can_be_mapped(checkpoint, out):
    package = made(checkpoint, out, external_bytes=0)
    model = onnx.load_model(str(package.graph("fp32")), load_external_data=False)
    external = [t for t in model.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL]
    entries = [{entry.key: entry.value for entry in tensor.external_data} for tensor in external]
    assert len(entries) > 10
    assert {entry["location"] for entry in entries} == {"model.onnx_data"}
    assert all(int(entry["offset"]) % ALIGNMENT_BYTES == 0 for entry in entries)
    assert all(len(tensor.raw_data) <= 1024 for tensor in model.graph.initializer)


def test_a_damaged_file_of_weights_is_refused(checkpoint, out):
    package = made(checkpoint, out, external_bytes=0)
    with (out / "onnx" / "model.onnx_data").open("r+b") as file:
        file.seek(5000)
        file.write(b"\x01")
    with pytest.raises(PackageError, match=r"model.onnx_data is damaged"):
        package.graph("fp32")


@pytest.mark.parametrize(("size", "is_beside"), [(-1, True), (0, False)])
def test_weights_are_beside_the_graph_from_a_size_on(checkpoint, out, size, is_beside):
    weights = 4 * sum(values.size for values in WEIGHTS.values())
    made(checkpoint, out, external_bytes=weights + size)
    assert (out / "onnx" / "model.onnx_data").exists() is is_beside


def test_a_package_can_be_moved_once_it_is_made(checkpoint, out, tmp_path):
    package = made(checkpoint, out, external_bytes=0)
    shutil.move(out, tmp_path / "elsewhere")
    assert logits_of(package.__class__(tmp_path / "elsewhere")).shape == (40, 272)


class Live(Mapping):
    """Random weights that are made when they are asked for, and the most bytes of them that were ever alive at once."""

    def __init__(self, shapes):
        self.shapes, self.now, self.most = shapes, 0, 0

    def __getitem__(self, name):
        values = np.random.default_rng(0).random(self.shapes[name], np.float32)
        self.now += values.nbytes
        self.most = max(self.most, self.now)
        weakref.finalize(values, self._dropped, values.nbytes)
        return values

    def _dropped(self, size):
        self.now -= size

    def __iter__(self):
        return iter(self.shapes)

    def __len__(self):
        return len(self.shapes)


@pytest.mark.parametrize("is_tied", [True, False])
@pytest.mark.parametrize("variant", VARIANTS)
def test_memory_stays_at_about_twice_the_largest_weight(tmp_path, variant, is_tied):
    sizes = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 24, "vocab_size": 8192}
    config = config_of("llama", **sizes, num_attention_heads=8, tie_word_embeddings=is_tied)
    weights = Live(shapes_of(config))
    largest, whole = 4 * 8192 * 256, sum(4 * int(np.prod(shape)) for shape in weights.shapes.values())
    assert whole > 6 * largest
    with (tmp_path / "data").open("wb") as file:
        tracemalloc.start()
        model, _ = build(Architecture.from_config(config), weights, LINEARS[variant], ExternalData(file, "data"))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert weights.most == largest
    assert peak < 1.8 * largest
    assert len(model.SerializeToString()) < 500_000
