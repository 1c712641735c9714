"""What a model's makers suggest for a request that does not say: the sampling entries of ``generation_config.json``.

``docs/models.md`` is the rule in words. What would change the text and is not implemented is told, never applied in silence
and never passed over in silence.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from speculation.engines.files import require
from speculation.errors import InvalidRequestError, PackageError
from speculation.parameters import GenerationDefaults, SamplingParameters

SAMPLED = "do_sample"
NUMBERS = ("temperature", "top_k", "top_p", "min_p")
LIMIT = "max_new_tokens"
TOP_K_LIMIT = 2**31
NEUTRAL: Mapping[str, Any] = {
    "diversity_penalty": 0,
    "encoder_no_repeat_ngram_size": 0,
    "encoder_repetition_penalty": 1,
    "epsilon_cutoff": 0,
    "eta_cutoff": 0,
    "guidance_scale": 1,
    "min_length": 0,
    "min_new_tokens": 0,
    "no_repeat_ngram_size": 0,
    "num_beam_groups": 1,
    "num_beams": 1,
    "num_return_sequences": 1,
    "penalty_alpha": 0,
    "repetition_penalty": 1,
    "typical_p": 1,
}
"""Values at which entries that would change the text do not; others do not where they are null, false or empty."""

HARMLESS = frozenset(
    {
        "_from_model_config",
        "assistant_confidence_threshold",
        "assistant_early_exit",
        "assistant_lookbehind",
        "bos_token_id",
        "cache_config",
        "cache_implementation",
        "compile_config",
        "continuous_batching_config",
        "decoder_start_token_id",
        "disable_compile",
        "do_sample",
        "early_stopping",
        "eos_token_id",
        "is_assistant",
        "length_penalty",
        "low_memory",
        "max_cache_len",
        "max_length",
        "max_matching_ngram_size",
        "num_assistant_tokens",
        "num_assistant_tokens_schedule",
        "output_attentions",
        "output_hidden_states",
        "output_logits",
        "output_scores",
        "pad_token_id",
        "past_present_share_buffer",
        "prefill_chunk_size",
        "prompt_lookup_num_tokens",
        "random_seed",
        "return_dict_in_generate",
        "speculative_decoding_method",
        "target_lookbehind",
        "transformers_version",
        "trust_remote_code",
        "use_cache",
    }
)
"""Entries that change no text here: bookkeeping, how others compute, and ``max_length``, which says the context's again."""


def generation_defaults(entries: Any, source: str) -> GenerationDefaults:
    """From the object of a file that is called ``source``. Raises ``PackageError`` for a value that cannot be."""
    if not isinstance(entries, dict):
        raise PackageError(f"{source} must be a JSON object, not {type(entries).__name__}")
    given = {key: value for key, value in entries.items() if value is not None}
    is_sampled = given.get(SAMPLED, False)
    require(isinstance(is_sampled, bool), f"{source}: {SAMPLED} must be true or false, not {is_sampled!r}")
    numbers: dict[str, Any] = {key: _number(given, key, source) for key in NUMBERS if key in given}
    limit = _number(given, LIMIT, source) if LIMIT in given else None
    require(limit is None or limit >= 1, f"{source}: {LIMIT} must be at least 1, not {limit}")
    unused = [*_unused(given), *([] if is_sampled else _without_sampling(numbers))]
    found = GenerationDefaults(max_tokens=None if limit is None else int(limit), unused=tuple(unused))
    require(numbers.get("top_k", 0) < TOP_K_LIMIT, f"{source}: top_k must be below {TOP_K_LIMIT}, not {numbers.get('top_k')}")
    _check(numbers, source)
    return replace(found, **({"temperature": 1.0} | numbers)) if is_sampled else found


def _number(given: Mapping[str, Any], key: str, source: str) -> float:
    value = given[key]
    is_whole = key in ("top_k", LIMIT)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    is_number = is_number and (not is_whole or isinstance(value, int) or value.is_integer())
    # JSON has whole numbers of any length, and Python floats of none beyond this.
    is_number = is_number and (isinstance(value, float) or abs(value) <= sys.float_info.max)
    require(is_number, f"{source}: {key} must be a {'whole ' if is_whole else ''}number, not {_short(value)}")
    return int(value) if is_whole else float(value)


def _check(numbers: Mapping[str, Any], source: str) -> None:
    try:
        SamplingParameters(**numbers)
    except InvalidRequestError as error:
        raise PackageError(f"{source}: {error}") from error


def _without_sampling(numbers: Mapping[str, float]) -> Iterator[str]:
    """Entries that say how to sample, where the file does not say that it is to be sampled."""
    neutral = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
    for key, value in numbers.items():
        if value != neutral[key]:
            yield f"{key} = {value:g} ({SAMPLED} is not true)"


def _unused(given: Mapping[str, Any]) -> Iterator[str]:
    for key, value in given.items():
        if key in HARMLESS or key in NUMBERS or key == LIMIT:
            continue
        is_neutral = not isinstance(value, bool) and key in NEUTRAL and value == NEUTRAL[key]
        if not is_neutral and value not in (False, "", [], {}):
            yield f"{key} = {_short(value)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
