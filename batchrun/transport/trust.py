"""Makes the one `SSLContext` of a transport: who is trusted, the same in every transport.

Always verified. `endpoint.ca_file` replaces the authorities that are trusted; without it `SSL_CERT_FILE` and
`SSL_CERT_DIR` do, as OpenSSL's own tools have it; without those it is the Mozilla bundle that httpx uses too.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping

from batchrun.errors import UsageError


def client_context(ca_file: str | None, environ: Mapping[str, str]) -> ssl.SSLContext:
    """Return a verifying client context; raises `UsageError` where the authorities cannot be read."""
    file = ca_file or environ.get("SSL_CERT_FILE")
    folder = None if file else environ.get("SSL_CERT_DIR")
    if not file and not folder:
        import certifi  # noqa: PLC0415 - only where https and the default authorities are used

        file = certifi.where()
    try:
        context = ssl.create_default_context(cafile=file, capath=folder)
    except (OSError, ssl.SSLError) as error:
        named = "endpoint.ca_file" if ca_file else "SSL_CERT_FILE or SSL_CERT_DIR"
        reason = error.strerror or "not a file of PEM certificates"
        raise UsageError(f"{named}: cannot read {file or folder}: {reason}", hint="name a file of PEM certificates") from None
    context.options |= ssl.OP_NO_RENEGOTIATION  # so that no write ever has to wait for what is read
    return context
