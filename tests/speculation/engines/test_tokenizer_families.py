"""Tokenizers and chat templates in the forms that families publish, against the `transformers` library, string by string.

Where that library is not installed, its recorded digests are what ours are held to.
"""

import json
import unicodedata

import pytest

from tests.speculation.engines.record_tokenizers import DATE, RECORDED, Ours, Theirs, inputs_of, is_whole, outcomes
from tests.speculation.engines.tokenizer_families import (
    FAMILIES,
    IN_BYTES,
    IN_PIECES,
    NUM_STRINGS,
    conversations,
    digest_of,
    strings,
    token_sequences,
    write_folder,
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Every family's folder."""
    return {family: write_folder(tmp_path_factory.mktemp(family), family) for family in FAMILIES}


@pytest.fixture(scope="module")
def recorded():
    return json.loads(RECORDED.read_text("utf-8"))


def test_the_strings_hold_what_is_hard(recorded):
    texts = strings()
    assert len(texts) == NUM_STRINGS == len(conversations())
    assert digest_of(texts) == recorded["strings"], "other strings: record again"
    for needle in ("👩🏽‍🚀", "🇫🇷", "👍🏿", "世界", "שלום", "مرحبا", "e\u0301", "\x00", "\x1b", "\u202b", "\r\n", "<s>"):
        assert sum(needle in text for text in texts) >= 10, needle
    assert sum("\ufffd" in text for text in texts) > 200
    assert sum(unicodedata.normalize("NFC", text) != text for text in texts) > 100


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_read_and_written_as_transformers_was_recorded_to(folders, recorded, family):
    ours = Ours(folders[family])
    found = outcomes(ours, *inputs_of(family, ours), **DATE)
    wrong = [kind for kind, values in found.items() if digest_of(values) != recorded[family][kind]]
    assert not wrong, f"by transformers {recorded['transformers']}; here by tokenizers {recorded['tokenizers']}"


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_family_is_read_and_written_as_transformers_does(folders, family):
    pytest.importorskip("transformers", reason=f"transformers is not installed; what it gave is recorded in {RECORDED.name}")
    ours = Ours(folders[family])
    inputs = inputs_of(family, ours)
    # Without a date of ours both ask their clocks for one, of which the template wants the year.
    found, wanted = outcomes(ours, *inputs), outcomes(Theirs(folders[family]), *inputs)
    for kind, values in wanted.items():
        assert [pair for pair in zip(found[kind], values, strict=True) if pair[0] != pair[1]][:3] == [], kind


@pytest.mark.parametrize("family", FAMILIES)
def test_what_was_shown_is_never_taken_back_and_pieces_make_the_whole(folders, family):
    ours = Ours(folders[family])
    all_ids = [ours.ids(text) for text in strings()]
    broken = token_sequences(all_ids, ours.tokenizer.get_vocab_size())
    assert all(ours.text(ids) == ours.table(ids) for ids in [*all_ids, *broken])
    assert 300 < sum("\ufffd" in ours.table(ids) for ids in broken) < NUM_STRINGS


@pytest.mark.parametrize("family", IN_BYTES)
def test_bytes_bring_back_every_string_but_for_its_special_tokens(folders, family):
    ours = Ours(folders[family])
    special = [token.content for token in ours.tokenizer.get_added_tokens_decoder().values() if token.special]
    plain = [text for text in strings() if not any(token in text for token in special)]
    form = "NFC" if family == "qwen" else None
    assert len(plain) > 600
    assert all(ours.text(ours.ids(text)) == (unicodedata.normalize(form, text) if form else text) for text in plain)


@pytest.mark.parametrize("family", IN_PIECES)
def test_pieces_differ_from_their_own_decoder_only_where_bytes_are_no_text(folders, family):
    """It shows a whole run of bytes as U+FFFD as soon as one of them is wrong, characters among them."""
    ours = Ours(folders[family])
    euro_and_stray = [ours.tokenizer.token_to_id(f"<0x{byte:02X}>") for byte in (*"€".encode(), 0xFF)]
    assert ours.tokenizer.decode(euro_and_stray) == "\ufffd" * 4
    assert ours.text(euro_and_stray) == "€\ufffd"
    broken = token_sequences([ours.ids(text) for text in strings()], ours.tokenizer.get_vocab_size())
    differing = [ids for ids in broken if ours.text(ids) != ours.tokenizer.decode(ids)]
    assert differing
    assert not any(is_whole(ours, ids) for ids in differing)
