"""A sentence-transformers folder with a BERT of random weights: small, and the same code as a trained one."""

from __future__ import annotations

import json
import string

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from device_agent.retrieval.encoder_graph import EncoderShape

CHARACTERS = string.ascii_lowercase + string.digits + string.punctuation
SHAPE = EncoderShape(5 + 2 * len(CHARACTERS), 32, 2, 4, 48, 64, 1e-12)
CONFIG = {
    "architectures": ["BertModel"],
    "model_type": "bert",
    "hidden_act": "gelu",
    "vocab_size": SHAPE.vocabulary_size,
    "hidden_size": SHAPE.hidden_size,
    "num_hidden_layers": SHAPE.num_layers,
    "num_attention_heads": SHAPE.num_heads,
    "intermediate_size": SHAPE.intermediate_size,
    "max_position_embeddings": SHAPE.num_positions,
    "type_vocab_size": 2,
    "layer_norm_eps": SHAPE.epsilon,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}


def write(folder, seed=0, **changes):
    """A folder with the model; ``changes`` are of its configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG | changes), "utf-8")
    tokenizer().save(str(folder / "tokenizer.json"))
    save_file(weights(seed), folder / "model.safetensors")
    return folder


def tokenizer():
    """Letters: a word is its first one, then what goes on."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokens = [*special, *CHARACTERS, *(f"##{character}" for character in CHARACTERS)]
    made = Tokenizer(models.WordPiece({token: number for number, token in enumerate(tokens)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    made.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return made


def weights(seed=0):
    """All of ``BertModel``'s, random; norms near 1."""
    draw = np.random.default_rng(seed)

    def of(*shape):
        return draw.normal(0, 0.3, shape).astype(np.float32)

    size, wide = SHAPE.hidden_size, SHAPE.intermediate_size
    made = {
        "embeddings.word_embeddings.weight": of(SHAPE.vocabulary_size, size),
        "embeddings.position_embeddings.weight": of(SHAPE.num_positions, size),
        "embeddings.token_type_embeddings.weight": of(2, size),
        "embeddings.position_ids": np.arange(SHAPE.num_positions, dtype=np.int64)[None],
    }
    norms = ["embeddings.LayerNorm"]
    for layer in range(SHAPE.num_layers):
        base = f"encoder.layer.{layer}"
        self_attention = [f"attention.self.{name}" for name in ("query", "key", "value")]
        for name in (*self_attention, "attention.output.dense"):
            made |= {f"{base}.{name}.weight": of(size, size), f"{base}.{name}.bias": of(size)}
        made |= {f"{base}.intermediate.dense.weight": of(wide, size), f"{base}.intermediate.dense.bias": of(wide)}
        made |= {f"{base}.output.dense.weight": of(size, wide), f"{base}.output.dense.bias": of(size)}
        norms += [f"{base}.attention.output.LayerNorm", f"{base}.output.LayerNorm"]
    for name in norms:
        made |= {f"{name}.weight": 1 + of(size), f"{name}.bias": of(size)}
    return made
