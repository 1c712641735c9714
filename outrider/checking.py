"""Whether a model's files are whole: each against its digest where a manifest has them, else by reading what loads."""

from __future__ import annotations

from pathlib import Path

from speculation.engines.exports import ExportFolder
from speculation.engines.files import checked
from speculation.engines.manifest import PAIR, Manifest
from speculation.engines.package import Package, load_pair
from speculation.engines.pairs import load_full
from speculation.errors import PackageError


def damages(package: Path, manifest: Manifest) -> list[str]:
    """What is wrong with the files of a package."""
    return [reason for reason in (_damage(package, name, manifest) for name in sorted(manifest.files)) if reason]


def verified_digest(path: Path) -> str:
    """The digest of a model or a pair, once its files are checked. Raises ``PackageError``."""
    if (path / PAIR).is_file():
        pair = load_pair(path)
        for half in (pair.draft, pair.full):
            _check_package(half)
        return pair.identity.pair_digest
    model = load_full(path)
    _ = model.tokenizer, model.chat_template
    if isinstance(model, Package):
        _check_package(model)
    if isinstance(model, ExportFolder):
        for variant in model.variants:
            model.graph(variant)
    return model.digest


def _check_package(package: Package) -> None:
    _ = package.tokenizer
    if damaged := damages(package.path, package.manifest):
        raise PackageError("; ".join(damaged))


def _damage(package: Path, name: str, manifest: Manifest) -> str | None:
    try:
        checked(package, name, manifest.files)
    except PackageError as error:
        return str(error)
    return None
