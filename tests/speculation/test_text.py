import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from speculation.errors import InvalidRequestError
from speculation.text import MAX_STOPS, StopStrings, TextStream

# Token 0 has no bytes, 1 to 256 are single bytes, then some longer ones that begin and end inside characters.
PIECES = [b"", *(bytes([n]) for n in range(256)), b"the ", b" of", "é".encode(), "€".encode()[:2], "€".encode()[2:]]
PIECES += ["🦊".encode()[:3], "🦊".encode()[2:], "�".encode(), b"\xac\xe2\x82", "日本".encode()[1:5]]


def decode(token_ids):
    return b"".join(PIECES[token_id] for token_id in token_ids).decode("utf-8", "replace")


def byte_level_tokenizer():
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer = Tokenizer(models.BPE({letter: number for number, letter in enumerate(sorted(alphabet))}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


ANY_TOKEN = st.integers(0, len(PIECES) - 1)
AWKWARD_TOKEN = st.sampled_from([0, 1 + 0x80, 1 + 0xE2, 1 + 0x82, 1 + 0xAC, 1 + 0xF0, 1 + 0x9F, *range(257, len(PIECES))])
TOKENS = st.lists(ANY_TOKEN, max_size=80) | st.lists(AWKWARD_TOKEN, max_size=80)


def pieces_of(draw, items):
    """The items, cut into pieces at places of Hypothesis' choosing."""
    start = 0
    while start < len(items):
        size = draw(st.integers(1, 5))
        yield items[start : start + size]
        start += size


@given(st.data(), TOKENS)
@settings(max_examples=300)
def test_the_pieces_joined_are_the_text_of_all_tokens(data, token_ids):
    stream, shown = TextStream(decode), ""
    for piece in pieces_of(data.draw, token_ids):
        shown += stream.push(piece)
        assert decode(token_ids).startswith(shown)
    assert shown + stream.finish() == decode(token_ids)


@given(st.binary(max_size=60) | st.text(max_size=40).map(str.encode))
def test_a_real_byte_level_decoder_is_streamed_whole(raw):
    tokenizer = byte_level_tokenizer()
    by_byte = {raw_byte: tokenizer.token_to_id(letter) for raw_byte, letter in byte_letters().items()}
    token_ids = [by_byte[raw_byte] for raw_byte in raw]
    stream = TextStream(tokenizer.decode)
    text = "".join(stream.push([token_id]) for token_id in token_ids) + stream.finish()
    assert text == tokenizer.decode(token_ids) == raw.decode("utf-8", "replace")


def byte_letters():
    """GPT-2's letters for bytes: printable ones stand for themselves, the others for letters from 256 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {raw_byte: chr(raw_byte) for raw_byte in printable}
    others = (raw_byte for raw_byte in range(256) if raw_byte not in letters)
    return letters | {raw_byte: chr(256 + number) for number, raw_byte in enumerate(others)}


def test_an_incomplete_character_is_held_back():
    stream = TextStream(decode)
    euro, fox = [1 + n for n in "€".encode()], [1 + n for n in "🦊".encode()]
    assert [stream.push([token_id]) for token_id in euro] == ["", "", "€"]
    assert [stream.push([token_id]) for token_id in fox] == ["", "", "", "🦊"]
    assert stream.push(euro[:2]) == ""
    assert stream.push([1 + ord("a")]) == "\ufffda"
    assert stream.push([]) == ""
    assert stream.push(euro[:1]) == ""
    assert stream.finish() == "\ufffd"
    assert stream.finish() == ""


@pytest.mark.parametrize(
    "token_id", [1 + ord("x"), 1 + 0x80, 1 + 0xE2], ids=["text", "stray bytes", "beginnings of characters"]
)
def test_a_push_decodes_a_few_tokens_however_long_the_text(token_id):
    decoded = []

    def counting_decode(token_ids):
        decoded.append(len(token_ids))
        return decode(token_ids)

    stream = TextStream(counting_decode)
    shown = "".join(stream.push([token_id]) for _ in range(2000)) + stream.finish()
    assert shown == decode([token_id] * 2000)
    assert max(decoded) <= 40
    assert sum(decoded) <= 2000 * 25


def test_a_space_that_the_decoder_drops_at_the_beginning_is_kept_within():
    words = ["one", "two", "three"] * 40
    stream = TextStream(lambda token_ids: "".join(f" {words[token_id]}" for token_id in token_ids)[1:])
    assert "".join(stream.push([number]) for number in range(len(words))) + stream.finish() == " ".join(words)


def test_tokens_without_text_change_nothing():
    euro = [1 + number for number in "€".encode()]
    token_ids = [euro[0], *[0] * 50, euro[1], *[0] * 50, euro[2], 1 + ord("x")]
    stream = TextStream(decode)
    assert "".join(stream.push([token_id]) for token_id in token_ids) == "€x"


@given(TOKENS, TOKENS, TOKENS)
def test_a_fork_leaves_its_parent_as_it_was(first, second, third):
    stream = TextStream(decode)
    start = stream.push(first)
    copy = stream.fork()
    assert start + copy.push(second) + copy.finish() == decode(first + second)
    assert start + stream.push(third) + stream.finish() == decode(first + third)


SHORT_TEXT = st.text("ab", max_size=30)
STOPS = st.lists(st.text("ab", min_size=1, max_size=5), min_size=1, max_size=MAX_STOPS)


@given(SHORT_TEXT, STOPS)
def test_the_earliest_match_is_found(text, stops):
    assert StopStrings(stops).find(text) == min((text.find(stop) for stop in stops if stop in text), default=None)


@given(SHORT_TEXT, STOPS)
def test_as_little_as_possible_is_held_back(text, stops):
    if StopStrings(stops).find(text) is None:
        beginnings = {stop[:length] for stop in stops for length in range(1, len(stop))}
        longest = max((len(beginning) for beginning in beginnings if text.endswith(beginning)), default=0)
        assert StopStrings(stops).held_back(text) == longest


def test_positions_are_counted_in_code_points():
    assert StopStrings(["\n\n"]).find("日本🦊\n\nrest") == 3


@pytest.mark.parametrize("stops", [[], [""], ["a", ""], list("abcde"), "stop", [1]])
def test_stops_that_cannot_work_are_refused(stops):
    with pytest.raises(InvalidRequestError, match="stop") as refusal:
        StopStrings(stops)
    assert refusal.value.parameter == "stop"
