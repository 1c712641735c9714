"""`outrider keys`: a folder with a key of one's own, and the file by which services let it in; made once."""

from __future__ import annotations

import json as json_format
import os
import secrets
import sys
from pathlib import Path
from typing import Annotated

import typer

from speculation.errors import ConfigurationError
from speculation.keys import read_key, read_keys
from speculation.tenants import bearer, digest_of

KEY, KEYS = "key", "keys.toml"
KEY_BYTES = 32


def keys_command(
    folder: Annotated[Path, typer.Argument(help="Where the key and the file of keys are.")],
    tenant: Annotated[str, typer.Option(metavar="NAME", help="Whose key it is.")] = "default",
    json: Annotated[bool, typer.Option("--json", help="Print where they are as one line of JSON.")] = False,
) -> None:
    """Make a random key in FOLDER (`key`), and the file that lets it in (`keys.toml`), unless they are there."""
    is_new = make_keys(folder, tenant)
    if json:
        print(json_format.dumps({"made": is_new, "key_file": str(folder / KEY), "keys_file": str(folder / KEYS)}))
        return
    print(f"{'made' if is_new else 'found'} {folder / KEY} and {folder / KEYS}", file=sys.stderr, flush=True)


def make_keys(folder: Path, tenant: str) -> bool:
    """Whether anything was made. What is there stays as it is: a key alone gets its file, a file without its key is an error.

    Raises ``ConfigurationError`` for what cannot be read or written, or does not fit together.
    """
    key_file, keys_file = folder / KEY, folder / KEYS
    if not tenant or not tenant.isprintable() or set(tenant) & set('"\\'):
        raise ConfigurationError("--tenant: a name without quotes and backslashes")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if keys_file.exists():
            _require_fitting(key_file, keys_file)
            return False
        if not key_file.exists():
            _write(key_file, secrets.token_urlsafe(KEY_BYTES) + "\n")
        digest = digest_of(read_key(key_file)).hex()
        _write(keys_file, f'[[keys]]\ntenant = "{tenant}"\nsha256 = "{digest}"\n')
    except OSError as error:
        raise ConfigurationError(f"no keys can be made in {folder}: {error.strerror}") from error
    return True


def _require_fitting(key_file: Path, keys_file: Path) -> None:
    if read_keys(keys_file).tenant_of(bearer(read_key(key_file))) is None:
        raise ConfigurationError(f"{keys_file} does not let in the key of {key_file}: remove one of them, or both")


def _write(path: Path, text: str) -> None:
    """For nobody else's eyes from the first moment, and whole or not at all."""
    staged = path.with_name(path.name + ".part")
    staged.unlink(missing_ok=True)
    descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    staged.replace(path)
