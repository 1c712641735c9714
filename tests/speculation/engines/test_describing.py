"""What a device needs of a full model: the same identity and the same words, and nothing that could be run."""

import json
import shutil

import numpy as np
import pytest

from speculation.engines.described import DESCRIPTION
from speculation.engines.describing import describe
from speculation.engines.package import Package
from speculation.engines.pairs import load_full, load_model, pair_of
from speculation.errors import InvalidRequestError, PackageError
from tests.speculation.engines.families import config_of, weights_of, write_checkpoint
from tests.speculation.engines.stock_graphs import export_folder, genai_folder
from tests.speculation.engines.tiny import tiny_package, tiny_pair

LAYOUTS = ("package", "checkpoint", "export")
TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}"


@pytest.fixture
def folders(tmp_path):
    """A full model in each layout, and a draft."""
    config = config_of("llama")
    tiny_package(tmp_path / "package", seed=2, variants=("fp32",))
    write_checkpoint(tmp_path / "checkpoint", config, weights_of(config), np.float32, 2)
    export_folder(tmp_path / "export", seed=3, graphs={"model.onnx": {}, "model_half.onnx": {}})
    for name in ("checkpoint", "export"):
        (tmp_path / name / "chat_template.jinja").write_text(TEMPLATE)
        (tmp_path / name / "LICENSE").write_text("terms")
    tiny_package(tmp_path / "draft", seed=1, variants=("fp32",))
    return tmp_path


@pytest.fixture(params=LAYOUTS)
def layout(request):
    return request.param


def test_a_device_that_has_the_description_is_one_with_a_verifier_that_has_the_model(folders, layout):
    full, small = folders / layout, folders / "small"
    made = describe(full, small)
    assert pair_of(folders / "draft", small).identity == pair_of(folders / "draft", full).identity
    assert made.digest == load_model(full).digest == load_full(small).digest
    assert made.num_bytes == sum(file.stat().st_size for file in small.iterdir()) < made.model_bytes
    assert not [file for file in made.files if file.endswith((".onnx", ".safetensors"))]


def test_it_says_of_the_model_what_the_model_says(folders, layout):
    describe(folders / layout, folders / "small")
    models = load_model(folders / layout), load_full(folders / "small")
    for said in ("vocabulary_size", "context_length", "end_token_ids", "tokenizer_digest", "generation_defaults"):
        assert getattr(models[0], said) == getattr(models[1], said), said
    assert models[0].tokenizer.to_str() == models[1].tokenizer.to_str()
    assert (models[0].chat_template is None) == (models[1].chat_template is None) == (layout == "package")


def test_it_has_nothing_to_run_and_says_who_has(folders, layout):
    describe(folders / layout, folders / "small")
    full = load_full(folders / "small")
    said = "is not there" if layout == "package" else r"only describes a model, .*; the verifier needs the model itself"
    with pytest.raises(PackageError, match=said):
        full.engine(full.variants[0], 1, 1)


def test_the_terms_of_the_weights_go_with_it(folders):
    assert "LICENSE" in describe(folders / "export", folders / "small").files


@pytest.mark.parametrize("name", ["model-00002-of-00002.safetensors", "config.json", "model.safetensors.index.json"])
def test_another_model_has_another_description(folders, name):
    before = describe(folders / "checkpoint", folders / "small")
    file = folders / "checkpoint" / name
    content = bytearray(file.read_bytes())
    if name.endswith(".json"):
        content += b"\n"
    else:
        content[-4] ^= 1
    file.write_bytes(content)
    assert describe(folders / "checkpoint", folders / "other").digest != before.digest


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("config.json", lambda file: file.write_bytes(file.read_bytes() + b"\n")),
        ("tokenizer.json", lambda file: file.write_bytes(file.read_bytes() + b"\n")),
        ("generation_config.json", lambda file: file.unlink()),
    ],
    ids=["configuration", "tokenizer", "defaults that are gone"],
)
def test_a_file_that_is_not_the_one_that_was_described_is_refused(folders, name, change):
    describe(folders / "export", folders / "small")
    change(folders / "small" / name)
    with pytest.raises(PackageError, match=rf"{name} is not what described.json was written beside; describe it anew"):
        pair_of(folders / "draft", folders / "small")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([], "schema_version 1"),
        ({"schema_version": 2, "files": {"config.json": "0" * 64}}, "schema_version 1; describe the model anew"),
        ({"schema_version": 1}, "files must have the SHA-256"),
        ({"schema_version": 1, "files": {}}, "files must have the SHA-256"),
        ({"schema_version": 1, "files": {"config.json": "no digest"}}, "files must have the SHA-256"),
        ({"schema_version": 1, "files": {"config.json": 7}}, "files must have the SHA-256"),
    ],
)
def test_a_description_that_says_nothing_usable_is_refused(folders, value, said):
    describe(folders / "export", folders / "small")
    (folders / "small" / DESCRIPTION).write_text(json.dumps(value))
    with pytest.raises(PackageError, match=said):
        load_full(folders / "small")


def test_a_description_through_a_link_is_refused(folders):
    describe(folders / "export", folders / "small")
    shutil.move(folders / "small" / DESCRIPTION, folders / "elsewhere.json")
    (folders / "small" / DESCRIPTION).symlink_to(folders / "elsewhere.json")
    with pytest.raises(PackageError, match="is a symbolic link"):
        load_full(folders / "small")


def test_what_has_no_description_is_refused_and_leaves_nothing(folders):
    (folders / "taken").mkdir()
    (folders / "taken" / "file").touch()
    tiny_pair(folders / "pair")
    genai_folder(folders / "genai")
    refused = [
        ("export", "taken", InvalidRequestError, "exists already"),
        ("pair", "small", InvalidRequestError, "is a pair; describe its full half"),
        ("genai", "small", InvalidRequestError, "onnxruntime-genai, which is taken whole"),
        ("taken", "small", PackageError, "is no model"),
    ]
    for name, out, kind, said in refused:
        with pytest.raises(kind, match=said):
            describe(folders / name, folders / out)
    assert not (folders / "small").exists()
    assert not [path.name for path in folders.iterdir() if path.name.endswith(".partial")]


def test_a_description_is_described_no_more(folders):
    describe(folders / "export", folders / "small")
    with pytest.raises(PackageError, match=r"it has config\.json but no graph"):
        describe(folders / "small", folders / "smaller")


def test_a_package_without_its_graphs_is_still_that_package(folders):
    describe(folders / "package", folders / "small")
    assert Package(folders / "small").digest == Package(folders / "package").digest
