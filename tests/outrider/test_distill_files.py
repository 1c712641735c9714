"""Files of a distillation beside its models: texts to learn from, samples and a log that an earlier run left."""

import json

import numpy as np
import pytest

from speculation.errors import InvalidRequestError, PackageError

torch = pytest.importorskip("torch", reason="the training framework is an extra")

from outrider.training import loop, samples  # noqa: E402
from outrider.training.distillation import GREEDY, SAMPLED  # noqa: E402
from outrider.training.network import Decoder, Shape  # noqa: E402
from outrider.training.place import Place  # noqa: E402
from outrider.training.plot import points_of  # noqa: E402
from outrider.training.texts import documents_of  # noqa: E402


def measured(step):
    return json.dumps({"step": step, GREEDY: 0.5, SAMPLED: 0.25}) + "\n"


def test_a_line_of_the_log_that_was_cut_off_is_left_out(tmp_path):
    log = tmp_path / "log.jsonl"
    log.write_text(measured(0) + measured(10)[:20] + measured(10) + measured(20) + measured(30)[:15])
    assert [step for step, *_ in points_of(log)] == [0, 20]


def test_a_text_with_half_of_a_surrogate_pair_is_named(tmp_path):
    texts = tmp_path / "a.jsonl"
    texts.write_text('{"text": "fine"}\n{"text": "not \\ud83d fine"}\n')
    with pytest.raises(InvalidRequestError, match=r"a\.jsonl, line 2 has a text with half of a surrogate pair"):
        list(documents_of([texts]))
    texts.write_text('{"text": "\\ud83d\\ude00"}\n')
    assert list(documents_of([texts])) == ["\N{GRINNING FACE}"]


@pytest.mark.parametrize("content", [b"", b"no samples", b"PK\x03\x04cut off", None])
def test_samples_that_are_damaged_are_named(tmp_path, content):
    part = tmp_path / "0000.npz"
    np.savez(part, token_ids=np.zeros((1, 2), np.int16))
    if content is not None:
        part.write_bytes(content)
    with pytest.raises(PackageError, match=r"0000\.npz holds no samples .*take it away"):
        samples._read(part, Place.at("cpu"), torch.int16)


def decoder(hidden_size):
    return Decoder(Shape(hidden_size, 32, 1, 2, 1, vocab_size=48))


@pytest.mark.parametrize("content", [b"", b"no checkpoint", None])
def test_a_checkpoint_that_is_damaged_is_named(tmp_path, content):
    latest = tmp_path / "latest.pt"
    loop.save(latest, decoder(16), [], loop.Progress(step=3))
    assert loop.load(latest, decoder(16)).step == 3
    latest.write_bytes(latest.read_bytes()[:-100] if content is None else content)
    with pytest.raises(PackageError, match=r"latest\.pt is no checkpoint of this run"):
        loop.load(latest, decoder(16))


def test_the_checkpoint_of_another_shape_is_named(tmp_path):
    latest = tmp_path / "latest.pt"
    loop.save(latest, decoder(16), [], loop.Progress())
    with pytest.raises(PackageError, match=r"latest\.pt is no checkpoint of this run"):
        loop.load(latest, decoder(32))
