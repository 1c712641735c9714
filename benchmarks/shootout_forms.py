"""One random Llama in the form that each engine takes. ``benchmarks/shootout.py`` times them."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models

from benchmarks.rivals import genai, llama, ours, torch_rival
from benchmarks.rivals.base import CAPACITY, Form, Rival
from speculation.engines.convert import Conversion, convert
from speculation.engines.model import graph_variant
from speculation.engines.onnx import OnnxEngine
from speculation.engines.package import Package

SIZES: Mapping[str, Mapping[str, int]] = {
    "tiny": {"layers": 2, "width": 128, "inner": 256, "heads": 2, "kv_heads": 1, "vocabulary": 512},
    "30 M": {"layers": 8, "width": 512, "inner": 1280, "heads": 8, "kv_heads": 4, "vocabulary": 8192},
    "100 M": {"layers": 14, "width": 768, "inner": 2048, "heads": 12, "kv_heads": 4, "vocabulary": 8192},
}
SEED, SPREAD = 1, 0.05
"""Weights are drawn with this deviation, so that logits differ by about 1, as a trained model's do."""
OURS, BARE, GENAI, LLAMA, TORCH = "outrider", "bare ONNX forward", "onnxruntime-genai", "llama.cpp", "transformers"
IN_8_BITS, BLOCK_IN_8_BITS = "q8_b128", 128
FORMS = (
    Form(OURS, "fp32", "32"),
    Form(BARE, "fp32", "32"),
    Form(GENAI, "fp32", "32"),
    Form(LLAMA, "F32", "32"),
    Form(TORCH, "fp32", "32"),
    Form(OURS, "i8", "8"),
    Form(BARE, "i8", "8"),
    Form(OURS, "i8_kv16", "8"),
    Form(BARE, "i8_kv16", "8"),
    Form(OURS, IN_8_BITS, "8"),
    Form(BARE, IN_8_BITS, "8"),
    Form(LLAMA, "Q8_0", "8"),
    Form(OURS, "q4", "4"),
    Form(BARE, "q4", "4"),
    Form(OURS, "q4_b128", "4"),
    Form(BARE, "q4_b128", "4"),
    Form(OURS, "q4_b256", "4"),
    Form(BARE, "q4_b256", "4"),
    Form(OURS, "q4_b256_kv16", "4"),
    Form(BARE, "q4_b256_kv16", "4"),
    Form(GENAI, "int4", "4"),
    Form(LLAMA, "Q4_0", "4"),
)
"""Every row of the table, those that are compared with each other beside each other."""
NEEDS: Mapping[str, Mapping[str, str]] = {
    OURS: {},
    BARE: {},
    GENAI: {
        "onnxruntime_genai": "onnxruntime-genai",
        "onnx_ir": "onnx-ir",
        "torch": "torch",
        "transformers": "transformers",
    },
    LLAMA: {"llama_cpp": "llama-cpp-python", "gguf": "gguf"},
    TORCH: {"torch": "torch", "transformers": "transformers"},
}
"""Modules that an engine needs, and the packages that have them."""
NAMED: Mapping[str, Mapping[str, str]] = {
    OURS: {"onnxruntime": "onnxruntime"},
    BARE: {},
    GENAI: {"onnxruntime_genai": "onnxruntime-genai"},
    LLAMA: {"llama_cpp": "llama-cpp-python"},
    TORCH: NEEDS[TORCH],
}
"""Those whose versions the table names."""
INSTALL = "pip install 'outrider[rivals]'"


def lacking(engine: str) -> list[str]:
    """Packages that are not installed and that this engine needs."""
    return [package for module, package in NEEDS[engine].items() if importlib.util.find_spec(module) is None]


def versions_of(engine: str) -> list[str]:
    """What is installed of an engine, for the table's caption."""
    return [f"{package} {_version(module, package)}" for module, package in NAMED[engine].items()]


def _version(module: str, package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return str(getattr(importlib.import_module(module), "__version__", "of unknown version"))


def config_of(size: Mapping[str, int]) -> dict[str, Any]:
    """``config.json`` of a Llama whose embeddings are not tied, with heads of 64."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": size["vocabulary"],
        "hidden_size": size["width"],
        "intermediate_size": size["inner"],
        "num_hidden_layers": size["layers"],
        "num_attention_heads": size["heads"],
        "num_key_value_heads": size["kv_heads"],
        "head_dim": size["width"] // size["heads"],
        "max_position_embeddings": CAPACITY,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 0,
    }


def shapes_of(size: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every weight."""
    width, inner, shapes = size["width"], size["inner"], dict[str, tuple[int, ...]]()
    kv_width = width // size["heads"] * size["kv_heads"]
    for number in range(size["layers"]):
        layer = f"model.layers.{number}"
        shapes |= {f"{layer}.self_attn.{name}_proj.weight": (width, width) for name in "qo"}
        shapes |= {f"{layer}.self_attn.{name}_proj.weight": (kv_width, width) for name in "kv"}
        shapes |= {f"{layer}.mlp.{name}_proj.weight": (inner, width) for name in ("gate", "up")}
        shapes[f"{layer}.mlp.down_proj.weight"] = (width, inner)
        shapes |= {f"{layer}.{name}_layernorm.weight": (width,) for name in ("input", "post_attention")}
    ends = dict.fromkeys(("model.embed_tokens.weight", "lm_head.weight"), (size["vocabulary"], width))
    return {**shapes, **ends, "model.norm.weight": (width,)}


def weights_of(size: Mapping[str, int]) -> dict[str, NDArray[np.float32]]:
    """Random matrices, the same at every call; norms that are near 1."""
    random, weights = np.random.default_rng(SEED), dict[str, NDArray[np.float32]]()
    for name, shape in shapes_of(size).items():
        values = random.standard_normal(shape, np.float32) * np.float32(SPREAD)
        weights[name] = values + np.float32(1) if len(shape) == 1 else values
    return weights


def write_checkpoint(folder: Path, size: Mapping[str, int], weights: Mapping[str, NDArray[np.float32]]) -> Path:
    """A checkpoint in float32 as the Hugging Face hub has them, with a tokenizer of one token."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config_of(size)), "utf-8")
    (folder / "tokenizer.json").write_text(Tokenizer(models.BPE(vocab={"a": 0}, merges=[])).to_str(), "utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}), "utf-8")
    save_file(dict(weights), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


class Forms:
    """Makes the rivals of one size, each form when it is first asked for."""

    def __init__(self, folder: Path, size: Mapping[str, int], num_sessions: int) -> None:
        self._folder, self._size, self._num_sessions = folder, size, num_sessions
        self._weights = weights_of(size)
        self.num_parameters = sum(values.size for values in self._weights.values())
        self._checkpoint = write_checkpoint(folder / "checkpoint", size, self._weights)

    def made(self, forms: Sequence[Form], tell: Callable[[str], None]) -> Iterator[tuple[Form, Rival]]:
        """A rival for each form; ``tell`` hears what is made. The bare forward belongs to our engine, the form before it."""
        engine: ours.Ours | None = None
        for form in forms:
            tell(form.name)
            if form.engine == BARE:
                if engine is not None:
                    yield form, ours.BareForward(engine)
                continue
            rival = self._rival(form)
            engine = rival if isinstance(rival, ours.Ours) else engine
            yield form, rival

    def _rival(self, form: Form) -> Rival:
        if form.engine == OURS:
            return ours.Ours(self._engine(form.variant))
        if form.engine == GENAI:
            return genai.Genai(genai.build(self._checkpoint, self._folder / f"genai-{form.variant}", form.variant))
        if form.engine == LLAMA:
            return llama.LlamaCpp(self._gguf(form.variant))
        return torch_rival.Transformers(self._checkpoint)

    def _engine(self, variant: str) -> OnnxEngine:
        out = self._folder / f"package-{graph_variant(variant)}"
        if not out.exists():
            convert(Conversion(self._checkpoint, out, (graph_variant(variant),)))
        return OnnxEngine(Package(out), variant, self._num_sessions)

    def _gguf(self, variant: str) -> Path:
        plain = self._folder / "F32.gguf"
        if not plain.exists():
            llama.write_gguf(plain, config_of(self._size), self._weights)
        return plain if variant == "F32" else llama.quantised(plain, variant)
