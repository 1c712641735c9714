"""Records what the exporters of others make of tiny random checkpoints, as `real_exports.tar.xz`.

Five steps over one folder, by hand, each in an environment that has its libraries; optimum needs an older `transformers`:

    python -m tests.speculation.engines.record_exports checkpoints FOLDER   # what the project needs, torch, transformers 5
    python -m tests.speculation.engines.record_exports genai FOLDER         # onnxruntime-genai, torch, transformers 5
    python -m tests.speculation.engines.record_exports transformers FOLDER  # onnxscript, torch, transformers 5
    python -m tests.speculation.engines.record_exports optimum FOLDER       # optimum-onnx, onnxruntime, torch, transformers 4
    python -m tests.speculation.engines.record_exports pack FOLDER          # what the project needs

The weights are drawn here, from seeds, in steps of 1/64: exact in every float type, and small once packed. Graphs are as they
were exported, but for the notes that exporters leave in them, which hold paths and lines of their source. Of an export of
`transformers` the graph without a past is left out: nothing here reads it.
"""

import argparse
import io
import json
import tarfile
from importlib import metadata
from pathlib import Path

import numpy as np

RECORDED = Path(__file__).with_name("real_exports.tar.xz")
CONTEXT, VOCABULARY = 96, 272
SEQUENCES, LENGTH = 2, 40
STEP = 64
COMMON = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": CONTEXT,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
NARROW = {"num_attention_heads": 2, "num_key_value_heads": 1}
"""Where a head has its even share of the width: the attention node wants heads of 16."""
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": CONTEXT, "vocab_size": VOCABULARY}
FAMILIES = {
    "llama": {"model_type": "llama", "architectures": ["LlamaForCausalLM"], **COMMON},
    "llama-tied": {"model_type": "llama", "architectures": ["LlamaForCausalLM"], **COMMON, "tie_word_embeddings": True},
    "mistral": {"model_type": "mistral", "architectures": ["MistralForCausalLM"], **COMMON, "sliding_window": None},
    "mistral-window": {"model_type": "mistral", "architectures": ["MistralForCausalLM"], **COMMON, "sliding_window": 16},
    "qwen2": {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], **COMMON, **NARROW},
    "qwen2-tied": {
        "model_type": "qwen2",
        "architectures": ["Qwen2ForCausalLM"],
        **COMMON,
        **NARROW,
        "tie_word_embeddings": True,
    },
    "qwen3-tied": {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], **COMMON, "tie_word_embeddings": True},
    "phi3": {"model_type": "phi3", "architectures": ["Phi3ForCausalLM"], **COMMON, **NARROW, "sliding_window": None}
    | {"original_max_position_embeddings": CONTEXT, "partial_rotary_factor": 1.0},
    "gemma-tied": {"model_type": "gemma", "architectures": ["GemmaForCausalLM"], **COMMON, "tie_word_embeddings": True}
    | {"hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh"},
    "gpt2-tied": {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], **GPT2, "bos_token_id": 0, "eos_token_id": 0},
}
"""What `config.json` says of each; a name that ends in `-tied` has one matrix for embedding and output."""
CONVERTED = ("llama", "llama-tied", "mistral", "mistral-window", "qwen2", "qwen2-tied", "qwen3-tied")
"""Those whose checkpoints are packed, too, since `convert` knows them."""
BY_BUILDER = {family: ("fp32",) for family in FAMILIES if not family.startswith("gpt2")}
BY_BUILDER |= dict.fromkeys(("llama", "qwen3-tied", "phi3"), ("fp32", "int4"))
BY_OPTIMUM = dict.fromkeys(FAMILIES, ("fp32",)) | {"llama-tied": ("fp32", "fp16", "quantized")}
"""The other two are made of `fp32` by ONNX Runtime's converter and quantiser, as exports for browsers are."""
BY_TRANSFORMERS = dict.fromkeys(FAMILIES, ("fp32",)) | {"llama": ("fp32", "fused"), "llama-tied": ("fp32", "fp16")}
"""`fused` has the exporter's own fusions for ONNX Runtime on a CPU."""
KEPT = ("config.json", "generation_config.json", "genai_config.json", "export.json", "tokenizer.json", "tokenizer_config.json")
MADE = {"genai": BY_BUILDER, "optimum": BY_OPTIMUM, "transformers": BY_TRANSFORMERS}
EXPORTS = [f"{family}.{exporter}-{kind}" for exporter, made in MADE.items() for family in made for kind in made[family]]
CHECKPOINT = ("config.json", "generation_config.json", "tokenizer.json")
LEFT_OUT = ("prefill.onnx", "prefill.onnx.data")


def token_ids():
    """Two texts of 40 tokens, the same for every family."""
    return np.random.default_rng(11).integers(1, VOCABULARY, (SEQUENCES, LENGTH))


def write_checkpoints(folder):
    """Configuration, weights, tokenizer, and what `transformers` computes of them."""
    from tests.speculation.engines.tiny import END_OF_TEXT, tiny_tokenizer

    for seed, (family, config) in enumerate(FAMILIES.items()):
        path = folder / "checkpoints" / family
        path.mkdir(parents=True, exist_ok=True)
        (path / "config.json").write_text(json.dumps({**config, "dtype": "float32", "torch_dtype": "float32"}))
        (path / "generation_config.json").write_text(json.dumps({"bos_token_id": 0, "eos_token_id": 0}))
        (path / "tokenizer.json").write_bytes(tiny_tokenizer())
        tokenizer = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": CONTEXT}
        tokenizer |= dict.fromkeys(("bos_token", "eos_token", "pad_token"), END_OF_TEXT)
        (path / "tokenizer_config.json").write_text(json.dumps(tokenizer))
        np.save(folder / f"{family}.npy", _drawn(path, seed))
    _note(folder, "checkpoints", "torch", "transformers")


def _drawn(path, seed):
    """Draw the weights of a checkpoint; its logits [2, 40, vocabulary], by the plainest of the library's attentions."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(path), attn_implementation="eager").eval().float()
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for name, weight in sorted(model.named_parameters()):
            values = rng.normal(0, 0.3, weight.shape)
            if weight.ndim == 1 and name.endswith("weight"):
                values = rng.uniform(0.5, 1.5, weight.shape)
            weight.copy_(torch.from_numpy(np.round(values * STEP) / STEP))
        logits = model(torch.tensor(token_ids())).logits.numpy()
    weights = {name: weight.detach().contiguous() for name, weight in model.named_parameters()}
    save_file(weights, path / "model.safetensors", {"format": "pt"})
    return logits


def export_by_genai(folder):
    from onnxruntime_genai.models.builder import create_model, parse_extra_options

    for family, precisions in BY_BUILDER.items():
        for precision in precisions:
            out = folder / "exports" / f"{family}.genai-{precision}"
            asked = ["int4_block_size=32"] if precision == "int4" else []
            arguments = ("", str(folder / "checkpoints" / family), str(out), precision, "cpu", str(folder / "cache"))
            create_model(*arguments, **parse_extra_options(*arguments, asked))
    _note(folder, "genai", "onnxruntime-genai", "transformers", "onnx")


def export_by_optimum(folder):
    from optimum.exporters.onnx import main_export

    for family, kinds in BY_OPTIMUM.items():
        out = folder / "exports" / f"{family}.optimum-fp32"
        main_export(str(folder / "checkpoints" / family), out, task="text-generation-with-past", dtype="fp32", device="cpu")
        for kind in kinds[1:]:
            _made_of(out / "model.onnx", folder / "exports" / f"{family}.optimum-{kind}" / f"model_{kind}.onnx", kind)
    _note(folder, "optimum", "optimum-onnx", "transformers", "torch", "onnx")


def export_by_transformers(folder):
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.exporters import OnnxConfig
    from transformers.exporters.exporter_onnx import OnnxExporter

    sample = torch.tensor(token_ids()[:, :5])
    for family, kinds in BY_TRANSFORMERS.items():
        path = folder / "checkpoints" / family
        for kind in kinds:
            dtype = torch.float16 if kind == "fp16" else torch.float32
            model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype).eval()
            config = OnnxConfig(dynamic=True, ort_fusions="cpu" if kind == "fused" else None)
            inputs = {"input_ids": sample, "attention_mask": torch.ones_like(sample)}
            exported = OnnxExporter().export_for_generation(model, inputs, config, multi_token_decode=True)
            out = folder / "exports" / f"{family}.transformers-{kind}"
            exported.save_pretrained(out)
            (out / "tokenizer.json").write_bytes((path / "tokenizer.json").read_bytes())
    _note(folder, "transformers", "transformers", "onnxscript", "torch", "onnx")


def _made_of(graph, target, kind):
    import onnx
    from onnxruntime.quantization import quantize_dynamic
    from onnxruntime.transformers.float16 import convert_float_to_float16

    target.parent.mkdir(exist_ok=True)
    if kind == "fp16":
        onnx.save(convert_float_to_float16(onnx.load(graph), keep_io_types=["logits"]), target)
    else:
        quantize_dynamic(graph, target)
    for name in KEPT:
        if (graph.parent / name).exists():
            (target.parent / name).write_bytes((graph.parent / name).read_bytes())


def pack(folder):
    """All exports, stripped of notes, checkpoints and logits, in one archive: what they have in common is in it once."""
    files = {"versions.json": json.dumps(_versions(folder), indent=1, sort_keys=True).encode()}
    for path in sorted((folder / "exports").iterdir()):
        files |= {f"{path.name}/{name}": data for name, data in _files_of(path).items()}
    for family in CONVERTED:
        path = folder / "checkpoints" / family
        files |= {f"{family}.checkpoint/{name}": (path / name).read_bytes() for name in (*CHECKPOINT, "model.safetensors")}
    logits = io.BytesIO()
    np.savez(logits, **{family: np.load(folder / f"{family}.npy") for family in FAMILIES})
    files["logits.npz"] = logits.getvalue()
    with tarfile.open(RECORDED, "w:xz", preset=9) as archive:
        for name, data in sorted(files.items(), key=lambda file: (file[0].rsplit(".")[-1], file[0])):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    print(f"{RECORDED.name}: {RECORDED.stat().st_size} bytes of {sum(map(len, files.values()))}")


def _files_of(path):
    """What a folder of the hub would hold: optimum's graphs lie in `onnx` there, those of the others at the top."""
    found = {name: (path / name).read_bytes() for name in KEPT if (path / name).exists()}
    place = "onnx/" if "optimum" in path.name else ""
    for file in sorted(set(path.iterdir()) - {path / name for name in LEFT_OUT}):
        if file.suffix == ".onnx":
            found[place + file.name] = _without_notes(file)
        elif ".onnx" in file.name:
            found[place + file.name] = file.read_bytes()
    return found


def _without_notes(file):
    import onnx

    model = onnx.load(file, load_external_data=False)
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.initializer, *graph.value_info, *graph.input, *graph.output):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    return model.SerializeToString(deterministic=True)


def _note(folder, step, *libraries):
    found = {name: metadata.version(name) for name in libraries}
    (folder / f"versions.{step}.json").write_text(json.dumps(found))
    print(found)


def _versions(folder):
    return {file.name.split(".")[1]: json.loads(file.read_text()) for file in folder.glob("versions.*.json")}


STEPS = {
    "checkpoints": write_checkpoints,
    "genai": export_by_genai,
    "optimum": export_by_optimum,
    "transformers": export_by_transformers,
    "pack": pack,
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("step", choices=STEPS)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    STEPS[arguments.step](arguments.folder)
