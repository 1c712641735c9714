"""A checkpoint as a model: its layout and identity need neither torch nor transformers, an engine of it does."""

import json
import shutil
import sys

import numpy as np
import pytest

from speculation.engines.base import Chunk
from speculation.engines.checkpoint_folder import CheckpointFolder
from speculation.engines.exports import ExportFolder
from speculation.engines.layouts import Layout, layout_of
from speculation.engines.model import chosen_variant
from speculation.engines.onnx import OnnxEngine
from speculation.engines.package import Package
from speculation.engines.pairs import load_model, pair_of
from speculation.engines.providers import Provider
from speculation.errors import PackageError, UnknownNameError
from tests.speculation.engines.families import config_of, weights_of, write_checkpoint
from tests.speculation.engines.stock_graphs import export_folder
from tests.speculation.engines.tiny import tiny_package, token_ids

TOKENS = token_ids(40)


@pytest.fixture
def path(tmp_path):
    config = config_of("llama")
    write_checkpoint(tmp_path / "mine", config, weights_of(config), shards=2)
    (tmp_path / "mine" / "generation_config.json").write_text(json.dumps({"eos_token_id": [0, 5]}))
    return tmp_path / "mine"


def test_a_checkpoint_without_a_graph_is_a_model(path):
    model = load_model(path)
    assert isinstance(model, CheckpointFolder)
    assert (model.name, model.variants) == ("mine", ("transformers", "torch"))
    assert (model.context_length, model.vocabulary_size) == (96, 272)
    assert model.end_token_ids == (0, 5)
    assert model.weight_bytes("transformers") == 4 * model.num_parameters
    assert model.num_parameters == sum(values.size for values in weights_of(config_of("llama")).values())
    assert model.tokenizer.get_vocab_size() == 257
    assert model.chat_template is None


def test_where_no_variant_is_named_the_provider_says_which_is_taken(path):
    model = load_model(path)
    assert [chosen_variant(model, asked, "fp32") for asked in (None, "transformers")] == ["transformers"] * 2
    assert chosen_variant(model, None, "fp32", provider=Provider.CUDA) == "torch"
    assert chosen_variant(model, "transformers", "fp32", provider=Provider.CUDA) == "transformers"
    with pytest.raises(UnknownNameError, match=r"unknown variant of mine 'q4'; known: torch, transformers$"):
        chosen_variant(model, "q4", "fp32")
    for use in (model.weight_bytes, lambda variant: model.engine(variant, 1, 1)):
        with pytest.raises(UnknownNameError, match="known: torch, transformers"):
            use("q4")


@pytest.mark.parametrize(
    ("family", "entries"),
    [("llama-longrope", {}), ("llama", {"model_type": "gpt2"}), ("llama", {"hidden_act": "gelu"})],
    ids=["positions by the length", "another family", "another activation"],
)
def test_what_shared_passes_cannot_run_is_left_to_the_library(tmp_path, family, entries):
    config = config_of(family)
    path = write_checkpoint(tmp_path / "mine", config, weights_of(config), np.float32, 1)
    (path / "config.json").write_text(json.dumps(config | entries))
    model = load_model(path)
    assert model.variants == ("transformers",)
    assert model.kv_bytes_per_token("transformers") is None
    assert chosen_variant(model, None, "fp32", provider=Provider.CUDA) == "transformers"


def test_graphs_beside_weights_make_it_an_export(path):
    shutil.copytree(export_folder(path.parent / "export") / "onnx", path / "onnx")
    assert layout_of(path) is Layout.HUGGING_FACE
    assert load_model(path).checkpoint_variants == ()


@pytest.mark.parametrize(
    "name", ["config.json", "generation_config.json", "tokenizer.json", "model.safetensors.index.json", "weights"]
)
def test_the_identity_changes_with_every_file_that_is_read(path, name):
    draft = path.parent / "draft"
    shutil.copytree(path, draft)
    before = pair_of(draft, path).identity
    assert pair_of(draft, path).identity == before
    if name == "weights":
        file = sorted(path.glob("model-*.safetensors"))[-1]
        content = bytearray(file.read_bytes())
        content[-4] ^= 1
        file.write_bytes(content)
    else:
        (path / name).write_bytes((path / name).read_bytes() + b"\n")
    after = pair_of(draft, path).identity
    assert after.full_digest != before.full_digest
    assert after.pair_digest != before.pair_digest
    assert after.tokenizer_digest == before.tokenizer_digest


def test_files_that_are_not_read_change_nothing(path):
    before = CheckpointFolder(path).digest
    for name in ("README.md", "pytorch_model.bin", "other.safetensors"):
        (path / name).write_bytes(b"of no account")
    assert CheckpointFolder(path).digest == before


def test_it_makes_a_pair_with_other_layouts(path, tmp_path):
    package = tiny_package(tmp_path / "package", variants=("fp32",))
    export = export_folder(tmp_path / "export")
    for other, kind in ((package.path, Package), (export, ExportFolder)):
        pair = pair_of(other, path)
        assert (type(pair.draft), type(pair.full)) == (kind, CheckpointFolder)
        assert pair.identity.full_digest == pair.full.digest


def test_more_layers_than_any_model_has_are_refused_before_they_are_built(path):
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 10**9}))
    with pytest.raises(PackageError, match="says that there are 1000000000 layers; at most 1024 are built"):
        load_model(path)


def test_a_link_among_its_files_is_refused(path):
    (path / "real.json").write_bytes((path / "config.json").read_bytes())
    (path / "config.json").unlink()
    (path / "config.json").symlink_to(path / "real.json")
    with pytest.raises(PackageError, match="is a symbolic link"):
        load_model(path)


def test_weights_of_which_there_is_a_pointer_of_git_lfs_alone_are_told_as_that(path):
    file = sorted(path.glob("model-*.safetensors"))[-1]
    file.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 100000\n")
    with pytest.raises(PackageError, match=f"{file.name} is a pointer of Git LFS, .*git lfs pull"):
        load_model(path)


def test_a_link_to_its_folder_is_the_same_model(path, tmp_path):
    (tmp_path / "link").symlink_to(path)
    model = load_model(tmp_path / "link")
    assert (type(model), model.digest) == (CheckpointFolder, load_model(path).digest)


@pytest.mark.parametrize("missing", ["torch", "transformers"])
def test_without_the_extra_a_refusal_names_it_and_the_faster_way(path, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    model = load_model(path)
    assert len(model.digest) == 64
    said = rf"needs the extra: pip install 'outrider\[transformers\]' .*outrider models convert {path} --out FOLDER makes"
    with pytest.raises(PackageError, match=said):
        model.engine("transformers", 1, 1)


def test_a_package_with_weights_beside_its_graphs_offers_them_only_by_name(tmp_path):
    package = tiny_package(tmp_path / "package", variants=("fp32",))
    assert package.checkpoint_variants == ("torch", "transformers")
    assert package.weight_bytes("transformers") == 4 * package.num_parameters
    assert [package.kv_bytes_per_token(v) for v in ("torch", "transformers")] == [package.kv_bytes_per_token("fp32"), None]
    assert chosen_variant(package, None, "q4") == "fp32"
    assert chosen_variant(package, None, "q4", provider=Provider.CUDA) == "torch"
    assert chosen_variant(package, "transformers", "q4") == "transformers"
    manifest = json.loads((package.path / "manifest.json").read_text())
    del manifest["files"]["model.safetensors"]
    (package.path / "manifest.json").write_text(json.dumps(manifest))
    without = Package(package.path)
    assert without.checkpoint_variants == ()
    with pytest.raises(UnknownNameError, match=r"'transformers'; known: fp32$"):
        without.engine("transformers", 1, 1)


def test_weights_of_a_package_are_not_used_before_their_digest_agrees(tmp_path):
    package = tiny_package(tmp_path / "package", variants=("fp32",))
    with (package.path / "model.safetensors").open("r+b") as file:
        file.seek(-4, 2)
        file.write(b"\x01")
    with pytest.raises(PackageError, match=r"model.safetensors is damaged"):
        package.engine("transformers", 1, 1)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_packages_weights_are_the_model_that_its_graph_is(tmp_path):
    for name in ("torch", "transformers"):
        pytest.importorskip(name, reason=f"{name} is not installed; pip install 'outrider[transformers]'")
    package = tiny_package(tmp_path / "package", variants=("fp32",))
    wanted = logits_of(OnnxEngine(package, num_slots=1))
    for variant in ("torch", "transformers"):
        engine = package.engine(variant, 1, 1)
        assert np.abs(logits_of(engine) - wanted).max() < 1e-3
        assert engine.description.name == f"tiny:{variant}:cpu"


def logits_of(engine):
    return engine.extend([Chunk(engine.open(), TOKENS, len(TOKENS))])
