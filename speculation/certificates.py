"""Certificates on disk, in PEM, checked before anything is started: what is wrong is told by name, not by a handshake."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from speculation.errors import ConfigurationError

CERTIFICATE = "-----BEGIN CERTIFICATE-----"
CERTIFICATE_END = "-----END CERTIFICATE-----"
PRIVATE_KEY = "PRIVATE KEY-----"
GRPC_KINDS = tuple(map(bytes.fromhex, ("06092a864886f70d010101", "06082a8648ce3d030107", "06052b81040022")))
"""What a certificate holds whose key is RSA, or lies on P-256 or P-384: gRPC agrees on a signature with no other. It starts all
the same, and tells neither end why no connection comes about."""


@dataclass(frozen=True, slots=True)
class ClientTls:
    """How one end calls another over TLS: the authorities that it trusts, and, where it is asked who it is, its certificate.

    ``name`` is what the other end's certificate must be for, where that is not the host that is called.
    """

    authorities: Path
    certificate: Path | None = None
    key: Path | None = None
    name: str | None = None

    def context(self) -> ssl.SSLContext:
        """For the standard library; HTTP/2 is offered."""
        context = ssl.create_default_context(cafile=self.authorities)
        context.set_alpn_protocols(["h2"])
        if self.certificate is not None:
            context.load_cert_chain(self.certificate, self.key, password=_no_password)
        return context


def require_pair(certificate_name: str, certificate: Path | None, key_name: str, key: Path | None) -> None:
    """Raises ``ConfigurationError`` unless there are a certificate and its own key, or neither."""
    if (certificate is None) != (key is None):
        raise ConfigurationError(f"{certificate_name} and {key_name}: one is of no use without the other; give both or neither")
    if certificate is None or key is None:
        return
    _require(certificate_name, certificate, CERTIFICATE, "certificate")
    _require(key_name, key, PRIVATE_KEY, "private key")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password=_no_password)
    except ssl.SSLError as error:
        raise ConfigurationError(
            f"{certificate_name} and {key_name}: {certificate} and {key} must be a certificate and its own key,"
            f" without a password ({_reason(error)})"
        ) from error


def require_grpc_pair(certificate_name: str, certificate: Path | None, key_name: str, key: Path | None) -> None:
    """``require_pair`` for an end that speaks gRPC: of a kind that it takes, too."""
    require_pair(certificate_name, certificate, key_name, key)
    if certificate is None:
        return
    first = certificate.read_text("ascii", "replace").partition(CERTIFICATE)[2].partition(CERTIFICATE_END)[0]
    try:
        content = ssl.PEM_cert_to_DER_cert(f"{CERTIFICATE}{first}{CERTIFICATE_END}")
    except ValueError:
        return  # PEM in a form that OpenSSL reads, and this does not
    if not any(kind in content for kind in GRPC_KINDS):
        raise ConfigurationError(
            f"{certificate_name}: the key of {certificate} is of a kind that gRPC makes no connection with;"
            " take one of RSA, or on P-256 or P-384"
        )


def require_authorities(name: str, path: Path | None) -> None:
    """Raises ``ConfigurationError`` for a path that is not of certificates of authorities."""
    if path is None:
        return
    _require(name, path, CERTIFICATE, "certificate")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except ssl.SSLError as error:
        raise ConfigurationError(f"{name}: {path} holds a certificate that cannot be read ({_reason(error)})") from error


def _require(name: str, path: Path, mark: str, kind: str) -> None:
    try:
        text = path.read_text("ascii", "replace")
    except OSError as error:
        raise ConfigurationError(f"{name}: {path} cannot be read: {error.strerror}") from error
    if mark not in text:
        raise ConfigurationError(f"{name}: {path} must be a {kind} in PEM, and holds no such thing")


def _reason(error: ssl.SSLError) -> str:
    return (error.reason or str(error)).replace("_", " ").lower()


def _no_password() -> str:
    """Else a key with a password would make OpenSSL ask for it at the terminal."""
    return ""
