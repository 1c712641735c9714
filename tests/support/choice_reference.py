"""The choice rule, literally, from ``docs/choice-rule.md``: one token at a time, Python integers and floats, a full sort.

Written apart from the product; slow and plain on purpose. It made the golden vectors in ``tests/speculation/vectors``.
"""

import functools
import math

import numpy as np


def philox(counter, key):
    """Philox4x32-10 as its authors write it: ten rounds, the key bumped between them."""
    counter, key = list(counter), list(key)
    for number in range(10):
        if number:
            key = [(key[0] + 0x9E3779B9) % 2**32, (key[1] + 0xBB67AE85) % 2**32]
        high0, low0 = divmod(0xD2511F53 * counter[0], 2**32)
        high1, low1 = divmod(0xCD9E8D57 * counter[2], 2**32)
        counter = [high1 ^ counter[1] ^ key[0], low1, high0 ^ counter[3] ^ key[1], low0]
    return counter


@functools.lru_cache(maxsize=1 << 16)  # four tokens share a block, and one row is asked for again and again
def block(seed, position, number):
    counter = (number, position % 2**32, position // 2**32, 1)
    return philox(counter, (seed % 2**32, seed // 2**32))


def bits(seed, position, token_id):
    return block(seed, position, token_id // 4)[token_id % 4]


def gumbel(seed, position, token_id):
    return -math.log(-math.log((bits(seed, position, token_id) + 0.5) / 2**32))


def tokens_left(logits, parameters):
    """The scores and the tokens left by top-k, top-p and min-p, in order."""
    scores = [float(logit) / parameters.temperature for logit in logits]
    order = sorted(range(len(scores)), key=lambda token_id: (-scores[token_id], token_id))
    if parameters.top_k:
        order = order[: parameters.top_k]
    highest = scores[order[0]]
    if parameters.top_p < 1:
        weights = [round(math.exp(scores[token_id] - highest) * 2**32) for token_id in order]
        target, total, kept = parameters.top_p * float(sum(weights)), 0, 0
        while total < target:
            total, kept = total + weights[kept], kept + 1
        order = order[:kept]
    if parameters.min_p:
        order = [token_id for token_id in order if scores[token_id] - highest >= math.log(parameters.min_p)]
    return scores, order


def rated_tokens(logits, position, parameters):
    """What the tokens left are chosen by, and how many units of logits one unit of it is."""
    if parameters.temperature == 0:
        return {token_id: float(logit) for token_id, logit in enumerate(logits)}, 1.0
    scores, order = tokens_left(logits, parameters)
    return {t: scores[t] + gumbel(parameters.seed, position, t) for t in order}, parameters.temperature


def choose(logits, position, parameters):
    """The token, and by how many units of logits it leads the runner-up (infinity where there is none)."""
    rated, scale = rated_tokens(logits, position, parameters)
    ranking = sorted(rated, key=lambda token_id: (-rated[token_id], token_id))
    lead = (rated[ranking[0]] - rated[ranking[1]]) * scale if len(ranking) > 1 else math.inf
    return ranking[0], lead


def ranking(logits, position, parameters):
    """All tokens left, best first, and their softmax over what they are chosen by."""
    rated, _ = rated_tokens(logits, position, parameters)
    ranking = sorted(rated, key=lambda token_id: (-rated[token_id], token_id))
    weights = [math.exp(rated[token_id] - rated[ranking[0]]) for token_id in ranking]
    total = sum(weights)
    return ranking, [weight / total for weight in weights]


def made_logits(size, number):
    """Logits that anyone can make: multiples of 1/64 from -16 to below 16, by Knuth's multiplicative hash."""
    return np.array([((i + 1) * (number + 1) * 2654435761 % 2**32 >> 21) / 64 - 16 for i in range(size)], dtype=np.float32)
