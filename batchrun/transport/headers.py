"""Turns an endpoint and a credential into the header fields that every request carries.

The job's own `headers` are laid over the defaults (a name replaces the default of that name, whatever its
case) after they have been checked: a field that a job file must not hold (a credential) or that belongs
to the connection is a `JobError`, which names them all. Accept-Encoding is never sent unless the job asks for
it, so bodies come unencoded by default. This module refuses to know where the request goes.
"""

from __future__ import annotations

import re
from typing import Final

from batchrun import __version__
from batchrun.errors import JobError, Problem
from batchrun.job import Endpoint
from batchrun.transport.credential import KEY_VARIABLE, TOKEN_VARIABLE, Credential

_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2: a token
_CREDENTIAL: Final = re.compile(r"authorization|api[-_]?key|cookie|secret|password|credential|(^|[-_])token$|subscription-key")
_OF_THE_CONNECTION: Final = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "keep-alive", "te", "trailer", "upgrade", "expect"}
)


def request_headers(endpoint: Endpoint, credential: Credential) -> list[tuple[bytes, bytes]]:
    """Return the fields of every request but Host, Accept, Content-Type and Content-Length; the credential is last.

    Raises `JobError` for each name and value in `endpoint.headers` that may not be there, and for a version that cannot be sent.
    """
    problems = _unsendable("endpoint.version", endpoint.version)
    for name, value in endpoint.headers.items():
        problems += _of_header(name, value)
    if problems:
        raise JobError(problems)
    fields = {"user-agent": f"batchrun/{__version__}", "anthropic-version": endpoint.version}
    fields |= {name.lower(): value.strip(" \t") for name, value in endpoint.headers.items()}
    encoded = [(name.encode("ascii"), value.encode("latin-1")) for name, value in fields.items()]
    return [*encoded, *credential.headers()]


def _of_header(name: str, value: str) -> list[Problem]:
    """Report what is wrong with one header: its name before its value."""
    where, lower = f"endpoint.headers.{name!r}", name.lower()
    if _NAME.fullmatch(name) is None:
        return [Problem(message="is not a header name", field=where, hint='a name is letters, digits and "-"')]
    if lower in _OF_THE_CONNECTION:
        return [Problem(message="belongs to the connection and cannot be set", field=where, hint="remove it")]
    if _CREDENTIAL.search(lower):
        message = "looks like a credential, which a job file never holds"
        hint = f"set {TOKEN_VARIABLE} or {KEY_VARIABLE} in the environment; endpoint.auth says which way it goes"
        return [Problem(message=message, field=where, hint=hint)]
    return _unsendable(where, value)


def _unsendable(where: str, value: str) -> list[Problem]:
    """Report a value with a line break or a character outside Latin-1, and do not show it."""
    if value.replace("\t", "").isprintable() and all(ord(character) <= 0xFF for character in value):
        return []
    message = "holds a line break or a character that no header can carry"
    return [Problem(message=message, field=where, hint="use printable ASCII")]
