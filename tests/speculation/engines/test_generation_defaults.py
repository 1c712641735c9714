"""What `generation_config.json` suggests for a request: values as published models have them, and values that cannot be."""

import json

import pytest

from speculation.engines.generation_defaults import HARMLESS, NEUTRAL, generation_defaults
from speculation.engines.package import Package, load_pair
from speculation.engines.pairs import load_model
from speculation.errors import PackageError
from speculation.parameters import NO_DEFAULTS, GenerationDefaults
from tests.speculation.engines.stock_graphs import export_folder, genai_folder
from tests.speculation.engines.tiny import tiny_package

SAMPLED = {"do_sample": True, "temperature": 0.6, "top_p": 0.9}


def found(entries):
    return generation_defaults(entries, "the file")


@pytest.mark.parametrize(
    ("entries", "wanted"),
    [
        ({}, NO_DEFAULTS),
        ({"bos_token_id": 1, "eos_token_id": [2, 3], "transformers_version": "5.0"}, NO_DEFAULTS),
        (SAMPLED, GenerationDefaults(temperature=0.6, top_p=0.9)),
        ({"do_sample": True, "top_k": 64, "top_p": 0.95}, GenerationDefaults(temperature=1.0, top_k=64, top_p=0.95)),
        ({**SAMPLED, "top_k": 20.0, "min_p": 0.1}, GenerationDefaults(0.6, 20, 0.9, 0.1)),
        ({**SAMPLED, "top_p": None, "max_new_tokens": 2048}, GenerationDefaults(0.6, max_tokens=2048)),
        ({"do_sample": True, "temperature": 0}, NO_DEFAULTS),
        ({"do_sample": False, "max_new_tokens": 5}, GenerationDefaults(max_tokens=5)),
        ({"temperature": 1.0, "top_p": 1.0}, NO_DEFAULTS),
    ],
)
def test_entries_are_the_defaults_of_a_request(entries, wanted):
    assert found(entries) == wanted


@pytest.mark.parametrize("entries", [{"temperature": 0.7, "top_k": 50}, {"do_sample": False, "temperature": 0.7, "top_k": 50}])
def test_sampling_without_do_sample_is_greedy_and_says_so(entries):
    assert found(entries) == GenerationDefaults(
        unused=("temperature = 0.7 (do_sample is not true)", "top_k = 50 (do_sample is not true)")
    )


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("repetition_penalty", 1.05, "repetition_penalty = 1.05"),
        ("num_beams", 4, "num_beams = 4"),
        ("typical_p", 0.9, "typical_p = 0.9"),
        ("bad_words_ids", [[1]], "bad_words_ids = [[1]]"),
        ("stop_strings", ["x" * 50], "stop_strings = ['" + "x" * 35 + "..."),
        ("renormalize_logits", True, "renormalize_logits = True"),
        ("what_is_this", 3, "what_is_this = 3"),
        ("min_length", True, "min_length = True"),
    ],
)
def test_what_would_change_the_text_is_told_and_not_applied(key, value, text):
    assert found(SAMPLED | {key: value}) == GenerationDefaults(0.6, top_p=0.9, unused=(text,))


@pytest.mark.parametrize("entries", [dict(NEUTRAL), dict.fromkeys(NEUTRAL), {"suppress_tokens": [], "token_healing": False}])
def test_what_changes_nothing_is_not_told(entries):
    assert found(entries) == NO_DEFAULTS
    assert found(dict.fromkeys(HARMLESS - {"do_sample"}, 7)) == NO_DEFAULTS


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([], "the file must be a JSON object, not list"),
        ({"do_sample": "yes"}, "the file: do_sample must be true or false, not 'yes'"),
        (SAMPLED | {"top_p": 2}, "the file: top_p must be over 0 and at most 1, not 2"),
        (SAMPLED | {"temperature": -1}, "the file: temperature must be from 0 to 100, not -1"),
        (SAMPLED | {"temperature": "hot"}, "the file: temperature must be a number, not 'hot'"),
        (SAMPLED | {"temperature": 10**400}, r"the file: temperature must be a number, not 10{36}\.\.\."),
        ({"max_new_tokens": 10**400}, "the file: max_new_tokens must be a whole number, not 10"),
        (SAMPLED | {"temperature": True}, "the file: temperature must be a number, not True"),
        (SAMPLED | {"temperature": float("nan")}, "the file: temperature must be from 0 to 100, not nan"),
        (SAMPLED | {"top_k": 1.5}, "the file: top_k must be a whole number, not 1.5"),
        (SAMPLED | {"top_k": float("inf")}, "the file: top_k must be a whole number, not inf"),
        (SAMPLED | {"top_k": -1}, "the file: top_k must be 0 .* not -1"),
        (SAMPLED | {"top_k": 2**31}, "the file: top_k must be below"),
        (SAMPLED | {"min_p": 1}, "the file: min_p must be at least 0 and below 1"),
        ({"top_p": 0}, "the file: top_p must be over 0"),
        ({"max_new_tokens": 0}, "the file: max_new_tokens must be at least 1, not 0"),
    ],
)
def test_a_value_that_cannot_be_is_named_with_its_file(entries, said):
    with pytest.raises(PackageError, match=said):
        found(entries)


def test_the_bundled_pair_suggests_nothing():
    pair = load_pair()
    assert pair.full.generation_defaults == pair.draft.generation_defaults == NO_DEFAULTS


def test_an_export_suggests_what_lies_beside_it(tmp_path):
    path = export_folder(tmp_path)
    (path / "generation_config.json").write_text(json.dumps({"eos_token_id": [0, 1], **SAMPLED}))
    model = load_model(path)
    assert model.generation_defaults == GenerationDefaults(0.6, top_p=0.9)
    assert model.end_token_ids == (0, 1)
    (path / "generation_config.json").write_text(json.dumps(SAMPLED | {"top_p": 7}))
    with pytest.raises(PackageError, match=r"generation_config\.json: top_p must be .* not 7"):
        _ = load_model(path).generation_defaults
    (path / "generation_config.json").unlink()
    assert load_model(path).generation_defaults == NO_DEFAULTS


def test_a_genai_folder_suggests_what_its_search_says(tmp_path):
    path = genai_folder(tmp_path)
    assert load_model(path).generation_defaults == NO_DEFAULTS
    config = json.loads((path / "genai_config.json").read_text())
    search = {**SAMPLED, "max_length": 96, "num_beams": 1, "past_present_share_buffer": True, "repetition_penalty": 1.1}
    (path / "genai_config.json").write_text(json.dumps(config | {"search": search}))
    assert load_model(path).generation_defaults == GenerationDefaults(0.6, top_p=0.9, unused=("repetition_penalty = 1.1",))


def test_a_package_suggests_what_its_manifest_lists(tmp_path):
    package = tiny_package(tmp_path / "package", variants=("fp32",))
    manifest = json.loads((package.path / "manifest.json").read_text())
    assert Package(package.path).generation_defaults == NO_DEFAULTS
    (package.path / "generation_config.json").write_text(json.dumps(SAMPLED))
    with pytest.raises(PackageError, match="is damaged"):
        _ = Package(package.path).generation_defaults
    del manifest["files"]["generation_config.json"]
    (package.path / "manifest.json").write_text(json.dumps(manifest))
    assert Package(package.path).generation_defaults == NO_DEFAULTS
