"""Certificates for tests: made anew each time, by an authority that nobody else knows."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519


@dataclass(frozen=True, slots=True)
class Files:
    """What an authority has signed, on disk."""

    ca: Path
    cert: Path
    key: Path


def made(folder: Path, name: str, host: str = "127.0.0.1", not_after: datetime | None = None) -> Files:
    """An authority of that name, and a certificate for ``host`` that it signed."""
    authority = trustme.CA()
    signed = authority.issue_cert(host, not_after=not_after)
    files = Files(folder / f"{name}-ca.pem", folder / f"{name}-cert.pem", folder / f"{name}-key.pem")
    authority.cert_pem.write_to_path(files.ca)
    signed.cert_chain_pems[0].write_to_path(files.cert)
    signed.private_key_pem.write_to_path(files.key)
    return files


def signed_by_itself(folder: Path, key: Any) -> Files:
    """A certificate for 127.0.0.1 of a key of any kind, which is its own authority."""
    name, now = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")]), datetime.now(UTC)
    begun = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    begun = begun.serial_number(1).not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    signed = begun.sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256())
    files = Files(*(folder / f"itself-{part}.pem" for part in ("cert", "cert", "key")))
    files.cert.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.PKCS8
    files.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    return files
