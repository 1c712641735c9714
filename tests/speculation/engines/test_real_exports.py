"""What the exporters of others made of tiny random checkpoints (`record_exports.py`): loaded as a user's folder is, held to the
laws of an engine, to the logits that `transformers` computed in float32, and served end to end.

Nothing of an exporter is needed here. A difference is relative to the largest logit.
"""

import functools
import json
import tarfile

import numpy as np
import onnxruntime
import pytest

from cloud_verifier.patience import NEVER
from outrider.local import Models
from speculation.engines import self_test
from speculation.engines.base import Chunk
from speculation.engines.convert import Conversion, convert
from speculation.engines.exports import ExportFolder
from speculation.engines.pairs import load_model
from speculation.engines.ragged import RaggedEngine
from speculation.engines.stock import StockEngine
from tests.speculation.engines import test_conformance
from tests.speculation.engines.record_exports import (
    CONTEXT,
    CONVERTED,
    EXPORTS,
    FAMILIES,
    LENGTH,
    MADE,
    RECORDED,
    SEQUENCES,
    VOCABULARY,
    token_ids,
)
from tests.speculation.engines.tiny import convolve_all
from tests.support.both_ways import both_ways_of, check_same_text
from tests.support.processor import gives_rows_alike

IN_4 = [export for export in EXPORTS if export.endswith("int4")]
ROUNDED = [*IN_4, *(export for export in EXPORTS if export.endswith("quantized"))]
SHARED = [export for export in EXPORTS if ".genai-" in export]
"""Every layer's attention is one node that takes lengths, so that sessions share passes."""
WINDOW = 16
TOLERANCE = {"fp32": 1e-5, "fused": 1e-5, "fp16": 0.02}
OWN_TOLERANCE = {"gemma-tied.genai-fp32": 2e-3}
"""That exporter rounds the root of the width, by which Gemma multiplies its embeddings, to two decimals."""
LEAST_CORRELATION = 0.8
"""Of logits of rounded weights, which were drawn without any structure that rounding could spare."""
MAY_NEED_TO_RUN_SINGLY = [f"llama-tied.{made}" for made in ("optimum-fp16", "optimum-quantized", "transformers-fp16")]
LAWFUL = (
    "qwen3-tied.genai-fp32",
    "llama.genai-int4",
    "mistral-window.optimum-fp32",
    "phi3.transformers-fp32",
    "llama-tied.transformers-fp16",
    "llama.transformers-fused",
    "qwen2-tied.converted",
)
"""One of each exporter and form, to be quick."""
SLOTS, LIMIT_S = 4, 60
LAWS = {name: law for name, law in vars(test_conformance).items() if name.startswith("test_")}
globals().update(LAWS)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The exports, and packages made of the checkpoints, by `FAMILY.EXPORTER-KIND` and `FAMILY.converted`."""
    path = tmp_path_factory.mktemp("real")
    with tarfile.open(RECORDED) as archive:
        archive.extractall(path, filter="data")
    for family in CONVERTED:
        convert(Conversion(path / f"{family}.checkpoint", path / f"{family}.converted"))
    return path


@pytest.fixture(scope="module")
def recorded(folders):
    return dict(np.load(folders / "logits.npz"))


@pytest.fixture(params=LAWFUL)
def engine(request, folders, monkeypatch):
    """As a verifier has it after its start-up."""
    if request.param in IN_4 and not gives_rows_alike():
        monkeypatch.setattr(test_conformance, "same", test_conformance.close)
    engine = engine_of(folders, request.param)
    if request.param in MAY_NEED_TO_RUN_SINGLY:
        engine.run_singly()
    return engine


def engine_of(folders, export):
    model = load_model(folders / export)
    return model.engine(model.variants[0], SLOTS, 1)


def fed(engine, tokens):
    cache = engine.open()
    logits = engine.extend([Chunk(cache, [int(token) for token in tokens], len(tokens))])
    engine.close(cache)
    return logits


def difference(found, wanted):
    return np.abs(found - wanted).max() / np.abs(wanted).max()


def length_of(export):
    """The tokens that fit: onnxruntime-genai lets its cache slide, so that its graph is right within the window alone."""
    return WINDOW if export.startswith("mistral-window.genai") else LENGTH


@pytest.fixture(scope="module")
def loaded(folders):
    """A function from an export to its engine, loaded once."""
    return functools.cache(lambda export: engine_of(folders, export))


@pytest.fixture(scope="module")
def found(loaded):
    """A function from an export to its logits of both texts, computed once."""
    return functools.cache(
        lambda export: np.stack([fed(loaded(export), tokens[: length_of(export)]) for tokens in token_ids()])
    )


@pytest.mark.parametrize(
    "export", [*(e for e in EXPORTS if e not in ROUNDED), *(f"{family}.converted" for family in CONVERTED)]
)
def test_logits_are_those_of_transformers(found, recorded, export):
    family, _, kind = export.partition(".")
    wanted = recorded[family]
    assert wanted.shape == (SEQUENCES, LENGTH, VOCABULARY)
    tolerance = OWN_TOLERANCE.get(export) or TOLERANCE[kind.partition("-")[2] or "fp32"]
    assert difference(found(export), wanted[:, : length_of(export)]) < tolerance


@pytest.mark.parametrize("export", [export for export in EXPORTS if TOLERANCE.get(export.rpartition("-")[2]) == 1e-5])
def test_products_as_convolutions_give_the_logits_of_transformers_too_and_are_exact(folders, recorded, monkeypatch, export):
    convolve_all(monkeypatch)
    engine, family = engine_of(folders, export), export.partition(".")[0]
    assert engine.is_convolved
    wanted = recorded[family][:, : length_of(export)]
    logits = np.stack([fed(engine, tokens[: length_of(export)]) for tokens in token_ids()])
    assert difference(logits, wanted) < OWN_TOLERANCE.get(export, 1e-5)
    tested = self_test.run(engine)
    assert tested.is_exact, tested.details


@pytest.mark.parametrize("export", ROUNDED)
def test_logits_of_rounded_weights_are_like_those_of_transformers(found, recorded, export):
    assert np.corrcoef(found(export).ravel(), recorded[export.partition(".")[0]].ravel())[0, 1] > LEAST_CORRELATION


@pytest.mark.parametrize("export", SHARED)
def test_a_graph_whose_nodes_take_lengths_computes_what_it_computed_as_it_was_exported(folders, found, export):
    """Run plainly, without an engine of ours."""
    graph = ExportFolder(folders / export).graph("genai")
    session = onnxruntime.InferenceSession(str(graph.path), providers=["CPUExecutionProvider"])
    empty = np.zeros((1, graph.num_kv_heads, 0, graph.head_size), np.float32)
    for tokens, logits in zip(token_ids(), found(export), strict=True):
        ids = tokens[None, : length_of(export)]
        feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), **dict.fromkeys(graph.past, empty)}
        plain = session.run(["logits"], feeds)[0][0]
        assert difference(logits, plain) < TOLERANCE["fp32"]


def test_how_far_each_exporter_is_from_transformers(found, recorded, record_property):
    """As the documentation has them; each is held to its tolerance above."""
    apart = {}
    for export in [*EXPORTS, *(f"{family}.converted" for family in CONVERTED)]:
        family, _, maker = export.partition(".")
        maker = export if export in OWN_TOLERANCE else maker
        apart.setdefault(maker, []).append(difference(found(export), recorded[family][:, : length_of(export)]))
    for maker, each in apart.items():
        record_property("summary", f"{maker}: {max(each):.1e} of the largest logit at most, {len(each)} exports")
    assert all(max(each) < 1 for each in apart.values())


@pytest.mark.parametrize("export", EXPORTS)
def test_an_export_goes_the_way_that_its_attention_allows(loaded, export):
    assert type(loaded(export)) is (RaggedEngine if export in SHARED else StockEngine)


@pytest.mark.parametrize("export", [*EXPORTS, *(f"{family}.converted" for family in CONVERTED)])
def test_every_export_is_exact(loaded, export):
    found = (self_test.make_exact if export in MAY_NEED_TO_RUN_SINGLY else self_test.run)(loaded(export))
    assert found.is_exact or (export in IN_4 and not gives_rows_alike()), found.details


@pytest.mark.parametrize("export", EXPORTS)
def test_a_folder_is_recognised_and_says_what_the_checkpoint_was(folders, export):
    model = load_model(folders / export)
    assert isinstance(model, ExportFolder)
    wanted = WINDOW if length_of(export) == WINDOW else CONTEXT
    assert (model.vocabulary_size, model.context_length, model.end_token_ids) == (VOCABULARY, wanted, (0,))
    assert model.tokenizer.encode("Tiny").ids


@pytest.mark.parametrize("parameters", [{}, {"temperature": 0.8}], ids=["greedy", "sampled"])
@pytest.mark.parametrize(
    ("draft", "full"),
    [
        ("llama.genai-int4", "llama.optimum-fp32"),
        ("gpt2-tied.optimum-fp32", "phi3.transformers-fp32"),
        ("qwen3-tied.transformers-fp32", "qwen3-tied.converted"),
        ("mistral.converted", "gemma-tied.genai-fp32"),
    ],
)
async def test_collaborative_text_is_that_of_the_cloud_alone(folders, draft, full, parameters):
    together, alone = await both_ways_of(Models(folders / draft, folders / full), LIMIT_S, **parameters)
    check_same_text(together, alone)


async def test_a_draft_that_is_the_full_model_by_another_exporter_is_never_corrected(folders):
    models = Models(folders / "llama.transformers-fp32", folders / "llama.genai-fp32")
    together, _ = await both_ways_of(models, LIMIT_S, patience=NEVER)
    for done in together:
        assert done.usage["accepted"] > 0
        assert done.usage["corrections"] == 0


def test_the_record_is_small_and_says_what_made_it(folders):
    assert RECORDED.stat().st_size < 2_500_000
    assert json.loads((folders / "versions.json").read_text()).keys() == {"checkpoints", *MADE}
    assert {export.partition(".")[0] for export in EXPORTS} == set(FAMILIES)
