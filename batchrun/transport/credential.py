"""Turns two environment variables into the one credential header of a run.

Contract 1: `ANTHROPIC_AUTH_TOKEN` goes as `Authorization: Bearer …`, `ANTHROPIC_API_KEY` as `x-api-key: …`;
`[endpoint] auth` overrides which way the value goes. Where both are set, the bearer token is sent and the
key is not: a token is what a gateway in front asks for, and two credentials in one request are refused by
some. With `auth` given, the variable that is named after that way is preferred, and the other one's value
goes that way where it is alone. With none set, none is sent.

The value is checked here, once, so that it can neither split a header nor turn up in an error later; it
stays in a `Secret`. This module refuses to know where requests go.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from msgspec import Struct

from batchrun.errors import UsageError
from batchrun.job import Endpoint
from batchrun.records import Secret

Way = Literal["bearer", "x-api-key", "none"]

TOKEN_VARIABLE: Final = "ANTHROPIC_AUTH_TOKEN"  # noqa: S105 - the name of a variable, not a token
KEY_VARIABLE: Final = "ANTHROPIC_API_KEY"

_PREFERRED: Final = {"bearer": (TOKEN_VARIABLE, KEY_VARIABLE), "x-api-key": (KEY_VARIABLE, TOKEN_VARIABLE)}
_SHORTEST_REDACTED: Final = 6  # a shorter value would blank out ordinary words
REDACTED: Final = "[credential]"


class Credential(Struct, frozen=True, kw_only=True):
    """What proves who is calling, and the way it goes. Its `repr` shows the way and nothing of the value."""

    way: Way = "none"
    secret: Secret | None = None

    @classmethod
    def from_environment(cls, endpoint: Endpoint, environ: Mapping[str, str]) -> Credential:
        """Return the credential that `environ` holds for `endpoint`; the variables are as the module says.

        Raises `UsageError`, which names the variable and never its value, for a value that no header can carry.
        """
        if endpoint.auth == "none":
            return cls()
        way = endpoint.auth or ("bearer" if _value(environ, TOKEN_VARIABLE) else "x-api-key")
        for variable in _PREFERRED[way]:
            value = _value(environ, variable)
            if value:
                _check(variable, value)
                return cls(way=way, secret=Secret(value))
        return cls()

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Return the header that carries the credential: one pair, or none. For the request head only."""
        if self.secret is None:
            return []
        value = self.secret.reveal().encode("latin-1")
        return [(b"authorization", b"Bearer " + value)] if self.way == "bearer" else [(b"x-api-key", value)]

    def redact(self, text: str) -> str:
        """Return `text` without the credential: some servers echo the request's headers in their errors."""
        value = self.secret.reveal() if self.secret is not None else ""
        return text.replace(value, REDACTED) if len(value) >= _SHORTEST_REDACTED else text


def _value(environ: Mapping[str, str], variable: str) -> str:
    """Return the variable's value less the blanks around it; unset and blank are the same."""
    return environ.get(variable, "").strip(" \t")


def _check(variable: str, value: str) -> None:
    """Refuse what a header cannot carry, without showing it."""
    if not value.isprintable():
        raise UsageError(
            f"the environment variable {variable} holds a line break or another control character",
            hint=f"set {variable} again, without the character; `printenv {variable} | od -c` shows where it is",
        )
    if any(ord(character) > 0xFF for character in value):
        raise UsageError(
            f"the environment variable {variable} holds a character that no HTTP header can carry",
            hint=f"set {variable} again: credentials are plain ASCII",
        )
