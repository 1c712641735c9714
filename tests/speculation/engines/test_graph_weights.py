"""The weights of an fp32 graph: those that it was built from, looked at one at a time."""

import shutil
import tracemalloc

import ml_dtypes
import numpy as np
import onnx
import pytest

from speculation.engines.adding import Quantisation, add_quantised
from speculation.engines.convert import Conversion, convert
from speculation.engines.graph import read_weight
from speculation.engines.graph_weights import GraphWeights
from speculation.engines.package import Package
from speculation.errors import PackageError
from tests.speculation.engines.families import FAMILIES, config_of, weights_of, write_checkpoint

INSIDE, BESIDE = 1 << 30, 0


@pytest.mark.parametrize("external_bytes", [INSIDE, BESIDE], ids=["inside", "beside"])
@pytest.mark.parametrize("family", FAMILIES)
def test_they_are_those_of_the_checkpoint_by_name_and_bit(tmp_path, family, external_bytes):
    config = config_of(family)
    weights = weights_of(config)
    checkpoint = write_checkpoint(tmp_path / "checkpoint", config, weights)
    convert(Conversion(checkpoint, tmp_path / "made", external_bytes=external_bytes))
    package = Package(tmp_path / "made")
    found = GraphWeights(package.graph("fp32"), package.architecture)
    assert found.keys() == weights.keys()
    assert found.sizes == {name: values.size for name, values in weights.items()}
    assert [name for name, values in weights.items() if not np.array_equal(found[name], values)] == []


def test_a_range_beyond_the_file_is_refused(tmp_path):
    config = config_of("llama")
    checkpoint = write_checkpoint(tmp_path / "checkpoint", config, weights_of(config))
    convert(Conversion(checkpoint, tmp_path / "made", external_bytes=BESIDE))
    package = Package(tmp_path / "made")
    found = GraphWeights(package.graph("fp32"), package.architecture)
    with (tmp_path / "made" / "onnx" / "model.onnx_data").open("r+b") as file:
        file.truncate(5000)
    with pytest.raises(PackageError, match=r"logits.weight ends at byte \d+ of model.onnx_data, which has 5000"):
        found["lm_head.weight"]


@pytest.mark.parametrize("external_bytes", [INSIDE, BESIDE], ids=["inside", "beside"])
@pytest.mark.parametrize("change", ["dims", "place"])
def test_a_constant_that_does_not_fit_together_is_refused(tmp_path, external_bytes, change):
    config = config_of("llama")
    checkpoint = write_checkpoint(tmp_path / "checkpoint", config, weights_of(config))
    convert(Conversion(checkpoint, tmp_path / "made", external_bytes=external_bytes))
    path = tmp_path / "made" / "onnx" / "model.onnx"
    model = onnx.load(path, load_external_data=False)
    head = next(tensor for tensor in model.graph.initializer if tensor.name == "logits.weight")
    if change == "dims":
        del head.dims[1:]
    elif external_bytes == INSIDE:
        head.raw_data = head.raw_data[:-2]
    else:
        next(entry for entry in head.external_data if entry.key == "offset").value = "here"
    path.write_bytes(model.SerializeToString())
    found = GraphWeights(path, Package(tmp_path / "made").architecture)
    with pytest.raises(PackageError, match=r"model.onnx: logits.weight cannot be read|lm_head.weight has shape"):
        read_weight(found, "lm_head.weight", (config["vocab_size"], config["hidden_size"]))


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A package with one matrix of 8 MiB and more than six times that in all, weights beside the graph."""
    folder = tmp_path_factory.mktemp("large")
    sizes = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 24, "vocab_size": 8192}
    config = config_of("llama", **sizes, num_attention_heads=8, tie_word_embeddings=True)
    write_checkpoint(folder / "checkpoint", config, weights_of(config), ml_dtypes.bfloat16)
    convert(Conversion(folder / "checkpoint", folder / "made", external_bytes=BESIDE))
    shutil.rmtree(folder / "checkpoint")
    return folder / "made"


@pytest.mark.parametrize(("kind", "block"), [("int4", None), ("int8", None), ("int4", 128)])
def test_memory_stays_at_about_twice_the_largest_weight(large, tmp_path, kind, block):
    largest = 4 * 8192 * 256
    assert Package(large).num_parameters * 4 > 6 * largest
    tracemalloc.start()
    add_quantised(Quantisation(large, kind, block, tmp_path / "out", BESIDE))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1.8 * largest
