"""A model as its configuration and tokenizer describe it: all that is needed of a full model that runs elsewhere.

With ``described.json`` (``describing.py`` writes it) it is a certain model, weights and all: the file has the SHA-256 of what
is not here, so that a device which has no room for a full model is one with a verifier that has it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from speculation.engines.base import Engine
from speculation.engines.files import CONFIG_LIMIT_BYTES, confined, read_bounded_json, require
from speculation.engines.layouts import layout_of
from speculation.engines.providers import Provider
from speculation.engines.published import DESCRIBING, PublishedFolder, described_facts
from speculation.errors import PackageError, UnknownNameError

ELSEWHERE = "elsewhere"
"""What stands for a graph where there is none."""
DESCRIPTION, SCHEMA_VERSION = "described.json", 1
SHA256 = re.compile("[0-9a-f]{64}")


class DescribedFolder(PublishedFolder):
    """A ``Model`` of ``config.json``, ``generation_config.json`` where there is one, and ``tokenizer.json``.

    It has no graph, so ``engine`` refuses with what would be right. Two folders are the same model where these files are the
    same, and ``described.json``, which one may have. Raises ``PackageError`` where a file says nothing usable, or is not the
    one that was described.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, described_facts(path))
        self._recorded = _recorded(path) if (path / DESCRIPTION).is_file() else None

    @cached_property
    def digests(self) -> Mapping[str, str]:
        """Of what is here, and, as it was described, of what is not."""
        here = super().digests
        if self._recorded is None:
            return here
        told = {name: digest for name, digest in self._recorded.items() if name in DESCRIBING}
        wrong = sorted(name for name in here.keys() | told.keys() if here.get(name) != told.get(name))
        right = f"describe it anew, or take away {DESCRIPTION}"
        require(not wrong, f"{self.path}: {', '.join(wrong)} is not what {DESCRIPTION} was written beside; {right}")
        return dict(self._recorded)

    @property
    def variants(self) -> tuple[str, ...]:
        return (ELSEWHERE,)

    @property
    def num_parameters(self) -> int:
        """Not known."""
        return 0

    def weight_bytes(self, variant: str) -> int:
        """Not known."""
        self._check(variant)
        return 0

    def kv_bytes_per_token(self, variant: str) -> None:
        """Not known."""
        self._check(variant)

    def _check(self, variant: str) -> None:
        if variant != ELSEWHERE:
            raise UnknownNameError(f"variant of {self.name}", variant, self.variants, "variant")

    def engine(self, variant: str, num_slots: int, threads: int, provider: Provider = Provider.CPU) -> Engine:
        """Raises ``PackageError``: there is nothing to load."""
        try:
            layout_of(self.path)
        except PackageError as error:
            told = f"{error}; or say where a server runs it (full_url of the verifier)"
            if self._recorded is not None:
                told = f"{self.path} only describes a model, for devices ({DESCRIPTION}); the verifier needs the model itself"
            raise PackageError(told) from error
        raise PackageError(f"{self.path} has a graph by now; start again")


def _recorded(path: Path) -> Mapping[str, str]:
    """The digests that a description has, by the names of the files. Raises ``PackageError``."""
    value: Any = read_bounded_json(confined(path, DESCRIPTION, "model"), CONFIG_LIMIT_BYTES)
    is_known = isinstance(value, dict) and value.get("schema_version") == SCHEMA_VERSION
    require(is_known, f"{path / DESCRIPTION} must be an object with schema_version {SCHEMA_VERSION}; describe the model anew")
    digests: Any = value.get("files")
    are_digests = isinstance(digests, dict) and all(isinstance(d, str) and SHA256.fullmatch(d) for d in digests.values())
    require(are_digests and bool(digests), f"{path / DESCRIPTION}: files must have the SHA-256 of each file, in hexadecimal")
    return dict(digests)
