"""Traces of what the real pair says, as values and as one committed file. Pure but for reading and writing that file.

A trace is one prompt continued by the full model, with the draft's proposal behind every prefix of that path, and with the
draft's own continuations of its proposals that the full model did not take. Proposals are kept in the agent's terms
(``speculation.choice.choose_ranked``): the first few tokens, and a confidence in each.

The file is an ``.npz``: a header in JSON, and columns of small integers in the order of the traces. No time and no name of a
machine is in it: the same traces give the same bytes. Files of version 1 hold two choices; they are read as they are.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SCHEMA_VERSION = 2
_READABLE_VERSIONS = (1, SCHEMA_VERSION)
UNIT, BRANCH_UNIT = 1e-4, 4e-3
"""What confidences and probabilities are rounded to, on the path and beside it. The path's are measured; those beside it, most
of the file, only steer what a device drafts in vain."""

RECORD = "python -m benchmarks.traces --record --fill docs/benchmarks.md"
BUNDLED = Path(__file__).parent / "traces" / "pydoc.npz"
FIRST, SECOND = 0, 1
PLACES = ("first", "second", "third", "fourth")
"""What the columns of choices are called."""

NO_TOKEN = -1
"""Stands for a third choice, or one behind it, beside the path: its name would be much of the file, and changes nothing."""

_LARGEST_VOCABULARY = 2**16

Columns = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Proposals:
    """What the draft says behind consecutive prefixes: its first choices, int64 [n, c], and its confidences, float64 [n, c].

    ``c`` is the same all over a recording, two at least.
    """

    token_ids: NDArray[np.int64]
    confidences: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.token_ids)


@dataclass(frozen=True, slots=True)
class Branch:
    """A proposal that the full model did not take, and what the draft says behind it, each time its own choice taken.

    The proposal is that of ``rank`` (``FIRST``, ``SECOND``, ...) at the path's generated token ``offset``.
    """

    offset: int
    rank: int
    said: Proposals


@dataclass(frozen=True, slots=True)
class Trace:
    """One prompt at one temperature. ``said`` and ``probabilities`` have a row for each of the ``n`` generated ``token_ids``.

    ``probabilities`` [n, 2]: the draft's probability of its first two tokens at the temperature (at 1 for a greedy choice),
    without noise. A path shorter than asked for ends with an end token.
    """

    prompt: str
    prompt_length: int
    temperature: float
    seed: int
    token_ids: NDArray[np.int64]
    said: Proposals
    probabilities: NDArray[np.float64]
    branches: Sequence[Branch]

    @property
    def hits(self) -> NDArray[np.bool_]:
        """Where the draft's choice is the full model's."""
        return np.asarray(self.said.token_ids[:, FIRST] == self.token_ids)

    @property
    def is_at(self) -> NDArray[np.bool_]:
        """Bool [n, c]: which of the draft's choices is the full model's; none, in most rows that missed."""
        return np.asarray(self.said.token_ids == self.token_ids[:, None])


@dataclass(frozen=True, slots=True)
class Recording:
    """All traces of one pair. ``parameters`` tells how they were recorded."""

    pair: str
    pair_digest: str
    vocabulary_size: int
    end_token_ids: tuple[int, ...]
    parameters: dict[str, object]
    traces: Sequence[Trace]


def save(recording: Recording, path: Path) -> None:
    """Raises ``ValueError`` for a vocabulary that does not fit the columns."""
    if recording.vocabulary_size > _LARGEST_VOCABULARY:
        raise ValueError(f"a trace file holds vocabularies up to {_LARGEST_VOCABULARY}, not {recording.vocabulary_size}")
    traces = recording.traces
    branches = [branch for trace in traces for branch in trace.branches]
    columns: Columns = {
        "header": np.array(json.dumps(_header(recording), indent=1)),
        "token_ids": np.concatenate([trace.token_ids for trace in traces]).astype("<u2"),
        "probabilities": _to_units(np.concatenate([trace.probabilities for trace in traces]), UNIT),
        "branch_offsets": np.array([branch.offset for branch in branches], "<u2"),
        "branch_ranks": np.array([branch.rank for branch in branches], "u1"),
        "branch_lengths": np.array([len(branch.said) for branch in branches], "u1"),
        **_proposal_columns("path", [trace.said for trace in traces], UNIT),
        **_proposal_columns("branch", [branch.said for branch in branches], BRANCH_UNIT),
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, column in columns.items():
            # An entry made by hand has the zip format's first date, and not today's.
            entry = zipfile.ZipInfo(f"{name}.npy")
            entry.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(entry, "w") as file:
                np.lib.format.write_array(file, column, allow_pickle=False)


def load(path: Path = BUNDLED) -> Recording:
    """Raises ``ValueError`` where the file is of another schema."""
    with np.load(path) as columns:
        header = json.loads(str(columns["header"]))
        if header["schema_version"] not in _READABLE_VERSIONS:
            raise ValueError(
                f"{path} has schema version {header['schema_version']}, this code reads {SCHEMA_VERSION}; run: {RECORD}"
            )
        traces = _traces(header["traces"], {name: columns[name] for name in columns.files if name != "header"})
    return Recording(
        pair=header["pair"],
        pair_digest=header["pair_digest"],
        vocabulary_size=header["vocabulary_size"],
        end_token_ids=tuple(header["end_token_ids"]),
        parameters=header["parameters"],
        traces=traces,
    )


def _header(recording: Recording) -> dict[str, object]:
    return {
        "schema_version": SCHEMA_VERSION,
        "pair": recording.pair,
        "pair_digest": recording.pair_digest,
        "vocabulary_size": recording.vocabulary_size,
        "end_token_ids": recording.end_token_ids,
        "parameters": recording.parameters,
        "traces": [
            {
                "prompt": trace.prompt,
                "prompt_length": trace.prompt_length,
                "temperature": trace.temperature,
                "seed": trace.seed,
                "num_tokens": len(trace.token_ids),
                "num_branches": len(trace.branches),
            }
            for trace in recording.traces
        ],
    }


def _to_units(shares: NDArray[np.float64], unit: float) -> NDArray[Any]:
    """Whole numbers of units, in as few bytes as hold the largest."""
    return np.round(shares / unit).astype("u1" if 1 / unit < 2**8 else "<u2")


def _proposal_columns(name: str, said: Sequence[Proposals], unit: float) -> Columns:
    """Two columns a choice: what is alike lies together, which packs better. A choice without names has confidences alone."""
    token_ids = np.concatenate([p.token_ids for p in said]) if said else np.empty((0, SECOND + 1), np.int64)
    confidences = np.concatenate([p.confidences for p in said]) if said else np.empty((0, SECOND + 1))
    columns: Columns = {}
    for place, tokens, shares in zip(PLACES, token_ids.T, confidences.T, strict=False):
        if (tokens != NO_TOKEN).all():
            columns[f"{name}_{place}"] = tokens.astype("<u2")
        columns[f"{name}_{place}_confidence"] = _to_units(shares, unit)
    return columns


def _proposals(name: str, columns: Columns, unit: float) -> Proposals:
    said = [columns[f"{name}_{place}_confidence"] for place in PLACES if f"{name}_{place}_confidence" in columns]
    nameless = np.full(len(said[FIRST]), NO_TOKEN)
    token_ids = [columns.get(f"{name}_{place}", nameless) for place in PLACES[: len(said)]]
    units = np.stack(said, axis=1).astype(np.float64)
    return Proposals(np.stack([tokens.astype(np.int64) for tokens in token_ids], axis=1), units * unit)


def _traces(headers: Sequence[dict[str, Any]], columns: Columns) -> list[Trace]:
    branches = _branches(columns)
    said, start, traces = _proposals("path", columns, UNIT), 0, []
    token_ids, probabilities = columns["token_ids"].astype(np.int64), columns["probabilities"].astype(np.float64) * UNIT
    for header in headers:
        end = start + header["num_tokens"]
        part = slice(start, end)
        traces.append(
            Trace(
                prompt=str(header["prompt"]),
                prompt_length=header["prompt_length"],
                temperature=float(header["temperature"]),
                seed=header["seed"],
                token_ids=token_ids[part],
                said=_part(said, part),
                probabilities=probabilities[part],
                branches=[next(branches) for _ in range(header["num_branches"])],
            )
        )
        start = end
    return traces


def _branches(columns: Columns) -> Iterator[Branch]:
    said, start = _proposals("branch", columns, BRANCH_UNIT), 0
    heads = (columns[f"branch_{name}"].tolist() for name in ("offsets", "ranks", "lengths"))
    for offset, rank, length in zip(*heads, strict=True):
        yield Branch(offset, rank, _part(said, slice(start, start + length)))
        start += length


def _part(said: Proposals, part: slice) -> Proposals:
    return Proposals(said.token_ids[part], said.confidences[part])
