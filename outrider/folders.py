"""Folders that commands read: one that is not there is bad input (exit code 2), what is in it may be damaged (1)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from speculation.errors import InvalidRequestError


def existing(what: str) -> Callable[[Path], Path]:
    """A check of an argument: its folder is there. ``what`` says what would be right."""

    def checked(path: Path) -> Path:
        if not path.is_dir():
            raise InvalidRequestError(f"{path} is not a folder; {what}")
        return path

    return checked


def _folder(metavar: str, told: str, what: str) -> Any:
    return typer.Argument(metavar=metavar, help=told, callback=existing(what))


_PACKAGE = "a package is a folder with manifest.json in it"
_CHECKPOINT = "a checkpoint is a folder with config.json, tokenizer.json and model.safetensors"
_MODEL = "a model is a folder, such as one that was downloaded from a model hub"
_SHARDED = "A folder with config.json, tokenizer.json and model.safetensors, or shards."

PackageArgument = Annotated[Path, _folder("DIR", "The package: a folder with manifest.json.", _PACKAGE)]
CheckpointArgument = Annotated[Path, _folder("CHECKPOINT", _SHARDED, _CHECKPOINT)]
ModelArgument = Annotated[Path, _folder("MODEL", "A full model: a package, a checkpoint or an export.", _MODEL)]
