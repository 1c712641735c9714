"""Ed25519 keys in PEM files, for signed updates of a store."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from device_agent.retrieval.extra import library
from speculation.errors import DeltaSignatureError, InvalidRequestError

SIGNATURE_BYTES = 64
MAX_KEY_BYTES = 16 * 1024
CONTEXT = b"outrider rag delta 1\n"
"""Signed before every update, so that a signature of anything else with the same key is none of it."""


def make_keys(private: Path, public: Path) -> None:
    """A new pair of keys in two new files, or in none; the private one is its owner's alone. Raises ``InvalidRequestError``."""
    serialization, ed25519 = _serialization(), _ed25519()
    key = ed25519.Ed25519PrivateKey.generate()
    encoding, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    _write_new(private, key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain), 0o600)
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    try:
        _write_new(public, key.public_key().public_bytes(encoding, form), 0o644)
    except BaseException:
        private.unlink(missing_ok=True)  # beside another public key, or none, it would be taken for its half
        raise


def sign(key_file: Path, content: bytes) -> bytes:
    """Raises ``InvalidRequestError`` for a file that holds no private key."""
    key = _loaded(key_file, "load_pem_private_key", "a private key", password=None)
    if not isinstance(key, _ed25519().Ed25519PrivateKey):
        raise _no_key(key_file, "a private key")
    signature: bytes = key.sign(CONTEXT + content)
    return signature


def check(key_file: Path, content: bytes, signature: bytes, name: str) -> None:
    """Raises ``DeltaSignatureError`` unless the key's owner signed this, ``InvalidRequestError`` for a file without a key."""
    key = _loaded(key_file, "load_pem_public_key", "a public key")
    if not isinstance(key, _ed25519().Ed25519PublicKey):
        raise _no_key(key_file, "a public key")
    try:
        key.verify(signature, CONTEXT + content)
    except library("cryptography.exceptions").InvalidSignature as error:
        raise DeltaSignatureError(
            f"{name} is not signed with the key of {key_file}, or was changed since: get it again from who holds that key"
        ) from error


def _loaded(path: Path, loader: str, what: str, **options: Any) -> Any:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_KEY_BYTES)
        return getattr(_serialization(), loader)(content, **options)
    except OSError as error:
        raise InvalidRequestError(f"{path} cannot be read: {error.strerror}", "key") from error
    except (ValueError, TypeError, library("cryptography.exceptions").UnsupportedAlgorithm) as error:
        raise _no_key(path, what) from error


def _no_key(path: Path, what: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"{path} is not {what} for Ed25519 in PEM, without a passphrase: make keys with rag delta keys", "key"
    )


def _write_new(path: Path, content: bytes, mode: int) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
        except BaseException:
            path.unlink(missing_ok=True)  # else nothing would be a key that is never written over
            raise
    except FileExistsError as error:
        if not path.exists():  # a file stands where the folder should
            raise InvalidRequestError(f"{path} cannot be made: {path.parent} is no folder", "key") from error
        raise InvalidRequestError(f"{path} is there already; a key is never written over", "key") from error
    except OSError as error:
        raise InvalidRequestError(f"{path} cannot be made: {error.strerror}", "key") from error


def _serialization() -> Any:
    return library("cryptography.hazmat.primitives.serialization")


def _ed25519() -> Any:
    return library("cryptography.hazmat.primitives.asymmetric.ed25519")
