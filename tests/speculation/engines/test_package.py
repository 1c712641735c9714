"""Good packages load, bad ones are refused with the reason."""

import hashlib
import json
import shutil
from dataclasses import replace

import numpy as np
import onnx
import pytest
from safetensors.numpy import load_file

from speculation.engines.onnx import OnnxEngine
from speculation.engines.package import Package, load_pair
from speculation.engines.package_writer import write_package, write_pair
from speculation.errors import PackageError, UnknownNameError
from tests.speculation.engines.tiny import PROMPTS, tiny_package, tiny_pair, tiny_source


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    path = tmp_path_factory.mktemp("good")
    tiny_pair(path)
    return path


@pytest.fixture
def pair_path(good, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(good, tmp_path / "pair")


@pytest.fixture
def path(pair_path):
    return pair_path / "draft"


def edit(file, **changes):
    """Change entries of a JSON file; None takes one away."""
    value = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({name: entry for name, entry in value.items() if entry is not None}))


def list_again(path, *names):
    """Write the files' true digests into the manifest."""
    files = json.loads((path / "manifest.json").read_text())["files"]
    edit(path / "manifest.json", files=files | {name: hashlib.sha256((path / name).read_bytes()).hexdigest() for name in names})


def test_a_package_tells_what_is_in_it(good):
    package = Package(good / "draft")
    assert (package.name, package.variants, package.context_length) == ("tiny-draft", ("fp32", "q4"), 96)
    assert package.end_token_ids == (0,)
    assert package.num_parameters == sum(w.size for w in load_file(package.path / "model.safetensors").values())
    assert package.weight_bytes("fp32") == 4 * package.num_parameters
    assert package.weight_bytes("q4") < package.weight_bytes("fp32") / 4
    assert package.graph("q4") == good / "draft" / "onnx" / "model_q4.onnx"
    assert package.tokenizer.decode(package.tokenizer.encode("päckage").ids) == "päckage"


def test_a_pair_tells_what_both_ends_must_agree_on(good):
    pair = load_pair(good)
    assert (pair.name, pair.version, pair.licence, pair.prompts) == ("tiny", 1, "Apache-2.0", tuple(PROMPTS))
    tokenizer = hashlib.sha256((good / "full" / "tokenizer.json").read_bytes()).hexdigest()
    assert pair.identity.tokenizer_digest == tokenizer
    assert pair.identity.full_digest == pair.full.digest != pair.draft.digest
    assert len(pair.identity.pair_digest) == 64
    assert pair.identity.version == pair.version


def test_weights_are_kept_in_float16_under_their_published_names(good):
    weights = load_file(good / "full" / "model.safetensors")
    assert {values.dtype for values in weights.values()} == {np.dtype(np.float16)}
    assert "model.layers.1.self_attn.q_proj.weight" in weights
    assert "lm_head.weight" not in weights


def test_the_pair_digest_follows_the_version_and_every_file(good, tmp_path):
    seen = {load_pair(good).identity.pair_digest}
    for version, seed in ((1, 1), (2, 1), (1, 5)):
        draft = tiny_source("tiny-draft", seed=seed, variants=("fp32", "q4"), num_hidden_layers=1)
        full = tiny_source("tiny-full", seed=2, variants=("fp32",))
        write_pair(tmp_path / f"{version}-{seed}", "tiny", version, draft, full, PROMPTS)
        seen.add(load_pair(tmp_path / f"{version}-{seed}").identity.pair_digest)
    assert len(seen) == 3


def test_an_unknown_variant_names_the_known_ones(good):
    package = Package(good / "draft")
    for use in (package.graph, package.weight_bytes, lambda name: OnnxEngine(package, name)):
        with pytest.raises(UnknownNameError, match="'q9'; known: fp32, q4"):
            use("q9")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema_version": 2}, "schema_version is 2; this release reads 1"),
        ({"licence": None}, "lacks licence"),
        ({"lisence": "MIT"}, "unknown entries: lisence; known: context_length"),
        ({"num_parameters": "many"}, "wrong form"),
        ({"num_parameters": 1e400}, "wrong form"),
        ({"num_parameters": 0}, "num_parameters must be positive"),
        ({"variants": []}, "wrong form"),
        ({"variants": {}}, "variants is empty"),
        ({"variants": {"fp32": {"graph": "onnx/other.onnx", "weight_bytes": 1}}}, "no digest for onnx/other.onnx"),
        ({"context_length": 97}, "context_length 97 must be from 1 to the model's 96"),
        ({"end_token_ids": [272]}, r"end_token_ids \[272\] are not below the vocabulary's size, 272"),
    ],
)
def test_a_manifest_that_cannot_be_right_is_refused(path, changes, message):
    edit(path / "manifest.json", **changes)
    with pytest.raises(PackageError, match=message):
        Package(path)


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"[]"])
@pytest.mark.parametrize("name", ["manifest.json", "config.json"])
def test_what_is_no_json_object_is_refused(path, name, content):
    (path / name).write_bytes(content)
    if name == "config.json":
        list_again(path, name)
    with pytest.raises(PackageError, match=name):
        Package(path)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "onnx/model.onnx"])
def test_a_damaged_file_is_refused_before_it_is_used(path, name):
    content = bytearray((path / name).read_bytes())
    content[len(content) // 2] ^= 1
    (path / name).write_bytes(content)
    with pytest.raises(PackageError, match=f"{name} is damaged: its SHA-256 is .*, the manifest says"):
        use_all(path)


@pytest.mark.parametrize("name", ["manifest.json", "config.json", "tokenizer.json", "onnx/model.onnx"])
def test_a_missing_file_is_named(path, name):
    (path / name).unlink()
    with pytest.raises(PackageError, match=f"{name} is not there"):
        use_all(path)


def use_all(path):
    package = Package(path)
    assert package.tokenizer
    OnnxEngine(package, "fp32", num_slots=1)


@pytest.mark.parametrize("name", ["/etc/hostname", "../full/onnx/model.onnx", "onnx/../../x", "c:\\model.onnx", "."])
def test_a_path_that_leaves_the_package_is_refused(path, name):
    manifest = json.loads((path / "manifest.json").read_text())
    files = manifest["files"] | {name: "0" * 64}
    edit(path / "manifest.json", variants={"fp32": {"graph": name, "weight_bytes": 1}}, files=files)
    with pytest.raises(PackageError, match="relative path inside the package"):
        Package(path).graph("fp32")


@pytest.mark.parametrize("name", ["config.json", "onnx"])
def test_a_symbolic_link_is_refused(path, name):
    (path / name).rename(path / "elsewhere")
    (path / name).symlink_to(path / "elsewhere")
    with pytest.raises(PackageError, match="is a symbolic link"):
        use_all(path)


def with_external_weights(path, location):
    """Move the graph's weights into a file beside it, and call that file ``location``."""
    model = onnx.load_model(str(path / "onnx" / "model.onnx"))
    onnx.save_model(
        model, str(path / "onnx" / "model.onnx"), save_as_external_data=True, location="model.data", size_threshold=1024
    )
    model = onnx.load_model(str(path / "onnx" / "model.onnx"), load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            entry.value = location if entry.key == "location" else entry.value
    (path / "onnx" / "model.onnx").write_bytes(model.SerializeToString())
    list_again(path, "onnx/model.onnx")


def test_weights_beside_the_graph_are_welcome_when_the_manifest_lists_them(path):
    with_external_weights(path, "model.data")
    with pytest.raises(PackageError, match=r"model.data has no digest in the manifest"):
        Package(path).graph("fp32")
    list_again(path, "onnx/model.data")
    use_all(path)


@pytest.mark.parametrize("location", ["../../full/onnx/model.onnx", "/etc/hostname"])
def test_weights_outside_the_package_are_refused(path, location):
    with_external_weights(path, location)
    with pytest.raises(PackageError, match="inside the package"):
        Package(path).graph("fp32")


def test_a_graph_that_is_none_is_refused(path):
    (path / "onnx" / "model.onnx").write_bytes(b"not a graph")
    list_again(path, "onnx/model.onnx")
    with pytest.raises(PackageError, match="not an ONNX graph"):
        use_all(path)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"num_hidden_layers": 2}, "not a packed graph with 1 layers"),
        ({"num_key_value_heads": 4, "num_hidden_layers": 1}, "config.json says 2 heads of 16"),
        ({"vocab_size": 300, "num_hidden_layers": 1}, "has a vocabulary of 300; config.json says 272"),
    ],
)
def test_a_graph_of_another_model_is_refused(path, tmp_path, other, message):
    tiny_package(tmp_path / "other", variants=("fp32",), **other)
    shutil.copy(tmp_path / "other" / "onnx" / "model.onnx", path / "onnx" / "model.onnx")
    list_again(path, "onnx/model.onnx")
    with pytest.raises(PackageError, match=message):
        use_all(path)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("past_key_values.0.key",), "keeps key-value heads"),
        (("input_ids", "out_idx", "unpad_idx", "pad_idx", "logits"), "vocabulary of None; config.json says 272"),
    ],
)
def test_a_graph_that_leaves_its_shapes_out_is_refused(tmp_path, names, message):
    path = tmp_path / "tiny"
    tiny_package(path, variants=("fp32",), num_key_value_heads=4)  # where heads are grouped, other shapes say the vocabulary
    model = onnx.load(path / "onnx" / "model.onnx")
    for value in (*model.graph.input, *model.graph.output):
        if value.name in names:
            value.type.tensor_type.ClearField("shape")
    onnx.save(model, path / "onnx" / "model.onnx")
    list_again(path, "onnx/model.onnx")
    with pytest.raises(PackageError, match=message):
        use_all(path)


def test_a_tokenizer_that_is_none_is_refused(path):
    (path / "tokenizer.json").write_text("{}")
    list_again(path, "tokenizer.json")
    with pytest.raises(PackageError, match="is not a tokenizer"):
        use_all(path)


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(tmp_path):
    package = tiny_package(tmp_path, variants=("fp32",), vocab_size=200)
    with pytest.raises(PackageError, match=r"has 257 tokens; config.json has a vocabulary of 200"):
        assert package.tokenizer


def test_what_is_no_folder_is_refused(tmp_path):
    for load in (Package, load_pair):
        with pytest.raises(PackageError, match=r"is not a folder; a (package|pair) is a folder with"):
            load(tmp_path / "nowhere")


def test_a_pair_whose_tokenizers_differ_is_refused_with_both_digests(pair_path):
    tokenizer = pair_path / "draft" / "tokenizer.json"
    before = hashlib.sha256(tokenizer.read_bytes()).hexdigest()
    tokenizer.write_bytes(tokenizer.read_bytes() + b"\n")
    list_again(pair_path / "draft", "tokenizer.json")
    after = hashlib.sha256(tokenizer.read_bytes()).hexdigest()
    with pytest.raises(PackageError, match=f"tokenizers differ: tiny-draft has {after}, tiny-full has {before}"):
        load_pair(pair_path)


def test_sources_with_different_tokenizers_make_no_pair(tmp_path):
    draft, full = tiny_source(), tiny_source()
    object.__setattr__(draft, "tokenizer", full.tokenizer + b"\n")
    with pytest.raises(PackageError, match=r"shares one tokenizer.json"):
        write_pair(tmp_path, "tiny", 1, draft, full, PROMPTS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 2}, "a half was exchanged or changed"),
        ({"tokenizer_digest": "0" * 64}, "names the tokenizer 0000"),
        ({"version": "2"}, "entries of the wrong form: version"),
        ({"version": -1}, "version counts from 1"),
        ({"version": 2**32}, "version counts from 1"),
        ({"draft": "../elsewhere"}, "relative path inside"),
        ({"draft": "nowhere"}, "manifest.json is not there"),
        ({"full": None}, "lacks full"),
        ({"prompts": "0" * 64}, "prompts.json is damaged"),
    ],
)
def test_a_pair_that_cannot_be_right_is_refused(pair_path, changes, message):
    edit(pair_path / "pair.json", **changes)
    with pytest.raises(PackageError, match=message):
        load_pair(pair_path)


def test_a_half_that_was_exchanged_is_refused(pair_path, tmp_path):
    shutil.rmtree(pair_path / "draft")
    tiny_package(pair_path / "draft", seed=9, num_hidden_layers=1)
    with pytest.raises(PackageError, match="a half was exchanged or changed"):
        load_pair(pair_path)


def test_prompts_of_another_form_are_refused(pair_path):
    (pair_path / "prompts.json").write_text('[{"text": "no source"}]')
    edit(pair_path / "pair.json", prompts=hashlib.sha256((pair_path / "prompts.json").read_bytes()).hexdigest())
    with pytest.raises(PackageError, match="must be a list of objects with source, text, title"):
        load_pair(pair_path)


def test_weights_that_float16_cannot_hold_are_refused(tmp_path):
    source = tiny_source()
    source.weights["model.norm.weight"][3] = 1e6
    with np.errstate(over="ignore"), pytest.raises(PackageError, match=r"float16 cannot hold: model.norm.weight"):
        write_pair(tmp_path, "tiny", 1, source, source, PROMPTS)


def test_a_variant_that_cannot_be_made_is_refused(tmp_path):
    with pytest.raises(UnknownNameError, match="'q3'; known: fp32, i8, q4"):
        tiny_package(tmp_path, variants=("q3",))


def test_a_template_is_one_of_the_packages_files_and_one_that_is_none_is_not_written(tmp_path):
    written = write_package(tmp_path / "talks", replace(tiny_source(), chat_template="{{ messages[0].content }}"))
    assert "chat_template.jinja" in written.files
    assert Package(tmp_path / "talks").chat_template.render([{"role": "user", "content": "a"}]) == "a"
    with pytest.raises(PackageError, match="is not Jinja"):
        write_package(tmp_path / "mumbles", replace(tiny_source(), chat_template="{{"))
