"""Why no connection to a verifier comes about: gRPC tells only that none does, so one handshake is tried by hand."""

from __future__ import annotations

import asyncio
import ssl

from speculation.certificates import ClientTls

LIMIT_S = 2.0


async def fault_of(target: str, tls: ClientTls | None) -> str | None:
    """What does not fit at ``target`` (``host:port``), and what would be right; None where nobody answers or all fits."""
    try:
        async with asyncio.timeout(LIMIT_S):
            return await (_fault_of_plain(target) if tls is None else _fault_of_tls(target, tls))
    except (OSError, TimeoutError):
        return None


async def _fault_of_plain(target: str) -> str | None:
    """Whether the other end speaks TLS, whoever it is."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        await _is_heard(target, context)
    except ssl.SSLError:
        return None
    return f"the verifier at {target} speaks TLS: name the authority that signed its certificate as verifier_ca"


async def _fault_of_tls(target: str, tls: ClientTls) -> str | None:
    try:
        if await _is_heard(target, tls.context(), tls.name):
            return None
    except ssl.SSLCertVerificationError as error:
        return (
            f"the certificate of the verifier at {target} does not hold ({error.verify_message}): verifier_ca must have signed"
            f" it, and it must be for {'this host' if tls.name is None else tls.name}"
        )
    except (ssl.SSLError, ConnectionResetError):
        return f"the verifier at {target} speaks no TLS: leave out verifier_ca, or set tls_cert and tls_key there"
    if tls.certificate is None:
        return f"the verifier at {target} wants a certificate: set verifier_cert and verifier_cert_key"
    # It says nothing of why: gRPC's server closes the connection without an alert.
    return (
        f"the verifier at {target} does not take the certificate of verifier_cert: its tls_client_ca must have signed it,"
        " and it must not have expired"
    )


async def _is_heard(target: str, context: ssl.SSLContext, name: str | None = None) -> bool:
    """Whether a server of HTTP/2, which speaks first, says something behind the handshake. One that does not take the client's
    certificate closes the connection instead, with an alert or without.

    Raises ``OSError`` where nobody listens, ``ssl.SSLError`` or ``ConnectionResetError`` where the handshake fails.
    """
    host, _, port = target.rpartition(":")
    host = host.strip("[]")
    reader, writer = await asyncio.open_connection(host, int(port), ssl=context, server_hostname=name or host)
    try:
        return bool(await reader.read(1))
    except OSError:
        return False
    finally:
        writer.transport.abort()
