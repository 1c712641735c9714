"""A quantised variant joins a package: the graph that a conversion would have made, all of it or nothing."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from speculation.engines import self_test
from speculation.engines.adding import Quantisation, add_quantised
from speculation.engines.convert import Conversion, convert
from speculation.engines.files import checked, file_digest
from speculation.engines.manifest import Manifest
from speculation.engines.onnx import OnnxEngine
from speculation.engines.package import Package, load_pair
from speculation.engines.package_writer import write_manifest
from speculation.engines.quantise import BLOCK
from speculation.engines.whole_sums import are_whole
from speculation.errors import InvalidRequestError, PackageError, UnknownNameError
from tests.speculation.engines.families import config_of, weights_of, write_checkpoint
from tests.speculation.engines.tiny import tiny_package, tiny_pair
from tests.support.processor import gives_rows_alike

UNTIED, TIED, BIASES, HEAD_NORMS, TIED_WITH_BIASES = "llama", "smollm", "llama3-biases", "qwen3", "qwen2"
ASKED = {
    "i8": ("int8", None),
    "q8": ("int8", 32),
    "q8_b64": ("int8", 64),
    "q4": ("int4", None),
    "q4_b16": ("int4", 16),
    "q4_b128": ("int4", 128),
}
INSIDE, BESIDE = 1 << 30, 0


@pytest.fixture
def package(tmp_path):
    return tiny_package(tmp_path / "tiny", variants=("fp32",))


def quantised(package, variant="q4", **options):
    kind, block = ASKED[variant]
    return add_quantised(Quantisation(package, kind, block, **options))


def content_of(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def without_safetensors(package):
    """The package as a conversion would leave it: its graphs are all that holds weights."""
    (package.path / "model.safetensors").unlink()
    return with_manifest(package, files={n: d for n, d in package.manifest.files.items() if n != "model.safetensors"})


def with_manifest(package, **changes):
    value = json.loads((package.path / "manifest.json").read_text())
    write_manifest(package.path, Manifest.from_json({**value, **changes}))
    return Package(package.path)


def is_whole(path):
    package = Package(path)
    for name in package.manifest.files:
        checked(path, name, package.manifest.files)
    return content_of(path).keys() == {Path("manifest.json"), *map(Path, package.manifest.files)}


@pytest.mark.parametrize("external_bytes", [INSIDE, BESIDE], ids=["inside", "beside"])
@pytest.mark.parametrize("variant", ASKED)
@pytest.mark.parametrize("family", [UNTIED, TIED, BIASES, HEAD_NORMS, TIED_WITH_BIASES])
def test_the_fp32_graph_alone_gives_the_graph_that_the_checkpoint_gives(tmp_path, family, variant, external_bytes):
    config = config_of(family)
    checkpoint = write_checkpoint(tmp_path / "checkpoint", config, weights_of(config))
    options = {"context_length": 48, "external_bytes": external_bytes}
    wanted = convert(Conversion(checkpoint, tmp_path / "both", ("fp32", variant), **options))
    convert(Conversion(checkpoint, tmp_path / "one", ("fp32",), **options))
    found = quantised(tmp_path / "one", variant, external_bytes=external_bytes)
    assert found == wanted
    assert Package(tmp_path / "one").manifest == wanted
    assert is_whole(tmp_path / "one")


@pytest.mark.parametrize("variant", ASKED)
@pytest.mark.parametrize("is_tied", [True, False])
def test_safetensors_and_the_graph_of_one_package_give_the_same(tmp_path, variant, is_tied):
    source = {"tie_word_embeddings": is_tied}
    wanted = tiny_package(tmp_path / "both", variants=("fp32", variant), **source).manifest
    one = tiny_package(tmp_path / "one", variants=("fp32",), **source)
    bare = without_safetensors(tiny_package(tmp_path / "bare", variants=("fp32",), **source))
    assert quantised(one.path, variant) == wanted
    found = quantised(bare.path, variant)
    assert found.variants == wanted.variants
    assert found.files == {name: digest for name, digest in wanted.files.items() if name != "model.safetensors"}


def test_safetensors_go_before_the_graph(package):
    """A graph that was changed together with its digest shows which of the two was read."""
    wanted = tiny_package(package.path.parent / "both", variants=("fp32", "q4")).manifest
    graph = package.path / "onnx" / "model.onnx"
    model = onnx.load_model(graph)
    next(t for t in model.graph.initializer if t.name == "model.norm.weight").raw_data = bytes(4 * 32)
    onnx.save_model(model, graph)
    with_manifest(package, files={**package.manifest.files, "onnx/model.onnx": file_digest(graph)})
    assert quantised(package.path).files["onnx/model_q4.onnx"] == wanted.files["onnx/model_q4.onnx"]


def test_a_package_without_an_fp32_graph_is_quantised_from_its_safetensors(tmp_path):
    package = tiny_package(tmp_path / "tiny", variants=("i8",))
    assert list(quantised(package.path).variants) == ["i8", "q4"]


@pytest.mark.parametrize("variant", ASKED)
def test_what_was_added_can_be_run_and_keeps_rows_apart(package, variant):
    quantised(package.path, variant)
    found = self_test.run(OnnxEngine(Package(package.path), variant, num_slots=4))
    bits = 8 if variant.startswith("q8") else 4
    if bits == 8 and not are_whole(ASKED[variant][1]):
        pytest.skip("this processor cuts off sums of 8-bit blocks, so engines refuse them")
    assert found.is_exact or (variant != "i8" and not gives_rows_alike(bits, ASKED[variant][1] or BLOCK))


def test_progress_goes_up_to_all_bytes(package):
    told = []
    add_quantised(Quantisation(package.path, "int4"), lambda *step: told.append(step))
    done = [step[1] for step in told]
    assert done == sorted(done)
    assert {step[::2] for step in told} == {("q4", 4 * package.num_parameters)}
    assert done[-1] == 4 * package.num_parameters


@pytest.mark.parametrize(
    ("kind", "block", "error", "message"),
    [
        ("int3", None, UnknownNameError, "unknown kind of weights 'int3'; known: int4, int8"),
        ("int8", 48, InvalidRequestError, "a block must be a power of two, one of 16, 32, 64, 128, 256; not 48"),
        ("int4", 48, InvalidRequestError, "a power of two, one of 16, 32, 64, 128, 256; not 48"),
        ("int4", 8, InvalidRequestError, "not 8"),
        ("int4", 512, InvalidRequestError, "not 512"),
        ("int4", 0, InvalidRequestError, "not 0"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(package, kind, block, error, message):
    before = content_of(package.path)
    with pytest.raises(error, match=message):
        add_quantised(Quantisation(package.path, kind, block))
    assert content_of(package.path) == before


def test_a_variant_that_is_there_is_not_made_again(package):
    quantised(package.path)
    with pytest.raises(InvalidRequestError, match=r"has the variant q4 already, in onnx/model_q4\.onnx"):
        quantised(package.path)
    assert is_whole(package.path)


def test_a_package_without_weights_in_full_is_told_how_to_get_them(tmp_path):
    package = without_safetensors(tiny_package(tmp_path / "tiny", variants=("i8",)))
    with pytest.raises(PackageError, match=r"has neither model.safetensors nor the variant fp32.*convert CHECKPOINT --out DIR"):
        quantised(package.path)


@pytest.mark.parametrize("name", ["onnx/model.onnx", "model.safetensors", "tokenizer.json", "config.json"])
def test_a_damaged_file_is_found_before_anything_is_written(package, tmp_path, name):
    content = bytearray((package.path / name).read_bytes())
    content[-3] ^= 1
    (package.path / name).write_bytes(content)
    before = content_of(package.path)
    for out in (None, tmp_path / "out"):
        with pytest.raises(PackageError, match=r"is damaged: its SHA-256 is"):
            quantised(package.path, out=out)
    assert content_of(package.path) == before
    assert not (tmp_path / "out").exists()


def test_a_published_export_is_told_what_makes_a_package_of_its_checkpoint(tmp_path):
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "model.onnx").write_bytes(b"")
    with pytest.raises(PackageError, match=r"no manifest.json.*`outrider models convert CHECKPOINT --out DIR --variant fp32`"):
        quantised(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(PackageError, match=rf"`outrider models convert {tmp_path} --out DIR --variant fp32` makes one"):
        quantised(tmp_path)


def test_a_folder_that_is_not_there_is_no_package(tmp_path):
    with pytest.raises(PackageError, match=r"is not a folder; a package is a folder with manifest\.json"):
        quantised(tmp_path / "nowhere")


def test_a_half_of_a_pair_is_quantised_in_a_copy_alone(tmp_path):
    pair = tiny_pair(tmp_path / "pair")
    with pytest.raises(InvalidRequestError, match=r"is a half of the pair in .*name another folder"):
        quantised(pair.full.path)
    assert load_pair(tmp_path / "pair").identity == pair.identity
    quantised(pair.full.path, out=tmp_path / "copy")
    assert load_pair(tmp_path / "pair").identity == pair.identity
    assert is_whole(tmp_path / "copy")
    quantised(tmp_path / "copy", "i8")


def test_a_copy_is_whole_and_the_package_stays_as_it_was(package, tmp_path):
    (package.path / "notes.txt").write_text("not part of the package")
    before = content_of(package.path)
    manifest = quantised(package.path, out=tmp_path / "new" / "copy")
    assert content_of(package.path) == before
    assert is_whole(tmp_path / "new" / "copy")
    assert Package(tmp_path / "new" / "copy").manifest == manifest
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["copy"]


def test_a_folder_that_holds_something_is_left_as_it_is(package, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("precious")
    with pytest.raises(InvalidRequestError, match="exists already; name a new or an empty folder"):
        quantised(package.path, out=tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("out", [None, "out"])
@pytest.mark.parametrize("external_bytes", [INSIDE, BESIDE], ids=["inside", "beside"])
def test_whatever_stops_it_in_the_middle_leaves_the_package_as_it_was(package, tmp_path, out, external_bytes):
    before, told = content_of(package.path), []

    def stop(variant, done, total):
        told.append(done)
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        add_quantised(Quantisation(package.path, "int4", None, out and tmp_path / out, external_bytes), stop)
    assert len(told) > 1
    assert content_of(package.path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


@pytest.mark.parametrize(("last_step", "error"), [("onnx/model_q4.onnx_data", OSError), ("manifest.json", KeyboardInterrupt)])
def test_a_move_that_fails_is_taken_back(package, monkeypatch, last_step, error):
    before = content_of(package.path)
    plain = {name: getattr(Path, name) for name in ("rename", "replace")}

    def failing(name):
        def move(self, target):
            if str(target).endswith(last_step):
                raise error(28, "no space left")
            return plain[name](self, target)

        return move

    for name in plain:
        monkeypatch.setattr(Path, name, failing(name))
    with pytest.raises(PackageError if error is OSError else error, match="no space left"):
        quantised(package.path, external_bytes=BESIDE)
    assert content_of(package.path) == before


def test_every_graph_is_in_place_before_the_manifest_lists_it(package, monkeypatch):
    plain, seen = Path.replace, []

    def replace(self, target):
        seen.append({path.name for path in (package.path / "onnx").iterdir()})
        assert list(Package(package.path).variants) == ["fp32"]
        return plain(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    quantised(package.path, external_bytes=BESIDE)
    assert seen == [{"model.onnx", "model_q4.onnx", "model_q4.onnx_data"}]


def test_a_manifest_that_changed_meanwhile_is_not_overwritten(package):
    def change(variant, done, total):
        if done == total:
            with_manifest(package, licence="MIT")

    with pytest.raises(PackageError, match="was changed by something else meanwhile; try again"):
        add_quantised(Quantisation(package.path, "int4"), change)
    assert Package(package.path).manifest.licence == "MIT"
    assert is_whole(package.path)


def test_a_file_that_no_manifest_lists_is_not_overwritten(package):
    stray = package.path / "onnx" / "model_q4.onnx"
    stray.write_text("mine")
    with pytest.raises(PackageError, match=r"model_q4.onnx is there, though manifest.json does not list it; take it away"):
        quantised(package.path)
    assert stray.read_text() == "mine"
    stray.unlink()
    assert is_whole(package.path)


def test_a_graph_that_holds_no_numbers_is_refused(package):
    bare = without_safetensors(package)
    graph = bare.path / "onnx" / "model.onnx"
    model = onnx.load_model(graph)
    tensor = next(t for t in model.graph.initializer if t.name.endswith("qkv_proj.weight"))
    values = onnx.numpy_helper.to_array(tensor).copy()
    values[3, 100] = np.inf
    tensor.raw_data = values.tobytes()
    onnx.save_model(model, graph)
    with_manifest(bare, files={**bare.manifest.files, "onnx/model.onnx": file_digest(graph)})
    with pytest.raises(PackageError, match=r"layers.0.self_attn.v_proj.weight holds values that are no numbers"):
        quantised(bare.path)
