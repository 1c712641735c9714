"""The noise of the shared choice: a number for every (seed, position, token), drawn from nowhere. Pure.

Law: noise is addressed, never consumed. Both ends of a session, and any replay, compute the same Gumbel noise for the same
address, so nothing about it ever travels. ``docs/choice-rule.md`` is the rule in words; this module is its first half:

- bits: Philox4x32-10 (Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC'11), key = the seed's
  low and high word, counter = (token_id // 4, position's low word, position's high word, ``RULE_WORD``), word token_id % 4;
- uniform: u = (bits + 0.5) / 2**32, exact in float64, never 0 or 1;
- noise: g = -log(-log(u)) in float64, each logarithm within 4 units in the last place.

A 32-bit u bounds the noise: ``GUMBEL_MIN`` <= g <= ``GUMBEL_MAX``.
"""

from __future__ import annotations

import math
import sys
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

_Number = TypeVar("_Number", np.uint64, np.int64)

RULE = "gumbel-philox4x32-1"
RULE_WORD = 1
MAX_TOKEN_ID = 2**31 - 1
MAX_POSITION = 2**63 - 1

GUMBEL_MIN = -math.log(-math.log(0.5 / 2**32))
GUMBEL_MAX = -math.log(-math.log1p(-0.5 / 2**32))

SURE_ODDS = np.float32(1e-5)
SURE_BITS = math.ceil(2**32 * (1 - 2e-5))
"""``rough_odds`` is not to be trusted for these bits and above: float32 cannot tell how near to 1 their ``u`` lies."""

_LANES = 4
_WORD = 0xFFFFFFFF
_ONE_CELL = (1).to_bytes(8, "little")
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
# The same in 64-bit cells: constants, and what the ten rounds add to a key.
_WORD_CELL, _HALF_CELL = np.uint64(_WORD), np.uint64(32)
_MULTIPLIER_CELLS = np.uint64(_MULTIPLIERS[0]), np.uint64(_MULTIPLIERS[1])
_ROUND_STEPS = np.array(_KEY_STEPS, dtype=np.uint64)[:, None, None, None] * np.arange(10, dtype=np.uint64)[:, None, None]
_LOW, _HIGH = (0, 1) if sys.byteorder == "little" else (1, 0)
# One Philox call holds about 60 bytes a counter; so many at once bound it to 4 MB, and measure no slower than all at once.
_COUNTERS_AT_ONCE = 2**16
# Up to so many counters, long integers (10 to 30 us) beat array calls (45 us, of which 40 are for calling).
_COUNTERS_IN_INTEGERS = 96
# So many counters of whole rows at once stay within a core's cache: more are slower by the counter, and so are fewer.
_COUNTERS_OF_ROWS = 2**13
# Four neighbours share a counter; where most tokens of a row are asked for, all its counters are fewer.
_TOKENS_WORTH_SHARING = 512


def philox(counters: NDArray[np.uint32], keys: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Philox4x32-10 of many counters at once.

    ``counters`` is uint32 [4, N], ``keys`` uint32 [2, N] or [2, 1] (one key for all). Returns uint32 [4, N].
    """
    num_counters = counters.shape[1]
    multipliers = _filled(_MULTIPLIERS, num_counters, np.uint64)
    key_steps = np.array(_KEY_STEPS, dtype=np.uint32)[:, None]
    round_keys = keys.copy()
    # Words 0 and 2 are what a round multiplies; they live in the low halves of 64-bit cells, so that the product needs no
    # widening. A product's halves are read in place, crossed over (word 0 comes from word 2's product, and the reverse).
    factors = np.zeros((2, num_counters), dtype=np.uint64)
    words = factors.view(np.uint32)[:, _LOW::2]
    words[...] = counters[0::2]
    others = counters[1::2]
    products = np.empty((2, 2, num_counters), dtype=np.uint64)
    crossed = products.view(np.uint32)[:, ::-1]
    halves = [(products[i], crossed[i, :, _LOW::2], crossed[i, :, _HIGH::2]) for i in (0, 1)]
    for product, low, high in halves * 5:
        np.multiply(factors, multipliers, out=product)
        np.bitwise_xor(high, others, out=words)
        np.bitwise_xor(words, round_keys, out=words)
        round_keys += key_steps
        others = low
    return np.stack((words[0], others[0], words[1], others[1]))


def _filled(pair: tuple[int, int], width: int, dtype: type[np.uint64]) -> NDArray[np.uint64]:
    filled = np.empty((2, width), dtype=dtype)
    filled[0], filled[1] = pair
    return filled


def _philox_in_integers(counters: tuple[int, int, int, int], keys: tuple[int, int], ones: int) -> tuple[int, int, int, int]:
    """``philox`` of N counters packed into long integers: one 64-bit cell a counter, ``ones`` has a 1 in each cell.

    A 32-bit cell times a 32-bit constant fits its cell, so one multiplication of a long integer serves all counters.
    """
    (c0, c1, c2, c3), (k0, k1) = counters, keys
    low_halves, step0, step1 = _WORD * ones, _KEY_STEPS[0] * ones, _KEY_STEPS[1] * ones
    for _ in range(10):
        product0, product2 = _MULTIPLIERS[0] * c0, _MULTIPLIERS[1] * c2
        c0, c1 = (product2 >> 32 & low_halves) ^ c1 ^ k0, product2 & low_halves
        c2, c3 = (product0 >> 32 & low_halves) ^ c3 ^ k1, product0 & low_halves
        k0, k1 = k0 + step0 & low_halves, k1 + step1 & low_halves
    return c0, c1, c2, c3


def bits(seeds: ArrayLike, positions: ArrayLike, token_ids: ArrayLike) -> NDArray[np.uint32]:
    """The raw 32 random bits of each address.

    ``seeds`` (unsigned 64 bits), ``positions`` (from 0) and ``token_ids`` (0 to ``MAX_TOKEN_ID``) are flat; the first two
    may have one element, which then holds for all tokens. Returns uint32, one for each token.

    Raises ``ValueError`` when a position or a token id is out of range.
    """
    seed_array = np.atleast_1d(np.asarray(seeds, dtype=np.uint64))
    position_array = np.atleast_1d(np.asarray(positions, dtype=np.int64))
    token_array = np.atleast_1d(np.asarray(token_ids, dtype=np.int64))
    if not len(token_array):
        return np.empty(0, dtype=np.uint32)
    # Read as unsigned, a negative number is a huge one: one look for the largest finds both ends of the range.
    if position_array.view(np.uint64).max() > MAX_POSITION:
        raise ValueError("positions start at 0")
    if token_array.view(np.uint64).max() > MAX_TOKEN_ID:
        raise ValueError(f"token ids lie between 0 and {MAX_TOKEN_ID}")
    return _bits(seed_array, position_array, token_array)


def _bits(seeds: NDArray[np.uint64], positions: NDArray[np.int64], token_ids: NDArray[np.int64]) -> NDArray[np.uint32]:
    if len(seeds) == len(positions) == 1 and len(token_ids) > _TOKENS_WORTH_SHARING:
        size = int(token_ids.max()) + 1
        if size < 2 * len(token_ids):
            return _words(seeds, positions, np.arange(-(-size // _LANES))).T.ravel()[token_ids]
    words = _words(seeds, positions, token_ids >> 2)
    picked: NDArray[np.uint32] = words[token_ids & 3, np.arange(len(token_ids))]
    return picked


def bits_of_rows(seeds: NDArray[np.uint64], positions: NDArray[np.int64], size: int) -> NDArray[np.uint32]:
    """The raw bits of token ids 0 to ``size`` - 1 at R addresses: ``seeds`` uint64 [R], ``positions`` int64 [R] from 0.

    Returns uint32 [R, size]. Four tokens share a counter, and ``rows_at_once`` rows in one call cost less than half of what
    they cost one by one.
    """
    num_blocks = -(-size // _LANES)
    at_once = rows_at_once(size)
    drawn = np.empty((len(seeds), num_blocks, _LANES), dtype=np.uint32)
    for start in range(0, len(seeds), at_once):
        part = slice(start, start + at_once)
        _philox_of_rows(seeds[part, None], positions.view(np.uint64)[part, None], drawn[part])
    return drawn.reshape(len(seeds), -1)[:, :size]


def rows_at_once(size: int) -> int:
    """How many rows of ``size`` tokens fill one call."""
    return max(1, _COUNTERS_OF_ROWS // -(-size // _LANES))


def _philox_of_rows(seeds: NDArray[np.uint64], positions: NDArray[np.uint64], drawn: NDArray[np.uint32]) -> None:
    """``philox`` of counters 0 to B - 1 of R rows, written to ``drawn`` [R, B, 4]; ``seeds`` and ``positions`` are [R, 1].

    Every word has a 64-bit cell of its own, and a row's keys are added to it by broadcasting: of the ways that were measured
    (docs/log.md) the quickest for many counters, and the slowest for few.
    """
    shape = drawn.shape[:2]
    c0, c1, c2, c3, product0, product2 = (np.empty(shape, dtype=np.uint64) for _ in range(6))
    c0[:], c1[:], c2[:], c3[:] = np.arange(shape[1]), positions & _WORD_CELL, positions >> _HALF_CELL, RULE_WORD
    keys = (seeds & _WORD_CELL) + _ROUND_STEPS[0] & _WORD_CELL, (seeds >> _HALF_CELL) + _ROUND_STEPS[1] & _WORD_CELL
    for key0, key1 in zip(*keys, strict=True):
        np.multiply(c0, _MULTIPLIER_CELLS[0], out=product0)
        np.multiply(c2, _MULTIPLIER_CELLS[1], out=product2)
        for target, product, other, key in ((c0, product2, c1, key0), (c2, product0, c3, key1)):
            np.right_shift(product, _HALF_CELL, out=target)
            np.bitwise_xor(target, other, out=target)
            np.bitwise_xor(target, key, out=target)
            np.bitwise_and(product, _WORD_CELL, out=other)
    for lane, column in enumerate((c0, c1, c2, c3)):
        drawn[..., lane] = column


def _picked(column: NDArray[_Number], index: NDArray[np.int64] | slice) -> NDArray[_Number]:
    """Some of a column, or the one element that holds for all."""
    return column[index] if len(column) > 1 else column


def _words(seeds: NDArray[np.uint64], positions: NDArray[np.int64], blocks: NDArray[np.int64]) -> NDArray[np.uint32]:
    """All four words of each counter: uint32 [4, N]."""
    if len(blocks) <= _COUNTERS_IN_INTEGERS:
        return _words_in_integers(seeds, positions, blocks)
    if len(blocks) <= _COUNTERS_AT_ONCE:
        return _words_at_once(seeds, positions, blocks)
    parts = (slice(start, start + _COUNTERS_AT_ONCE) for start in range(0, len(blocks), _COUNTERS_AT_ONCE))
    words = [_words_at_once(_picked(seeds, part), _picked(positions, part), blocks[part]) for part in parts]
    return np.concatenate(words, axis=1)


def _words_at_once(seeds: NDArray[np.uint64], positions: NDArray[np.int64], blocks: NDArray[np.int64]) -> NDArray[np.uint32]:
    counters = np.empty((4, len(blocks)), dtype=np.uint32)
    counters[0] = blocks
    counters[1] = positions & _WORD
    counters[2] = positions >> 32
    counters[3] = RULE_WORD
    keys = np.empty((2, len(seeds)), dtype=np.uint32)
    keys[0] = seeds & np.uint64(_WORD)
    keys[1] = seeds >> np.uint64(32)
    return philox(counters, keys)


def _words_in_integers(
    seeds: NDArray[np.uint64], positions: NDArray[np.int64], blocks: NDArray[np.int64]
) -> NDArray[np.uint32]:
    count = len(blocks)
    ones = int.from_bytes(_ONE_CELL * count, "little")
    counters = (_packed(blocks, ones), _packed(positions & _WORD, ones), _packed(positions >> 32, ones), RULE_WORD * ones)
    keys = _packed(seeds & np.uint64(_WORD), ones), _packed(seeds >> np.uint64(32), ones)
    return _in_columns(_philox_in_integers(counters, keys, ones), count).astype(np.uint32)


def _in_columns(words: tuple[int, int, int, int], count: int) -> NDArray[np.uint64]:
    """Words packed into long integers as uint64 [4, count]."""
    cells = b"".join([word.to_bytes(8 * count, "little") for word in words])
    return np.frombuffer(cells, dtype="<u8").reshape(_LANES, count)


def _packed(column: NDArray[_Number], ones: int) -> int:
    """A column of 32-bit numbers as one long integer; a single one stands in every cell."""
    if len(column) == 1:
        return int(column[0]) * ones
    return int.from_bytes(column.astype("<u8").tobytes(), "little")


def rough_odds(drawn: NDArray[np.uint32]) -> NDArray[np.float32]:
    """About exp(-noise) of raw bits: within 1 % above, and never below ``SURE_ODDS`` / 2; in float32, which is fast."""
    odds = drawn.astype(np.float32)
    odds += np.float32(0.5)
    odds *= np.float32(2.0**-32)
    np.log(odds, out=odds)
    np.negative(odds, out=odds)
    return np.maximum(odds, SURE_ODDS, out=odds)


def gumbel_of(drawn: NDArray[np.uint32]) -> NDArray[np.float64]:
    """Raw bits to Gumbel noise: float64, in [``GUMBEL_MIN``, ``GUMBEL_MAX``]."""
    cells = (drawn.astype(np.float64) + 0.5) * 2.0**-32
    for _ in range(2):
        np.log(cells, out=cells)
        np.negative(cells, out=cells)
    return cells


def least_bits(value: float) -> int:
    """Bits that noise of ``value`` and above cannot fall short of; noise a little below may have them, too."""
    # A millionth is far more than all roundings of both logarithms; two are more than those of the bits.
    return max(0, math.floor(2**32 * math.exp(-math.exp(-max(value - 1e-6, GUMBEL_MIN)))) - 2)


def gumbel(seeds: ArrayLike, positions: ArrayLike, token_ids: ArrayLike) -> NDArray[np.float64]:
    """Gumbel noise of each address; arguments and errors as for ``bits``. Returns float64, one for each token."""
    return gumbel_of(bits(seeds, positions, token_ids))


def bits_of_tokens(seed: int, position: int, token_ids: NDArray[np.int64]) -> NDArray[np.uint32]:
    """``bits`` of several tokens (at least one) at one position, without its checks but that of the position."""
    if position < 0:
        raise ValueError("positions start at 0")
    if len(token_ids) > _COUNTERS_IN_INTEGERS:
        return _bits(np.array([seed], dtype=np.uint64), np.array([position], dtype=np.int64), token_ids)
    count = len(token_ids)
    ones = int.from_bytes(_ONE_CELL * count, "little")
    counters = (_packed(token_ids >> 2, ones), (position & _WORD) * ones, (position >> 32) * ones, RULE_WORD * ones)
    words = _in_columns(_philox_in_integers(counters, ((seed & _WORD) * ones, (seed >> 32) * ones), ones), count)
    picked: NDArray[np.uint32] = words[token_ids & 3, np.arange(count)].astype(np.uint32)
    return picked
