"""A full model whose tokenizer has more tokens than its output layer, as families have it that share one with another model."""

import pytest
from tokenizers import AddedToken, Tokenizer

from speculation.engines.pairs import pair_of
from speculation.errors import InvalidRequestError
from tests.speculation.engines.families import write_checkpoint
from tests.speculation.engines.tiny import tiny_tokenizer

pytest.importorskip("torch", reason="the training framework is an extra")

from outrider.training import job as jobs
from tests.outrider.test_distill import TEACHER, asked, quiet, text, weights_of_teacher

NUM_TOKENS = TEACHER["vocab_size"] + 20


@pytest.fixture
def full(tmp_path):
    tokenizer = Tokenizer.from_buffer(tiny_tokenizer())
    added = range(tokenizer.get_vocab_size(), NUM_TOKENS)
    tokenizer.add_special_tokens([AddedToken(f"<image {number}>") for number in added])
    return write_checkpoint(tmp_path / "full", TEACHER, weights_of_teacher(TEACHER, 0), tokenizer=tokenizer.to_str().encode())


@pytest.fixture
def data(tmp_path):
    (tmp_path / "a.txt").write_text(text(0, 3000))
    return (tmp_path / "a.txt",)


def test_a_new_draft_has_a_row_for_each_token_and_makes_a_pair(full, data, tmp_path):
    assert jobs.distil(asked(tmp_path, tmp_path, full=full, data=data, steps=2), quiet).is_done
    pair = pair_of(tmp_path / "made", full)
    assert (pair.draft.vocabulary_size, pair.full.vocabulary_size) == (NUM_TOKENS, TEACHER["vocab_size"])


def test_a_draft_without_a_row_for_each_token_is_refused_before_it_is_trained(full, data, tmp_path):
    job = asked(tmp_path, tmp_path, full=full, data=data, draft=full, shape=None)
    with pytest.raises(InvalidRequestError, match=f"has {NUM_TOKENS} tokens, and the draft rows for 300; .*--shape"):
        jobs.distil(job, quiet)
    assert not job.work.exists()
