"""Files that must not be read, outside the folder, through links or over their limits, and those that are damaged."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from speculation.engines import files
from speculation.engines.pairs import load_model
from speculation.errors import PackageError
from tests.speculation.engines.bad_exports.scene import GRAPH, use
from tests.speculation.engines.stock_graphs import genai_folder


def set_external(path, tensor_name="model.embed_tokens.weight", **entries):
    """Say that a constant lies in another file; the file ``weights`` beside the graph has the right bytes."""
    (path / "onnx" / "weights").write_bytes(np.zeros((272, 32), np.float32).tobytes())
    model = onnx.load(path / GRAPH)
    tensor = next(t for t in model.graph.initializer if t.name == tensor_name)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=str(value))
    (path / GRAPH).write_bytes(model.SerializeToString())


def test_the_folder_that_the_others_are_made_of_is_good(path):
    assert len(use(path)) == 1


def test_weights_beside_the_graph_are_read_and_part_of_the_digest(path):
    set_external(path, location="weights", offset=0, length=272 * 32 * 4)
    before = load_model(path).digest
    assert use(path)
    (path / "onnx" / "weights").write_bytes(np.ones((272, 32), np.float32).tobytes())
    assert load_model(path).digest != before


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"location": "/etc/passwd"}, "inside the folder"),
        ({"location": "../../weights"}, "no '..'"),
        ({"location": "..\\weights"}, "forward slashes"),
        ({"location": "C:weights"}, "relative path"),
        ({"location": "elsewhere"}, "elsewhere is not there"),
        ({"location": ""}, "is not there|relative path"),
        ({"length": 4}, "is not there|relative path"),
        ({"location": "link"}, "symbolic link"),
        ({"location": "weights", "offset": 40_000}, "which has 34816"),
        ({"location": "weights", "offset": 0, "length": 40_000}, "which has 34816"),
        ({"location": "weights", "offset": 34_816, "length": 1}, "which has 34816"),
        ({"location": "weights", "offset": -4}, "which has 34816"),
        ({"location": "weights", "length": -4}, "which has 34816"),
        ({"location": "weights", "offset": "four"}, "no number"),
    ],
    ids=str,
)
def test_weights_outside_the_folder_or_the_file_are_refused(path, entries, said):
    (path / "onnx" / "link").symlink_to("/etc/passwd")
    set_external(path, **entries)
    for use_only in (lambda model: model.graph("fp32"), lambda model: model.digest):
        with pytest.raises(PackageError, match=said):
            use_only(load_model(path))


def test_sparse_weights_are_looked_at_too(path):
    def make_sparse(model):
        values = helper.make_tensor("sparse", TensorProto.FLOAT, [1], [1.0])
        values.ClearField("float_data")
        values.data_location = TensorProto.EXTERNAL
        values.external_data.add(key="location", value="../../secrets")
        sparse = helper.make_sparse_tensor(values, helper.make_tensor("places", TensorProto.INT64, [1], [0]), [4])
        model.graph.sparse_initializer.append(sparse)

    model = onnx.load(path / GRAPH)
    make_sparse(model)
    (path / GRAPH).write_bytes(model.SerializeToString())
    with pytest.raises(PackageError, match=r"no '\.\.'"):
        use(path)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", GRAPH, "generation_config.json"])
def test_a_symbolic_link_is_refused(path, name):
    target = path / "elsewhere"
    (path / name).rename(target)
    (path / name).symlink_to(target)
    with pytest.raises(PackageError, match="symbolic link"):
        use(path)


def test_graphs_behind_a_link_are_none_of_the_folders(path):
    (path / "onnx").rename(path.parent / "elsewhere")
    (path / "onnx").symlink_to(path.parent / "elsewhere")
    with pytest.raises(PackageError, match=r"has config\.json but no graph"):
        load_model(path)


@pytest.mark.parametrize(
    ("name", "limit"),
    [("config.json", "CONFIG_LIMIT_BYTES"), ("tokenizer.json", "TOKENIZER_LIMIT_BYTES"), (GRAPH, "GRAPH_LIMIT_BYTES")],
)
def test_a_file_over_its_limit_is_refused_before_it_is_read(path, name, limit):
    limit_bytes = getattr(files, limit)
    with (path / name).open("r+b") as file:
        file.truncate(limit_bytes + 1)
    with pytest.raises(PackageError, match=f"{limit_bytes + 1} bytes; at most {limit_bytes}"):
        use(path)


def test_a_genai_configuration_over_its_limit_is_refused(tmp_path):
    path = genai_folder(tmp_path / "genai")
    with (path / "genai_config.json").open("r+b") as file:
        file.truncate(1024 * 1024 + 1)
    with pytest.raises(PackageError, match="at most 1048576"):
        use(path)


@pytest.mark.parametrize("content", [b"", b"{}", b'{"model": 1}', b"[" * 1000])
def test_a_tokenizer_that_is_none_is_refused(path, content):
    (path / "tokenizer.json").write_bytes(content)
    with pytest.raises(PackageError, match=r"tokenizer.json is not a tokenizer"):
        use(path)
