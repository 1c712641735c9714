"""Two folders become a pair where their tokenizers mean the same, whatever layouts they have."""

import json
import shutil

import numpy as np
import pytest

from speculation.engines.base import Chunk
from speculation.engines.exports import ExportFolder
from speculation.engines.fitted import FittedEngine, fitted
from speculation.engines.package import Package
from speculation.engines.pairs import load_full, load_model, models_of, pair_of
from speculation.engines.random import RandomEngine
from speculation.engines.tokenizer_files import difference, meaning_of
from speculation.errors import EngineError, InvalidRequestError, PackageError
from tests.speculation.engines.stock_graphs import export_folder, genai_folder, split_graphs
from tests.speculation.engines.tiny import tiny_package, tiny_pair, tiny_tokenizer


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    path = tmp_path_factory.mktemp("folders")
    tiny_package(path / "package", variants=("fp32",))
    export_folder(path / "export", seed=1)
    genai_folder(path / "genai", seed=2)
    return path


def changed_tokenizer(change):
    tokenizer = json.loads(tiny_tokenizer())
    change(tokenizer)
    return json.dumps(tokenizer).encode()


def export_with(path, change, **overrides):
    return export_folder(path, tokenizer=changed_tokenizer(change), **overrides)


@pytest.mark.parametrize("full", ["package", "export", "genai"])
@pytest.mark.parametrize("draft", ["package", "export", "genai"])
def test_any_two_layouts_make_a_pair_and_both_ends_agree(folders, draft, full):
    here, there = (pair_of(folders / draft, folders / full) for _ in range(2))
    assert here.identity == there.identity
    assert here.identity.full_digest == here.full.digest
    assert (type(here.draft), type(here.full)) == tuple(Package if n == "package" else ExportFolder for n in (draft, full))


def test_other_halves_make_another_pair(folders):
    names = ("package", "export", "genai")
    identities = [pair_of(folders / draft, folders / full).identity for draft in names for full in names]
    assert len({identity.pair_digest for identity in identities}) == 9
    assert len({identity.full_digest for identity in identities}) == 3
    assert len({identity.tokenizer_digest for identity in identities}) == 1


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer.json", "onnx/model.onnx"])
def test_the_identity_changes_with_every_file(tmp_path, folders, name):
    export = export_folder(tmp_path / "export", seed=1)
    before = pair_of(folders / "package", export).identity
    if name == "onnx/model.onnx":
        export_folder(tmp_path / "export", seed=9)
    else:
        (export / name).write_bytes((export / name).read_bytes() + b"\n")
    after = pair_of(folders / "package", export).identity
    assert after.full_digest != before.full_digest
    assert after.pair_digest != before.pair_digest
    assert after.tokenizer_digest == before.tokenizer_digest


@pytest.mark.parametrize("name", ["package", "export", "genai", "plain"])
def test_a_link_to_a_models_folder_is_that_model(tmp_path, folders, name):
    folder = folders / name
    if name == "plain":  # its graph lies at the top
        folder = export_folder(tmp_path / "plain")
        (folder / "onnx" / "model.onnx").rename(folder / "model.onnx")
    (tmp_path / "link").symlink_to(folder)
    there, here = load_full(folder), load_full(tmp_path / "link")
    assert (type(here), here.digest, here.variants, here.name) == (type(there), there.digest, there.variants, there.name)
    assert load_model(tmp_path / "link").digest == there.digest


def spelled_otherwise(tokenizer):
    """As another release of the library, or another tool, writes the same tokenizer."""
    tokenizer["truncation"] = {"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0}
    padding = {"strategy": {"Fixed": 8}, "direction": "Right", "pad_to_multiple_of": None}
    tokenizer["padding"] = padding | {"pad_id": 0, "pad_type_id": 0, "pad_token": "<|endoftext|>"}
    tokenizer["model"] = {k: v for k, v in reversed(tokenizer["model"].items()) if v not in (None, False)}
    tokenizer["model"]["continuing_subword_prefix"] = ""


def test_tokenizers_that_are_only_spelled_otherwise_are_one(tmp_path, folders):
    pair = pair_of(folders / "package", export_with(tmp_path / "export", spelled_otherwise))
    text = "a prompt that is longer than eight tokens"
    assert pair.full.tokenizer.encode(text).ids == pair.draft.tokenizer.encode(text).ids
    assert len(pair.full.tokenizer.encode("a").ids) == 1


def test_merges_are_the_same_in_the_older_spelling(tmp_path):
    merges = [["a", "b"], ["a", "c"]]
    for folder, spelled in (("new", merges), ("old", [" ".join(merge) for merge in merges])):
        (tmp_path / folder).mkdir()
        file = changed_tokenizer(lambda tokenizer, spelled=spelled: tokenizer["model"].update(merges=spelled))
        (tmp_path / folder / "tokenizer.json").write_bytes(file)
    assert difference(meaning_of(tmp_path / "new"), meaning_of(tmp_path / "old")) is None


def swap(tokenizer):
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["A"], vocabulary["B"] = vocabulary["B"], vocabulary["A"]


def merge(tokenizer):
    tokenizer["model"]["vocab"]["AB"] = 257
    tokenizer["model"]["merges"] = [["A", "B"]]


def merge_only(tokenizer):
    tokenizer["model"]["merges"] = [["A", "B"]]


def add_token(tokenizer):
    tokenizer["added_tokens"].append({**tokenizer["added_tokens"][0], "id": 257, "content": "<|user|>"})


def normalise(tokenizer):
    tokenizer["normalizer"] = {"type": "NFC"}


def split_otherwise(tokenizer):
    tokenizer["pre_tokenizer"]["add_prefix_space"] = True


@pytest.mark.parametrize(
    ("change", "example"),
    [
        (swap, r"the token 'A' has the id \d+ in one and has the id \d+ in the other"),
        (merge, "the token 'AB' is missing in one and has the id 257 in the other"),
        (add_token, r"the token '<\|user\|>' is missing in one and has the id 257 in the other"),
        (normalise, r"normalizer is None in one and \{'type': 'NFC'\} in the other"),
        (split_otherwise, r"pre_tokenizer is .* in one and .* in the other"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_tokenizers_that_differ_are_refused_with_both_digests_and_an_example(tmp_path, folders, change, example):
    with pytest.raises(PackageError, match=rf"package has [0-9a-f]{{64}}, .*export has [0-9a-f]{{64}}; {example}"):
        pair_of(folders / "package", export_with(tmp_path / "export", change))


def test_a_merge_that_differs_is_an_example(folders):
    mine, other = meaning_of(folders / "package"), meaning_of(folders / "export")
    other["model"]["merges"] = [["A", "B"]]
    assert difference(mine, other) == "merge 0 is None in one and ['A', 'B'] in the other"


@pytest.mark.parametrize(("draft", "full"), [(280, 272), (264, 272), (272, 257)])
def test_output_layers_may_differ_by_padding(tmp_path, draft, full):
    paths = [export_folder(tmp_path / n, vocab_size=size) for n, size in (("draft", draft), ("full", full))]
    pair = pair_of(*paths)
    engine = fitted(pair.draft.engine("fp32", 2, 1), pair.full.vocabulary_size)
    own = pair.draft.engine("fp32", 2, 1)
    tokens = [5, 255, 0, 17]
    wanted = own.extend([Chunk(own.open(), tokens, 4)])
    cache = engine.open()
    logits = engine.extend([Chunk(cache, tokens, 4)])
    assert engine.description.vocabulary_size == min(draft, full)
    assert logits.tobytes() == np.ascontiguousarray(wanted[:, : min(draft, full)]).tobytes()
    assert logits.flags.c_contiguous


def test_a_token_that_only_the_full_model_knows_is_read_by_the_draft_all_the_same():
    engine = fitted(RandomEngine(264, 96, seed=1), 272)
    cache = engine.open()
    logits = engine.extend([Chunk(cache, [5, 271, 7], 3)])
    assert logits.shape == (3, 264)
    assert engine.length(cache) == 3
    with pytest.raises(InvalidRequestError, match="from 0 to 271"):
        engine.extend([Chunk(cache, [272], 1)])


def test_a_token_that_only_the_draft_has_room_for_is_refused():
    engine = fitted(RandomEngine(280, 96, seed=1), 272)
    with pytest.raises(InvalidRequestError, match="from 0 to 271"):
        engine.extend([Chunk(engine.open(), [275], 1)])


def test_an_engine_that_fits_already_is_itself():
    engine = RandomEngine(272, 96, seed=1)
    assert fitted(engine, 272) is engine
    assert isinstance(fitted(engine, 280), FittedEngine)


def test_an_engine_that_cannot_fork_is_refused():
    class NoFork:
        description = RandomEngine(264, 96, seed=1).description

    with pytest.raises(EngineError, match="cannot fork"):
        fitted(NoFork(), 272)


def test_a_model_that_does_not_cover_its_tokens_is_refused(tmp_path, folders):
    path = export_with(tmp_path / "smaller", merge, vocab_size=257)
    for paths in ((folders / "export", path), (path, folders / "export")):
        with pytest.raises(PackageError, match=r"smaller/tokenizer.json has 258 tokens; config.json has a vocabulary of 257"):
            pair_of(*paths)


def test_tokens_added_beyond_the_output_layer_are_text_as_any_other(tmp_path):
    """A text model that shares its tokenizer with one that sees pictures has them; a pair of both speaks of the rest."""
    smaller = export_with(tmp_path / "smaller", add_token, vocab_size=257)
    bigger = export_with(tmp_path / "bigger", add_token)
    pair = pair_of(smaller, bigger)
    assert len(pair.full.tokenizer.encode("<|user|>").ids) == 1
    ids = pair.draft.tokenizer.encode("<|user|><|endoftext|>").ids
    assert len(ids) == 9
    assert max(ids) < 257
    assert pair.draft.tokenizer.decode(ids[:8]) == "<|user|>"


def test_folders_go_before_the_bundled_pair(tmp_path, folders):
    pair = tiny_pair(tmp_path / "pair")
    assert models_of(tmp_path / "pair", None, None).identity == pair.identity
    assert models_of(None, folders / "export", folders / "genai").full.name == "genai"


def test_variants_are_the_graphs_that_are_there(tmp_path):
    graphs = ("model.onnx", "model_q4f16.onnx", "model_int8.onnx", "model_quantized.onnx", "decoder_model.onnx", "notes.onnx")
    path = export_folder(tmp_path, graphs={name: {} for name in graphs})
    assert set(load_model(path).variants) == {"fp32", "q4f16", "int8", "quantized"}


def test_of_a_variants_graphs_one_that_is_whole_goes_before_the_half_of_a_split_one(tmp_path):
    graphs = {"decoder_model_merged.onnx": {}, **split_graphs(), **split_graphs("_quantized")}
    found = load_model(export_folder(tmp_path, graphs=graphs)).graphs
    names = {"fp32": "decoder_model_merged", "quantized": "decoder_with_past_model_quantized"}
    assert found == {variant: f"onnx/{name}.onnx" for variant, name in names.items()}


@pytest.mark.parametrize("subfolder", ["onnx", ""])
def test_graphs_lie_in_a_folder_of_their_own_or_at_the_top(tmp_path, subfolder):
    model = load_model(export_folder(tmp_path, subfolder=subfolder))
    assert model.engine("fp32", 1, 1).description.vocabulary_size == 272


def test_an_export_says_what_a_service_asks(folders):
    model = load_model(folders / "export")
    package = load_model(folders / "package")
    assert (model.name, model.context_length, model.vocabulary_size, model.end_token_ids) == ("export", 96, 272, (0,))
    assert abs(model.num_parameters / package.num_parameters - 1) < 0.6
    assert load_model(folders / "genai").end_token_ids == (0,)


@pytest.fixture
def described(folders, tmp_path):
    """What ``folders / "export"`` says of itself, with nothing to run."""
    return shutil.copytree(folders / "export", tmp_path / "described", ignore=shutil.ignore_patterns("onnx"))


def test_a_full_model_with_nothing_to_run_makes_a_pair_whose_identity_is_its_description(folders, described):
    pair = pair_of(folders / "package", described)
    (described / "README.md").write_bytes(b"of another one")
    assert pair_of(folders / "package", described).identity == pair.identity
    facts = [(m.vocabulary_size, m.context_length, m.end_token_ids) for m in (pair.full, load_model(folders / "export"))]
    assert facts[0] == facts[1]
    (described / "config.json").write_text((described / "config.json").read_text().replace("10000", "20000"))
    assert pair_of(folders / "package", described).identity != pair.identity


def test_an_engine_of_a_full_model_without_a_graph_is_refused_with_what_would_be_right(folders, described):
    full = pair_of(folders / "package", described).full
    advice = r"it has config.json but no graph; .*; or say where a server runs it \(full_url of the verifier\)"
    with pytest.raises(PackageError, match=advice):
        full.engine(full.variants[0], 1, 1)
    with pytest.raises(InvalidRequestError, match="unknown variant of described 'fp32'; known: elsewhere"):
        full.weight_bytes("fp32")


def test_a_draft_needs_a_graph_all_the_same(folders, described):
    with pytest.raises(PackageError, match=r"it has config\.json but no graph"):
        pair_of(described, folders / "package")
