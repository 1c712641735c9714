"""Checkpoints on PyTorch: the laws of the seam, the models that they are, and what is refused.

On a machine with a GPU all of it is run on ``cuda``, too. Nothing is needed but pytest, torch, transformers and what
``speculation.engines`` imports. ``python -m pytest -c /dev/null --rootdir . --import-mode=importlib -p no:cacheprovider FILE``
does without the plug-ins that the project's own settings are for; ``-k cuda`` runs what a GPU is needed for.
"""

import json

import ml_dtypes
import numpy as np
import pytest

from speculation.engines import self_test
from speculation.engines.base import CanRunSingly, Chunk
from speculation.engines.checkpoint import Checkpoint
from speculation.engines.checkpoint_folder import CheckpointFolder
from speculation.engines.providers import Provider
from speculation.engines.transformers_engine import CheckpointFacts, TransformersEngine
from speculation.errors import CapacityError, ConfigurationError, EngineError, PackageError
from tests.speculation.engines import test_conformance
from tests.speculation.engines.families import FAMILIES, config_of, family_logits, weights_of, write_checkpoint
from tests.speculation.engines.test_conformance import CONTEXT, SLOTS, VOCABULARY
from tests.speculation.engines.tiny import tiny_tokenizer, token_ids

torch, transformers = (
    pytest.importorskip(name, reason=f"{name} is not installed; pip install 'outrider[transformers]'")
    for name in ("torch", "transformers")
)
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
globals().update({name: law for name, law in vars(test_conformance).items() if name.startswith("test_")})

HAS_CUDA = torch.cuda.is_available()
ON = (
    pytest.param(Provider.CPU, id="cpu"),
    pytest.param(Provider.CUDA, id="cuda", marks=pytest.mark.skipif(not HAS_CUDA, reason="PyTorch finds no CUDA device")),
)
KINDS = ("llama", "mistral", "bfloat16", "singly")
TOKENS = token_ids(90)
WINDOWED = ("mistral", "qwen2-window", "qwen3-layers")
TOLERANCE = {Provider.CPU: 2e-5, Provider.CUDA: 1e-3}
"""Of the largest logit; both compute in float32. What is wrong by a bias or a token of a window is off by more than 1e-2."""


def engine_of(path, provider=Provider.CPU, num_slots=SLOTS, kind=TransformersEngine):
    model = CheckpointFolder(path)
    facts = CheckpointFacts(model.name, model.vocabulary_size, model.context_length, model.num_parameters)
    return kind(model.checkpoint, facts, num_slots, 1, provider)


def tiny_checkpoint(path, family="llama", dtype=np.float32, shards=1, **overrides):
    config = config_of(family, **overrides)
    return write_checkpoint(path, config, weights_of(config), dtype, shards)


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
            family, dtype = ("mistral" if kind == "mistral" else "llama"), np.float32
            if kind == "bfloat16":
                dtype = ml_dtypes.bfloat16
            engines[provider, kind] = engine_of(tiny_checkpoint(tmp_path_factory.mktemp(kind), family, dtype), provider)
            if kind == "singly":
                engines[provider, kind].run_singly()
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
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_the_model_that_it_is_and_exact(tmp_path, provider, family):
    """Rollback and forks among them, also where a window ends inside what was taken back."""
    config = config_of(family)
    weights = weights_of(config)
    engine = engine_of(write_checkpoint(tmp_path, config, weights), provider)
    # Behind the original length of a ``longrope`` the reference turns old keys anew, and this engine, as the library token by
    # token, leaves them.
    rope = config.get("rope_parameters") or {}
    tokens = TOKENS[: rope.get("original_max_position_embeddings", len(TOKENS))]
    wanted = family_logits(config, weights, tokens)
    assert np.abs(logits_of(engine)[: len(tokens)] - wanted).max() / np.abs(wanted).max() < TOLERANCE[provider]
    found = self_test.run(engine)
    assert found.is_exact, found.details


@pytest.mark.parametrize("provider", ON)
def test_no_block_reaches_behind_the_length_from_which_longrope_turns_all_positions_in_another_way(tmp_path, provider):
    config = config_of("llama-longrope", original_max_position_embeddings=36)
    weights, tokens = weights_of(config), TOKENS[:35]
    engine = engine_of(write_checkpoint(tmp_path, config, weights), provider)
    wanted = family_logits(config, weights, tokens)
    assert np.abs(logits_of(engine, tokens) - wanted).max() / np.abs(wanted).max() < TOLERANCE[provider]


def saved(path, kind, **entries):
    """A checkpoint that the library makes up and writes: a class of it, and entries of its configuration."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": VOCABULARY}
    config = kind.config_class(**{**sizes, "max_position_embeddings": CONTEXT, "eos_token_id": 0, "pad_token_id": 0, **entries})
    torch.manual_seed(0)
    kind(config).float().save_pretrained(path)
    written = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({"max_position_embeddings": CONTEXT, **written}))
    (path / "tokenizer.json").write_bytes(tiny_tokenizer())
    return path


GATED = {"intermediate_size": 48, "num_key_value_heads": 2}
OTHERS = {
    "bloom": ("BloomForCausalLM", {"n_layer": 2, "n_head": 4}),
    "falcon": ("FalconForCausalLM", {}),
    "gemma3": ("Gemma3ForCausalLM", {**GATED, "head_dim": 16, "num_hidden_layers": 6, "sliding_window": 13}),
    "gpt2": ("GPT2LMHeadModel", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": CONTEXT + 4}),
    "gpt-neox": ("GPTNeoXForCausalLM", {"intermediate_size": 48}),
    "opt": ("OPTForCausalLM", {"ffn_dim": 48, "word_embed_proj_dim": 32}),
    "phi3": ("Phi3ForCausalLM", GATED),
}


@pytest.mark.parametrize("provider", ON)
@pytest.mark.parametrize("family", OTHERS)
def test_families_that_cannot_be_converted_are_run_and_exact(tmp_path, provider, family):
    """GPT-2's context ends inside a block, and its positions are learned, so that there is none behind the end."""
    name, entries = OTHERS[family]
    kind = getattr(transformers, name)
    engine = engine_of(saved(tmp_path, kind, **entries), provider)
    with torch.inference_mode():
        wanted = kind.from_pretrained(tmp_path)(torch.tensor([TOKENS]), use_cache=False).logits[0].numpy()
    assert np.abs(logits_of(engine) - wanted).max() / np.abs(wanted).max() < TOLERANCE[provider]
    found = self_test.run(engine)
    assert found.is_exact, found.details


def test_a_mixture_of_experts_is_exact_token_by_token(tmp_path):
    """How many rows an expert gets depends on all the rows of a run."""
    sizes = {**GATED, "num_local_experts": 4}
    engine = engine_of(saved(tmp_path, transformers.MixtralForCausalLM, **sizes))
    assert not self_test.run(engine).is_exact
    assert self_test.make_exact(engine).is_exact


@pytest.mark.parametrize("provider", ON)
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("family", ["llama", "mistral"])
def test_a_long_context_is_exact_where_kernels_change(tmp_path, provider, family, dtype, record_property):
    window = {"sliding_window": 100} if family in WINDOWED else {}
    engine = engine_of(tiny_checkpoint(tmp_path, family, dtype, max_position_embeddings=637, **window), provider)
    found = self_test.run(engine)
    record_property("summary", f"{family} on {provider} from {np.dtype(dtype)}: exact {found.is_exact} {found.details}")
    assert found.is_exact, found.details


class AsAsked(TransformersEngine):
    """The engine without its blocks: each run has the rows that are asked for."""

    def _append(self, slot, chunk):
        session = self._sessions[slot.number]
        logits, session.past = self._model.run(session.past, slot.length, list(chunk.token_ids), chunk.num_logits)
        session.token_ids[slot.length :] = chunk.token_ids
        slot.length += len(chunk.token_ids)
        yield logits


def test_without_blocks_it_is_the_same_model_and_not_exact(tmp_path):
    path = tiny_checkpoint(tmp_path)
    engine = engine_of(path, kind=AsAsked)
    assert np.abs(logits_of(engine) - logits_of(engine_of(path))).max() < 1e-3
    assert not self_test.run(engine).is_exact


@pytest.mark.parametrize("provider", ON)
def test_a_model_whose_rows_depend_on_each_other_is_run_token_by_token_and_says_so(tmp_path, provider, caplog):
    """Here by a hook, which scales all rows of a run by the largest of them."""
    engine = engine_of(tiny_checkpoint(tmp_path), provider)

    def hook(module, given, out):
        return out * (1 + out.abs().max())

    engine._model._model.model.layers[0].mlp.register_forward_hook(hook)
    assert isinstance(engine, CanRunSingly)
    assert not self_test.run(engine).is_exact
    assert self_test.make_exact(engine).is_exact
    assert "each token is run alone" in caplog.text


def test_shards_and_one_file_are_one_model(tmp_path):
    one, many = tiny_checkpoint(tmp_path / "one"), tiny_checkpoint(tmp_path / "many", shards=3)
    assert logits_of(engine_of(one)).tobytes() == logits_of(engine_of(many)).tobytes()


def test_weights_in_half_precision_are_run_in_float32_on_the_cpu(tmp_path):
    """These weights are held by bfloat16 exactly."""
    one, half = tiny_checkpoint(tmp_path / "one"), tiny_checkpoint(tmp_path / "half", dtype=ml_dtypes.bfloat16)
    assert logits_of(engine_of(one)).tobytes() == logits_of(engine_of(half)).tobytes()


@pytest.mark.parametrize("provider", ON)
def test_an_engine_says_what_it_is(tmp_path, provider):
    model = CheckpointFolder(tiny_checkpoint(tmp_path / "mine", dtype=ml_dtypes.bfloat16))
    described = model.engine("transformers", 3, 1, provider).description
    size = 4 if provider is Provider.CPU else 2
    assert described.name == f"mine:transformers:{provider}"
    assert (described.vocabulary_size, described.context_length, described.num_slots) == (VOCABULARY, CONTEXT, 3)
    assert described.kv_bytes_per_token == 2 * 2 * 2 * 16 * size
    assert described.num_parameters == sum(values.size for values in weights_of(config_of("llama")).values())
    assert described.weight_bytes == size * described.num_parameters


def test_a_run_that_fails_is_told_and_leaves_the_session_as_it_was(tmp_path):
    engine = engine_of(tiny_checkpoint(tmp_path))
    cache, wanted = engine.open(), logits_of(engine)
    engine.extend([Chunk(cache, TOKENS[:20], 0)])

    def fail(*given):
        raise RuntimeError("the kernel is gone")

    hook = engine._model._model.model.layers[1].mlp.register_forward_hook(fail)
    with pytest.raises(EngineError, match=r"could not be run by transformers.*the kernel is gone"):
        engine.extend([Chunk(cache, TOKENS[20:30], 1)])
    hook.remove()
    assert engine.length(cache) == 20
    assert engine.extend([Chunk(cache, TOKENS[20:], 70)]).tobytes() == wanted[20:].tobytes()


def test_memory_that_is_full_is_told(tmp_path, monkeypatch):
    engine = engine_of(tiny_checkpoint(tmp_path))
    cache = engine.open()

    def fail(*given):
        raise torch.OutOfMemoryError("no 4 GiB")

    engine._model._model.model.layers[1].mlp.register_forward_hook(fail)
    with pytest.raises(EngineError, match="the memory of cpu is full; take fewer sessions: no 4 GiB"):
        engine.extend([Chunk(cache, TOKENS[:2], 1)])
    monkeypatch.setattr(torch.nn.Module, "to", fail)
    with pytest.raises(CapacityError, match=r"weights of \d+ bytes do not fit the memory of cpu"):
        engine_of(tmp_path)


CODE = "from pathlib import Path\nPath(__file__).with_name('ran').touch()\n"


def test_code_and_kernels_that_a_checkpoint_names_are_never_run(tmp_path, monkeypatch):
    """Neither its own modules, nor what the library would fetch, nor an adapter's base model; no connection is opened."""
    plain, path = tiny_checkpoint(tmp_path / "plain"), tiny_checkpoint(tmp_path / "with-code")
    (path / "code.py").write_text(CODE + "class Model: pass\n")
    (path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "somebody/base", "peft_type": "LORA"}))
    (path / "pytorch_model.bin").write_bytes(b"no pickle")
    config = json.loads((path / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "code.Model", "AutoModelForCausalLM": "code.Model"}
    config |= {"attn_implementation": "somebody/kernel", "_attn_implementation": "somebody/kernel"}
    config |= {"transformers_weights": "pytorch_model.bin", "fusion_config": {"patch_embeddings": True}}
    (path / "config.json").write_text(json.dumps(config))

    def refuse(*given):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr("socket.socket.connect", refuse)
    assert logits_of(engine_of(path)).tobytes() == logits_of(engine_of(plain)).tobytes()
    assert not (path / "ran").exists()


def changed(path, weights=lambda weights: weights, **entries):
    """The tiny checkpoint with other entries in its configuration, and what ``weights`` makes of its weights."""
    config = config_of("llama")
    return write_checkpoint(path, {**config, **entries}, weights(weights_of(config)))


def without_norm(weights):
    return {name: values for name, values in weights.items() if name != "model.norm.weight"}


@pytest.mark.parametrize(
    ("weights", "entries", "said"),
    [
        (dict, {"model_type": "nobodys"}, "model_type 'nobodys' is no causal language model of transformers.*never run"),
        (dict, {"model_type": "t5"}, "model_type 't5' is no causal language model"),
        (dict, {"model_type": "mamba", "layer_norm_epsilon": 1e-5}, "lacks weights that MambaForCausalLM has"),
        (without_norm, {}, "lacks weights that LlamaForCausalLM has, or has them in another shape: model.norm.weight"),
        (dict, {"num_attention_heads": 5}, "cannot be loaded by transformers|config.json is refused by transformers"),
        (dict, {"vocab_size": 300}, "cannot be loaded by transformers|in another shape"),
        (dict, {"rope_scaling": {"rope_type": "linear"}}, "config.json is refused by transformers: KeyError.*factor"),
    ],
    ids=["unknown", "other kind", "without its weights", "a weight is missing", "heads", "vocabulary", "an entry is missing"],
)
def test_what_cannot_be_loaded_is_refused(tmp_path, weights, entries, said):
    path = changed(tmp_path, weights, **entries)
    with pytest.raises(PackageError, match=said):
        engine_of(path)


@pytest.mark.parametrize(
    ("name", "entries"),
    [
        ("MambaForCausalLM", {"num_hidden_layers": 1, "state_size": 4}),
        ("Qwen3NextForCausalLM", {**GATED, "num_hidden_layers": 4, "num_experts": 4, "num_experts_per_tok": 2}),
    ],
)
def test_a_model_whose_past_cannot_be_cut_is_refused(tmp_path, name, entries):
    """A state that is overwritten by each token has no way back."""
    path = saved(tmp_path, getattr(transformers, name), **entries)
    with pytest.raises(PackageError, match=r"keeps keys and values of each token in every layer|cannot be cut back"):
        engine_of(path)


RECURRENT = {"num_hidden_layers": 3, "lru_width": 32, "attention_window_size": 32}
TWO_WAYS = {"initializer_range": 0.3}
"""Weights that are large enough for attention to matter."""


@pytest.mark.parametrize(("name", "entries"), [("RecurrentGemmaForCausalLM", RECURRENT), ("BertLMHeadModel", TWO_WAYS)])
def test_a_model_that_is_another_one_in_pieces_is_refused(tmp_path, name, entries):
    """One keeps states beside the past that it hands out, the other one looks at what comes."""
    path = saved(tmp_path, getattr(transformers, name), **entries)
    with pytest.raises(PackageError, match=r"cannot be cut back when drafts are wrong, or reads ahead; take a causal model"):
        engine_of(path)


@pytest.mark.skipif(HAS_CUDA, reason="PyTorch finds a CUDA device")
def test_a_provider_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match=r"provider cuda: this PyTorch .* finds no CUDA device; install a build"):
        engine_of(tiny_checkpoint(tmp_path), Provider.CUDA)


@pytest.mark.parametrize(("num_slots", "threads"), [(0, 1), (1, 0)])
def test_numbers_that_cannot_work_are_refused(tmp_path, num_slots, threads):
    with pytest.raises(ConfigurationError, match="at least 1 slot and 1 thread"):
        CheckpointFolder(tiny_checkpoint(tmp_path)).engine("transformers", num_slots, threads)


def test_a_checkpoint_is_read_as_the_converter_reads_it(tmp_path):
    """Links, damaged headers and the rest: ``test_checkpoint.py``."""
    path = tiny_checkpoint(tmp_path / "real")
    (tmp_path / "linked").mkdir()
    for file in path.iterdir():
        (tmp_path / "linked" / file.name).symlink_to(file)
    with pytest.raises(PackageError, match="is a symbolic link"):
        Checkpoint(tmp_path / "linked")
