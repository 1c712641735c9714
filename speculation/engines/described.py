"""A model as its configuration and tokenizer describe it: all that is needed of a full model that a server elsewhere runs."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from speculation.engines.base import Engine
from speculation.engines.layouts import layout_of
from speculation.engines.providers import Provider
from speculation.engines.published import PublishedFolder, described_facts
from speculation.errors import PackageError, UnknownNameError

ELSEWHERE = "elsewhere"
"""What stands for a graph where there is none."""


class DescribedFolder(PublishedFolder):
    """A ``Model`` of ``config.json``, ``generation_config.json`` where there is one, and ``tokenizer.json``.

    It has no graph, so ``engine`` refuses with what would be right. Two folders are the same model where these files are the
    same. Raises ``PackageError`` where a file says nothing usable.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, described_facts(path))

    @property
    def variants(self) -> tuple[str, ...]:
        return (ELSEWHERE,)

    @property
    def num_parameters(self) -> int:
        """Not known."""
        return 0

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the SHA-256 of each file that is read."""
        return self._digest_over(())

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
            raise PackageError(f"{error}; or say where a server runs it (full_url of the verifier)") from error
        raise PackageError(f"{self.path} has a graph by now; start again")
