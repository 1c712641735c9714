"""A checkpoint becomes a package, whole or not at all."""

import json
import os
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest

from speculation.engines.adding import Quantisation, add_quantised
from speculation.engines.convert import Conversion, convert
from speculation.engines.onnx import OnnxEngine
from speculation.engines.package import Package
from speculation.errors import InvalidRequestError, PackageError, UnknownNameError
from tests.speculation.engines.conversions import CONFIG, VARIANTS, WEIGHTS, logits_of, made
from tests.speculation.engines.families import config_of, family_logits, weights_of, write_checkpoint
from tests.speculation.engines.tiny import tiny_tokenizer, token_ids


@pytest.fixture
def checkpoint(tmp_path):
    return write_checkpoint(tmp_path / "checkpoint", CONFIG, WEIGHTS)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "packages" / "made"


def edit(file, **changes):
    """Change entries of a JSON file that may not be there; None takes one away."""
    value = {**(json.loads(file.read_text()) if file.exists() else {}), **changes}
    file.write_text(json.dumps({name: entry for name, entry in value.items() if entry is not None}))


def nothing_is_left(out):
    return not out.parent.exists() or list(out.parent.iterdir()) in ([], [out] if out.exists() else [])


def test_a_package_says_what_it_was_made_of(checkpoint, out):
    package = made(checkpoint, out, variants=VARIANTS, name="mine", licence="MIT")
    assert (package.name, package.variants, package.context_length, package.end_token_ids) == ("mine", VARIANTS, 96, (0,))
    assert package.manifest.licence == "MIT"
    assert package.manifest.provenance.startswith("converted from the checkpoint checkpoint; SHA-256 of its weights: model.s")
    assert package.num_parameters == sum(values.size for values in WEIGHTS.values())
    assert package.weight_bytes("fp32") == 4 * (package.num_parameters - WEIGHTS["model.embed_tokens.weight"].size)
    assert nothing_is_left(out)


def test_it_is_named_after_its_folder_where_nothing_is_said(checkpoint, out):
    package = made(checkpoint, out)
    assert package.name == "checkpoint"
    assert package.manifest.licence.startswith("not stated")


def test_small_files_go_with_it_byte_for_byte_and_weights_do_not(checkpoint, out):
    small = ("tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json", "generation_config.json")
    for name in small:
        (checkpoint / name).write_bytes(b'{"eos_token_id" :  [3, 0]}\n')
    (checkpoint / "README.md").write_text("not part of a package")
    package = made(checkpoint, out)
    copied = ("config.json", "tokenizer.json", *small)
    assert all((out / name).read_bytes() == (checkpoint / name).read_bytes() for name in copied)
    assert package.manifest.files.keys() == {*copied, "onnx/model.onnx"}
    assert {path.name for path in out.iterdir()} == {*copied, "onnx", "manifest.json"}


def test_a_long_context_is_cut(tmp_path, out):
    config = config_of("llama3-biases", max_position_embeddings=131072)
    weights = weights_of(config)
    package = made(write_checkpoint(tmp_path / "long", config, weights), out, context_length=48)
    assert (package.context_length, package.architecture.context_length) == (48, 131072)
    assert OnnxEngine(package, num_slots=1).description.context_length == 48
    wanted = family_logits(config, weights, token_ids(40))
    assert np.abs(logits_of(package) - wanted).max() < 2e-5 * np.abs(wanted).max()
    tables = [t for t in onnx.load_model(str(out / "onnx" / "model.onnx")).graph.initializer if t.name == "cos"]
    assert list(tables[0].dims) == [96, 8]


def test_yarn_keeps_the_models_own_positions_when_the_context_is_cut(tmp_path, out):
    """Its factor and what it was trained for may follow from them."""
    scaling = {"type": "yarn", "factor": None, "original_max_position_embeddings": 24, "truncate": False}
    config = config_of("llama", rope_scaling=scaling)
    package = made(write_checkpoint(tmp_path / "yarn", config, WEIGHTS), out, context_length=48)
    told = config_of("llama", rope_scaling={**scaling, "factor": 4.0})
    wanted = family_logits(told, WEIGHTS, token_ids(40))
    assert np.abs(logits_of(package) - wanted).max() < 2e-5 * np.abs(wanted).max()


LONGROPE_CONFIG = config_of("llama-longrope", original_max_position_embeddings=32)


@pytest.mark.parametrize(("context", "made_for", "num_tokens"), [(None, 32, 20), (32, 32, 20), (33, 33, 40), (384, 384, 40)])
def test_longrope_takes_its_short_factors_unless_a_longer_context_is_asked_for(tmp_path, out, context, made_for, num_tokens):
    """By the plain forward of a text of so many tokens, which takes them by the text's length."""
    checkpoint = write_checkpoint(tmp_path / "longrope", LONGROPE_CONFIG, WEIGHTS)
    package = made(checkpoint, out, context_length=context, variants=("fp32", "q4"))
    assert package.context_length == made_for
    wanted = family_logits(LONGROPE_CONFIG, WEIGHTS, token_ids(num_tokens))[:20]
    assert np.abs(logits_of(package, num_tokens=20) - wanted).max() < 2e-5 * np.abs(wanted).max()
    notes = {32: "by short_factor; a context of over 32", 33: "by long_factor, also in texts of up to 32 tokens"}
    assert notes[min(made_for, 33)] in package.architecture.rotary.note(made_for)


def test_a_longrope_package_is_quantised_with_the_factors_of_its_own_context(tmp_path, out):
    checkpoint = write_checkpoint(tmp_path / "longrope", LONGROPE_CONFIG, WEIGHTS)
    for context in (32, 64):
        added, wanted = out.with_name(f"added-{context}"), out.with_name(f"wanted-{context}")
        made(checkpoint, added, context_length=context)
        add_quantised(Quantisation(added, "int8"))
        made(checkpoint, wanted, context_length=context, variants=("fp32", "i8"))
        assert (added / "onnx/model_i8.onnx").read_bytes() == (wanted / "onnx/model_i8.onnx").read_bytes()


def test_dynamic_positions_end_where_angles_would_follow_the_length(tmp_path, out):
    config = config_of("mistral-dynamic", max_position_embeddings=96, original_max_position_embeddings=60)
    checkpoint = write_checkpoint(tmp_path / "dynamic", config, WEIGHTS)
    message = r"from 1 to the model's 60 positions \(dynamic turns plainly up to 60 tokens, .*\), not 61"
    with pytest.raises(InvalidRequestError, match=message):
        made(checkpoint, out, context_length=61)
    assert nothing_is_left(out)
    package = made(checkpoint, out)
    assert package.context_length == 60
    wanted = family_logits(config, WEIGHTS, token_ids(40))
    assert np.abs(logits_of(package) - wanted).max() < 2e-5 * np.abs(wanted).max()


def test_the_context_is_the_models_but_4096_at_most(tmp_path, out):
    config = config_of("llama", max_position_embeddings=5000)
    assert made(write_checkpoint(tmp_path / "long", config, WEIGHTS), out).context_length == 4096


@pytest.mark.parametrize("length", [0, -1, 97])
def test_a_context_that_the_model_has_not_is_refused(checkpoint, out, length):
    with pytest.raises(InvalidRequestError, match=f"from 1 to the model's 96 positions, not {length}"):
        made(checkpoint, out, context_length=length)


@pytest.mark.parametrize(
    ("generation", "config", "given", "wanted"),
    [
        ({"eos_token_id": [5, 6]}, {"eos_token_id": 7}, (), (5, 6)),
        ({"eos_token_id": 5}, {"eos_token_id": 7}, (), (5,)),
        ({"eos_token_id": None}, {"eos_token_id": [7]}, (), (7,)),
        ({"eos_token_id": []}, {"eos_token_id": 7}, (), (7,)),
        ({}, {"eos_token_id": 7}, (8, 9), (8, 9)),
        ({}, {"eos_token_id": None}, (8,), (8,)),
    ],
)
def test_end_tokens_are_those_asked_for_then_of_generation_then_of_the_model(
    checkpoint, out, generation, config, given, wanted
):
    (checkpoint / "generation_config.json").write_text(json.dumps(generation))
    edit(checkpoint / "config.json", **config)
    assert made(checkpoint, out, end_token_ids=given).end_token_ids == wanted


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (None, "neither generation_config.json nor config.json has eos_token_id; .*--end-token ID"),
        (272, r"end tokens 272 must be whole numbers from 0 to 271"),
        ([0, -1], "must be whole numbers"),
        ("0", "must be whole numbers"),
        ([True], "must be whole numbers"),
    ],
)
def test_end_tokens_that_mean_nothing_are_refused(checkpoint, out, found, message):
    edit(checkpoint / "config.json", eos_token_id=found)
    with pytest.raises(PackageError, match=message):
        made(checkpoint, out)


def test_an_unknown_variant_names_the_known_ones(checkpoint, out):
    with pytest.raises(UnknownNameError, match="'q9'; known: fp32, i8, q4"):
        made(checkpoint, out, variants=("fp32", "q9"))


@pytest.mark.parametrize("variants", [(), ("fp32", "fp32")])
def test_variants_are_named_once_and_one_at_least(checkpoint, out, variants):
    with pytest.raises(InvalidRequestError, match="name each variant once"):
        made(checkpoint, out, variants=variants)


def test_a_folder_that_holds_something_is_left_as_it_is(checkpoint, out):
    out.mkdir(parents=True)
    (out / "mine.txt").write_text("precious")
    with pytest.raises(InvalidRequestError, match="exists already; name a new or an empty folder"):
        made(checkpoint, out)
    assert [path.name for path in out.iterdir()] == ["mine.txt"]
    assert nothing_is_left(out)


def test_an_empty_folder_is_taken(checkpoint, out):
    out.mkdir(parents=True)
    assert made(checkpoint, out).variants == ("fp32",)


def test_a_place_that_no_folder_can_take_is_refused_before_the_work(checkpoint, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    for out in (Path("."), Path(".."), Path("new/..")):
        with pytest.raises(InvalidRequestError, match=r"is not the name of a folder to make|exists already"):
            made(checkpoint, out)
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == tmp_path / "empty")
    with pytest.raises(InvalidRequestError, match=r"a file system is mounted there.*name a folder in it"):
        made(checkpoint, tmp_path / "empty")
    assert list((tmp_path / "empty").iterdir()) == []


def test_a_file_in_the_way_is_refused(checkpoint, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InvalidRequestError, match="exists already"):
        made(checkpoint, tmp_path / "file")
    with pytest.raises(PackageError, match="could not be made"):
        made(checkpoint, tmp_path / "file" / "below")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda weights: weights.pop("model.layers.1.mlp.up_proj.weight"),
            r"lacks model.layers.1.mlp.up_proj.weight.*80",
        ),
        (lambda weights: weights.update({"model.norm.weight": np.ones(63, np.float32)}), r"has shape \[63\].*\[64\]"),
        (
            lambda weights: weights.update({"lm_head.weight": np.ones((64, 272), np.float32)}),
            r"has shape \[64, 272\].*272, 64",
        ),
        (
            lambda weights: weights.update({"model.layers.0.self_attn.q_proj.bias": np.ones(64, np.float32)}),
            "has no place for: model.layers.0.self_attn.q_proj.bias",
        ),
        (lambda weights: weights["model.norm.weight"].put(3, np.nan), "model.norm.weight holds values that are no numbers"),
    ],
    ids=["a weight missing", "a vector's shape", "a matrix's shape", "a weight too many", "no number"],
)
def test_weights_that_do_not_fit_leave_nothing_behind(tmp_path, out, change, message):
    weights = {name: values.copy() for name, values in WEIGHTS.items()}
    change(weights)
    write_checkpoint(tmp_path / "bad", CONFIG, weights)
    with pytest.raises(PackageError, match=message):
        made(tmp_path / "bad", out, variants=VARIANTS, external_bytes=0)
    assert nothing_is_left(out)
    assert not out.exists()


def test_whatever_stops_it_leaves_nothing_behind(checkpoint, out):
    def stop(variant, done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(Conversion(checkpoint, out), stop)
    assert nothing_is_left(out)
    assert not out.exists()


def test_tied_embeddings_may_be_stored_twice_but_not_differ(tmp_path, out):
    config = config_of("smollm")
    weights = weights_of(config)
    head = weights["model.embed_tokens.weight"].copy()
    package = made(write_checkpoint(tmp_path / "same", config, {**weights, "lm_head.weight": head}), out)
    assert package.num_parameters == sum(values.size for values in weights.values())
    head[100, 3] += 1
    with pytest.raises(PackageError, match=r"tie_word_embeddings is true, but lm_head.weight differs"):
        made(write_checkpoint(tmp_path / "other", config, {**weights, "lm_head.weight": head}), tmp_path / "no")


def test_frequencies_that_older_checkpoints_hold_are_left_out(tmp_path, out):
    weights = WEIGHTS | {"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(8, np.float32)}
    package = made(write_checkpoint(tmp_path / "older", CONFIG, weights), out)
    assert package.num_parameters == sum(values.size for values in WEIGHTS.values())


def test_an_id_beyond_the_vocabulary_is_refused_however_few_tokens_there_are(tmp_path, out):
    tokenizer = json.loads(tiny_tokenizer())
    tokenizer["model"]["vocab"]["!"] = 5000
    write_checkpoint(tmp_path / "holes", CONFIG, WEIGHTS, tokenizer=json.dumps(tokenizer).encode())
    with pytest.raises(PackageError, match=r"has 5001 tokens; config.json has a vocabulary of 272"):
        made(tmp_path / "holes", out)
    assert nothing_is_left(out)


def test_a_tokenizer_that_does_not_fit_is_refused_before_anything_is_written(tmp_path, out):
    config = config_of("llama", vocab_size=200)
    write_checkpoint(tmp_path / "small", config, weights_of(config))
    with pytest.raises(PackageError, match=r"has 257 tokens; config.json has a vocabulary of 200"):
        made(tmp_path / "small", out)
    write_checkpoint(tmp_path / "none", CONFIG, WEIGHTS, tokenizer=b"{}")
    with pytest.raises(PackageError, match="is not a tokenizer"):
        made(tmp_path / "none", out)
    assert nothing_is_left(out)


def test_shards_make_the_graph_that_one_file_makes(checkpoint, out, tmp_path):
    shards = write_checkpoint(tmp_path / "shards", CONFIG, WEIGHTS, ml_dtypes.bfloat16, shards=4)
    one, several = made(checkpoint, out), made(shards, tmp_path / "several")
    assert one.manifest.files["onnx/model.onnx"] == several.manifest.files["onnx/model.onnx"]
    assert several.manifest.provenance.count("safetensors") == 4


def test_progress_goes_up_to_all_bytes_once_a_variant(checkpoint, out):
    told = []
    convert(Conversion(checkpoint, out, ("fp32", "q4")), lambda *step: told.append(step))
    total = 4 * sum(values.size for values in WEIGHTS.values())
    for variant in ("fp32", "q4"):
        done = [step[1] for step in told if step[0] == variant]
        assert done == sorted(done)
        assert (done[-1], len(done), {step[2] for step in told}) == (total, len(WEIGHTS), {total})


def test_no_training_framework_is_needed(checkpoint, out):
    """In a fresh process, where none can be imported."""
    code = (
        "import sys; sys.modules.update(torch=None, transformers=None)\n"
        "from pathlib import Path; from speculation.engines.convert import Conversion, convert\n"
        "print(convert(Conversion(Path(sys.argv[1]), Path(sys.argv[2]))).name)"
    )
    result = subprocess.run([sys.executable, "-c", code, checkpoint, out], capture_output=True, text=True, check=False)
    assert (result.stdout, result.stderr) == ("checkpoint\n", "")
    assert Package(out).variants == ("fp32",)
