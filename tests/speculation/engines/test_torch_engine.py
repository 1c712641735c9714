"""Weights on PyTorch in shared passes: the laws of the seam, the models that they are, and what is refused.

On a machine with a GPU all of it is run on ``cuda``, too; without one Triton's interpreter runs the kernels. Nothing is needed
but pytest, torch and what ``speculation.engines`` imports. ``python -m pytest -c /dev/null --rootdir . --import-mode=importlib
-p no:cacheprovider FILE`` does without the plug-ins that the project's own settings are for; ``-k cuda`` runs what a GPU is
needed for.
"""

import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import ml_dtypes
import numpy as np
import pytest

from speculation.engines import self_test, torch_engine
from speculation.engines.base import Chunk
from speculation.engines.checkpoint import CheckpointFacts
from speculation.engines.checkpoint_folder import CheckpointFolder
from speculation.engines.providers import Provider
from speculation.engines.torch_decoder import TorchDecoder, attention_of
from speculation.engines.torch_engine import TorchEngine
from speculation.errors import CapacityError, ConfigurationError, PackageError
from tests.speculation.engines import test_conformance
from tests.speculation.engines.families import FAMILIES, config_of, family_logits, weights_of, write_checkpoint
from tests.speculation.engines.test_conformance import SLOTS, same
from tests.speculation.engines.tiny import token_ids

torch = pytest.importorskip("torch", reason="torch is not installed; pip install 'outrider[torch]'")
globals().update({name: law for name, law in vars(test_conformance).items() if name.startswith("test_")})

HAS_CUDA = torch.cuda.is_available()
ON = (
    pytest.param(Provider.CPU, id="cpu"),
    pytest.param(Provider.CUDA, id="cuda", marks=pytest.mark.skipif(not HAS_CUDA, reason="PyTorch finds no CUDA device")),
)
KINDS = ("llama", "mistral", "bfloat16")
TOKENS = token_ids(90)
WINDOWED = ("mistral", "qwen2-window", "qwen3-layers")
TOLERANCE = {Provider.CPU: 2e-5, Provider.CUDA: 1e-3}
"""Of the largest logit; both compute in float32. What is wrong by a bias or a token of a window is off by more than 1e-2."""


def engine_of(path, provider=Provider.CPU, num_slots=SLOTS):
    model = CheckpointFolder(path)
    facts = CheckpointFacts(model.name, model.vocabulary_size, model.context_length, model.num_parameters)
    return TorchEngine(model.checkpoint, facts, num_slots, 1, provider)


def tiny_checkpoint(path, family="llama", dtype=np.float32, **overrides):
    config = config_of(family, **overrides)
    return write_checkpoint(path, config, weights_of(config), dtype, 1)


def logits_of(engine, tokens=TOKENS):
    cache = engine.open()
    logits = engine.extend([Chunk(cache, tokens, len(tokens))])
    engine.close(cache)
    return logits


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A function from a provider and a kind to an engine, loaded once; whoever takes it gets it without open caches."""
    engines = {}

    def engine(provider, kind):
        if (provider, kind) not in engines:
            dtype = ml_dtypes.bfloat16 if kind == "bfloat16" else np.float32
            family = "mistral" if kind == "mistral" else "llama"
            engines[provider, kind] = engine_of(tiny_checkpoint(tmp_path_factory.mktemp(kind), family, dtype), provider)
        return engines[provider, kind]

    return engine


@pytest.fixture(params=[pytest.param((on.values[0], k), id=f"{on.id}-{k}", marks=on.marks) for on in ON for k in KINDS])
def engine(request, made):
    engine = made(*request.param)
    before = set(engine._slots._open)
    yield engine
    for cache in set(engine._slots._open) - before:
        engine.close(cache)


@pytest.mark.parametrize("provider", ON)
@pytest.mark.parametrize("family", sorted(set(FAMILIES) - {"llama-longrope"}))
def test_every_family_is_the_model_that_it_is_and_exact(tmp_path, provider, family):
    """Rollback and forks among them, also where a window ends inside what was taken back."""
    config = config_of(family)
    weights = weights_of(config)
    engine = engine_of(write_checkpoint(tmp_path, config, weights), provider)
    wanted = family_logits(config, weights, TOKENS)
    assert np.abs(logits_of(engine) - wanted).max() / np.abs(wanted).max() < TOLERANCE[provider]
    found = self_test.run(engine)
    assert found.is_exact, found.details


@pytest.mark.parametrize("provider", ON)
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16], ids=["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("family", ["llama", "mistral"])
def test_a_long_context_is_exact(tmp_path, provider, family, dtype, record_property):
    window = {"sliding_window": 100} if family in WINDOWED else {}
    engine = engine_of(tiny_checkpoint(tmp_path, family, dtype, max_position_embeddings=637, **window), provider)
    found = self_test.run(engine)
    record_property("summary", f"{family} on {provider} from {np.dtype(dtype)}: exact {found.is_exact} {found.details}")
    assert found.is_exact, found.details


def test_steps_of_another_size_are_the_same_model_with_other_bits(tmp_path, monkeypatch):
    """Why all steps have the same number of rows."""
    path = tiny_checkpoint(tmp_path)
    eight = logits_of(engine_of(path))
    monkeypatch.setitem(torch_engine.ROWS, Provider.CPU, 1)
    one = logits_of(engine_of(path))
    assert np.abs(eight - one).max() < 1e-3
    assert not same(eight, one)


@pytest.mark.parametrize("provider", ON)
def test_a_pool_that_is_full_refuses_what_it_cannot_hold_and_goes_on(tmp_path, monkeypatch, provider):
    """Two contexts of two pages each, and three pages."""
    monkeypatch.setattr(TorchDecoder, "_most_pages", lambda decoder: 3)
    engine = engine_of(tiny_checkpoint(tmp_path), provider)
    assert engine.pool_bytes == 3 * engine.cache_bytes(1)
    first, second = engine.open(), engine.open()
    engine.extend([Chunk(first, TOKENS, 0)])
    with pytest.raises(CapacityError, match="2 pages of 64 tokens are needed, and 1 are left"):
        engine.extend([Chunk(second, TOKENS, 0)])
    with pytest.raises(CapacityError, match="pool of caches is full"):
        engine.fork(first)
    third = engine.fork(first, 10)
    assert [engine.length(cache) for cache in (first, second, third)] == [90, 0, 10]
    engine.close(first)
    assert same(engine.extend([Chunk(third, TOKENS[10:], 3)]), logits_of(engine_of(tmp_path, provider))[-3:])


@pytest.mark.parametrize("provider", ON)
def test_a_pool_that_holds_no_context_is_refused(tmp_path, monkeypatch, provider):
    monkeypatch.setattr(TorchDecoder, "_most_pages", lambda decoder: 1)
    with pytest.raises(CapacityError, match=r"room for 1 of the 2 pages \(\d+ bytes each\) that one context takes"):
        engine_of(tiny_checkpoint(tmp_path), provider)


@pytest.mark.parametrize(("change", "said"), [(-1, "lacks model.layers.1"), (1, "no place for: model.more.weight")])
def test_weights_that_are_missing_or_left_over_are_refused(tmp_path, change, said):
    config = config_of("llama")
    weights = weights_of(config)
    if change < 0:
        weights = {name: values for name, values in weights.items() if "layers.1" not in name}
    else:
        weights["model.more.weight"] = np.zeros((2, 2), np.float32)
    with pytest.raises(PackageError, match=said):
        engine_of(write_checkpoint(tmp_path, config, weights))


def test_a_head_that_is_said_to_be_tied_and_differs_is_refused(tmp_path):
    """``transformers`` 5 keeps such a head, so that the two variants of one folder would be two models."""
    config = config_of("llama", tie_word_embeddings=True)
    weights = weights_of(config)
    head = weights["model.embed_tokens.weight"].copy()
    engine_of(write_checkpoint(tmp_path / "same", config, weights | {"lm_head.weight": head.copy()}))
    head[100, 3] += 1
    with pytest.raises(PackageError, match=r"tie_word_embeddings is true, but lm_head.weight differs"):
        engine_of(write_checkpoint(tmp_path / "other", config, weights | {"lm_head.weight": head}))


@pytest.mark.parametrize("numbers", [{"num_slots": 0}, {"threads": 0}])
def test_numbers_that_cannot_work_are_refused(tmp_path, numbers):
    model = CheckpointFolder(tiny_checkpoint(tmp_path))
    with pytest.raises(ConfigurationError, match="at least 1 slot and 1 thread"):
        model.engine("torch", **{"num_slots": 1, "threads": 1, **numbers})


def test_without_the_compiler_of_the_kernels_a_gpu_is_refused(tmp_path, monkeypatch):
    engine = engine_of(tiny_checkpoint(tmp_path))
    monkeypatch.setitem(sys.modules, "speculation.engines.triton_attention", None)
    with pytest.raises(ConfigurationError, match="the variant torch needs triton"):
        attention_of(engine._decoder.pool, Provider.CUDA)


@pytest.mark.skipif(HAS_CUDA, reason="there is a CUDA device")
def test_a_gpu_that_is_not_there_is_not_replaced(tmp_path):
    with pytest.raises(ConfigurationError, match="finds no CUDA device"):
        engine_of(tiny_checkpoint(tmp_path), Provider.CUDA)


def rows_of_two(path, by_kernels=False):
    """Logits of two sessions that share a step, over several pieces of their caches, which have a page each here."""
    engine = engine_of(path)
    if by_kernels:
        from speculation.engines import triton_attention

        triton_attention.PIECE_PAGES = 1
        with torch.inference_mode():
            engine._decoder.attention = triton_attention.TritonAttention(engine._decoder.pool)
    first, second = engine.open(), engine.open()
    engine.extend([Chunk(first, token_ids(70), 0), Chunk(second, token_ids(20, seed=3), 0)])
    engine.truncate(first, 66)
    return engine.extend([Chunk(second, token_ids(9, seed=4), 9), Chunk(first, token_ids(4, seed=5), 4)])


@pytest.mark.skipif(HAS_CUDA, reason="there is a GPU for the kernels")
def test_the_kernels_of_a_gpu_compute_what_pytorch_does(tmp_path, monkeypatch):
    """By Triton's interpreter, in a process of its own: it is there from the library's first import on, or not at all."""
    pytest.importorskip("triton", reason="triton is not installed; torch for CUDA comes with it")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    families = ("llama", "smollm", "mistral", "qwen3")
    paths = [tiny_checkpoint(tmp_path / family, family, max_position_embeddings=140) for family in families]
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        found = list(process.map(partial(rows_of_two, by_kernels=True), paths))
    for path, rows in zip(paths, found, strict=True):
        wanted = rows_of_two(path)
        assert np.abs(rows - wanted).max() / np.abs(wanted).max() < TOLERANCE[Provider.CPU], path
