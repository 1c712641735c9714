import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

from speculation.engines.package import load_pair
from speculation.errors import InvalidRequestError
from speculation.text import MAX_STOPS, StopStrings, TokenBytes, WindowStream, text_stream, token_bytes

# Token 0 has no bytes, 1 to 256 are single bytes, then some longer ones that begin and end inside characters.
PIECES = [b"", *(bytes([n]) for n in range(256)), b"the ", b" of", "é".encode(), "€".encode()[:2], "€".encode()[2:]]
PIECES += ["🦊".encode()[:3], "🦊".encode()[2:], "�".encode(), b"\xac\xe2\x82", "日本".encode()[1:5]]


def decode(token_ids):
    return b"".join(PIECES[token_id] for token_id in token_ids).decode("utf-8", "replace")


TABLE = TokenBytes(dict(enumerate(PIECES)))
BOTH = pytest.mark.parametrize("decoder", [decode, TABLE], ids=["any decoder", "bytes of tokens"])


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


@BOTH
@given(data=st.data(), token_ids=TOKENS)
@settings(max_examples=300)
def test_the_pieces_joined_are_the_text_of_all_tokens(decoder, data, token_ids):
    stream, shown = text_stream(decoder), ""
    for piece in pieces_of(data.draw, token_ids):
        shown += stream.push(piece)
        assert decode(token_ids).startswith(shown)
    assert shown + stream.finish() == decode(token_ids)


@given(st.binary(max_size=60) | st.text(max_size=40).map(str.encode))
def test_a_real_byte_level_decoder_is_streamed_whole(raw):
    tokenizer = byte_level_tokenizer()
    by_byte = {raw_byte: tokenizer.token_to_id(letter) for raw_byte, letter in byte_letters().items()}
    token_ids = [by_byte[raw_byte] for raw_byte in raw]
    stream = WindowStream(tokenizer.decode)
    text = "".join(stream.push([token_id]) for token_id in token_ids) + stream.finish()
    assert text == tokenizer.decode(token_ids) == raw.decode("utf-8", "replace")


def byte_letters():
    """GPT-2's letters for bytes: printable ones stand for themselves, the others for letters from 256 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {raw_byte: chr(raw_byte) for raw_byte in printable}
    others = (raw_byte for raw_byte in range(256) if raw_byte not in letters)
    return letters | {raw_byte: chr(256 + number) for number, raw_byte in enumerate(others)}


@BOTH
def test_an_incomplete_character_is_held_back(decoder):
    stream = text_stream(decoder)
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

    stream = WindowStream(counting_decode)
    shown = "".join(stream.push([token_id]) for _ in range(2000)) + stream.finish()
    assert shown == decode([token_id] * 2000)
    assert max(decoded) <= 40
    assert sum(decoded) <= 2000 * 25


def test_a_space_that_the_decoder_drops_at_the_beginning_is_kept_within():
    words = ["one", "two", "three"] * 40
    stream = WindowStream(lambda token_ids: "".join(f" {words[token_id]}" for token_id in token_ids)[1:])
    assert "".join(stream.push([number]) for number in range(len(words))) + stream.finish() == " ".join(words)


@BOTH
def test_tokens_without_text_change_nothing(decoder):
    euro = [1 + number for number in "€".encode()]
    token_ids = [euro[0], *[0] * 50, euro[1], *[0] * 50, euro[2], 1 + ord("x")]
    stream = text_stream(decoder)
    assert "".join(stream.push([token_id]) for token_id in token_ids) == "€x"


def decode_byte_by_byte(token_ids):
    """As some decoders do: bytes that do not make a character are a U+FFFD each, not one together."""
    text = ""
    for token_id in token_ids:
        text = (text.encode("utf-8", "surrogateescape") + PIECES[token_id]).decode("utf-8", "surrogateescape")
    return "".join("\ufffd" if "\ud800" <= letter <= "\udfff" else letter for letter in text)


@given(st.text("a é€日🦊", max_size=40))
def test_a_character_whose_bytes_show_one_by_one_is_held_back_until_it_is_whole(text):
    stream, shown = WindowStream(decode_byte_by_byte), ""
    for byte in text.encode():
        shown += stream.push([1 + byte])
        assert text.startswith(shown)
    assert shown + stream.finish() == text


def piece_tokenizer(num_dropped):
    words = ["<unk>", *(f"<0x{n:02X}>" for n in range(256)), "▁", "▁a", "b", "<0x41>b", "\n"]
    vocabulary = {token: number for number, token in enumerate(words)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    strip = [decoders.Strip(" ", num_dropped, 0)] if num_dropped else []
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    tokenizer.decoder = decoders.Sequence(steps)
    tokenizer.add_special_tokens(["<s>"])
    return tokenizer


@pytest.mark.parametrize("num_dropped", [0, 1, 2])
@given(words=st.lists(st.sampled_from(["▁", "▁a", "b", "<0x41>b", "\n", "<s>", *"é€🦊 "]), max_size=12), data=st.data())
def test_pieces_and_bytes_are_streamed_as_their_decoder_writes_them(num_dropped, words, data):
    tokenizer = piece_tokenizer(num_dropped)
    ids = [tokenizer.token_to_id(word) for word in words]
    token_ids = [i for word, known in zip(words, ids, strict=True) for i in (as_bytes(word) if known is None else [known])]
    stream = text_stream(table_of(tokenizer))
    text = "".join(stream.push(piece) for piece in pieces_of(data.draw, token_ids)) + stream.finish()
    assert text == table_of(tokenizer)(token_ids) == tokenizer.decode(token_ids)


def test_of_what_a_text_begins_with_spaces_alone_are_dropped():
    table = TokenBytes({1: b"\n", 2: b" a"}, 1)
    assert table([1, 2]) == text_stream(table).push([1, 2]) == "\n a"


def test_what_only_begins_like_a_spelled_byte_stands_for_itself():
    tokenizer = piece_tokenizer(0)
    token_ids = [tokenizer.token_to_id("<0x41>b"), tokenizer.token_to_id("<0x41>")]
    assert table_of(tokenizer)(token_ids) == tokenizer.decode(token_ids) == "<0x41>bA"


def test_a_fork_drops_no_more_spaces_than_its_parent_had_left_to_drop():
    stream = text_stream(TokenBytes({1: b" ", 2: b"a"}, 1))
    assert stream.push([1]) == ""
    assert stream.fork().push([1, 2]) == stream.push([1, 2]) == " a"


def as_bytes(character):
    return [1 + byte for byte in character.encode()]


@BOTH
@given(first=TOKENS, second=TOKENS, third=TOKENS)
def test_a_fork_leaves_its_parent_as_it_was(decoder, first, second, third):
    stream = text_stream(decoder)
    start = stream.push(first)
    copy = stream.fork()
    assert start + copy.push(second) + copy.finish() == decode(first + second)
    assert start + stream.push(third) + stream.finish() == decode(first + third)


@BOTH
@given(first=TOKENS, second=TOKENS)
def test_a_stream_behind_one_more_token_leaves_the_one_before_as_it_was(decoder, first, second):
    stream, shown, behind = text_stream(decoder), "", []
    for token_id in first:
        piece, after = stream.after(token_id)
        behind.append((stream, shown))
        stream, shown = after, shown + piece
    assert shown + stream.fork().finish() == decode(first)
    for index, (earlier, start) in enumerate(behind):
        copy = earlier.fork()
        assert start + copy.push(second) + copy.finish() == decode(first[:index] + second)


def test_the_text_of_a_token_is_kept_only_where_it_stands_between_characters():
    table = TokenBytes({1: b"\xc3", 2: b"\xa9", 3: b"a", 4: b" a"}, 1)
    dropping, accent = text_stream(table).after(4), text_stream(table).after(1)[1].after(2)
    assert (dropping[0], accent[0]) == ("a", "\xe9")
    begun = text_stream(table).after(3)[1]
    assert [begun.after(token_id)[0] for token_id in (1, 2, 3, 4, 2, 4)] == ["", "\ufffd", "a", " a", "\ufffd", " a"]
    assert begun.after(1)[1].fork().finish() == "\ufffd"


BUNDLED = Tokenizer.from_file(str(load_pair().full.path / "tokenizer.json"))
BUNDLED_TOKENS = st.lists(st.integers(0, BUNDLED.get_vocab_size() + 3), max_size=60)


def table_of(tokenizer):
    table = token_bytes(tokenizer.to_str())
    assert table is not None
    return table


BUNDLED_TABLE = table_of(BUNDLED)


@given(data=st.data(), token_ids=BUNDLED_TOKENS)
@settings(max_examples=300)
def test_the_table_of_the_bundled_tokenizer_decodes_as_it_does(data, token_ids):
    stream = text_stream(BUNDLED_TABLE)
    text = "".join(stream.push(piece) for piece in pieces_of(data.draw, token_ids)) + stream.finish()
    assert text == BUNDLED_TABLE(token_ids) == BUNDLED.decode(token_ids)


def test_every_single_token_of_the_bundled_tokenizer_decodes_as_it_does():
    assert any(token.special for token in BUNDLED.get_added_tokens_decoder().values())
    for token_id in range(BUNDLED.get_vocab_size()):
        assert BUNDLED_TABLE([token_id]) == BUNDLED.decode([token_id])


@given(st.lists(st.integers(0, 259), max_size=40))
def test_added_tokens_are_spelled_out_and_special_ones_left_out(token_ids):
    tokenizer = byte_level_tokenizer()
    tokenizer.add_tokens(["two words", AddedToken("day€", special=False), "plain"])
    tokenizer.add_special_tokens(["<end>"])
    assert tokenizer.get_vocab_size() == 260
    assert table_of(tokenizer)(token_ids) == tokenizer.decode(token_ids)


def test_a_tokenizer_that_decodes_otherwise_has_no_table():
    tokenizer = byte_level_tokenizer()
    tokenizer.decoder = decoders.WordPiece()
    assert token_bytes(tokenizer.to_str()) is None
    tokenizer.decoder = None
    assert token_bytes(tokenizer.to_str()) is None
    replace, fuse = decoders.Replace("x", "y"), decoders.Fuse()
    for steps in ([replace, fuse], [decoders.Metaspace(), decoders.ByteFallback(), fuse], [decoders.ByteFallback()]):
        tokenizer.decoder = decoders.Sequence(steps)
        assert token_bytes(tokenizer.to_str()) is None
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    assert token_bytes(tokenizer.to_str()) is None
    tokenizer.decoder = decoders.Sequence([decoders.Replace(Regex("x+"), "y"), decoders.ByteFallback(), fuse])
    assert token_bytes(tokenizer.to_str()) is None
    spaces = decoders.Strip(" ", 1, 0)
    for ends in ([decoders.Strip(" ", 0, 1)], [decoders.Strip("x", 1, 0)], [spaces, spaces]):
        tokenizer.decoder = decoders.Sequence([replace, decoders.ByteFallback(), fuse, *ends])
        assert token_bytes(tokenizer.to_str()) is None


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
