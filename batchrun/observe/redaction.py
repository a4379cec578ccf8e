"""Values of an event → the same values without secrets: by the name they go under, and by what they are.

By name: a text under a key such as `authorization` or `api_key`. By value: every credential of the environment and
of the job, wherever it stands inside a text. Numbers and truth values are no secrets (`input_tokens` is a count).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import quote, urlsplit

from batchrun.job import Job
from batchrun.storage.manifest import signatures

REDACTED: Final = "[redacted]"
SHORTEST: Final = 6  # a shorter value would blank out ordinary words
_SECRET_NAME: Final = re.compile(
    r"(^|[-_.])(api-?key|key|token|secret|password|passwd|authorization|auth|credentials?|cookie|signature)$|apikey$",
    re.IGNORECASE,
)
_SIGNAL: Final = re.compile(r"(/v1)?(/(traces|metrics|logs))?/?$")  # the end of a collector's path, which everybody knows
_SECRET_VARIABLE: Final = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL|CREDENTIALS)$")


class Redactor:
    """Takes secrets out of values; its `repr` shows none of them."""

    __slots__ = ("_values",)

    def __init__(self, values: Iterable[str]) -> None:
        """Take `values` out of every text, the longest first, where they are not too short to be told from words."""
        self._values = sorted({value for value in values if len(value) >= SHORTEST}, key=len, reverse=True)

    def text(self, text: str) -> str:
        """Return `text` without the secret values."""
        for value in self._values:
            if value in text:
                text = text.replace(value, REDACTED)
        return text

    def clean(self, value: Any) -> Any:
        """Return a JSON-like value without secrets, by name and by value, at any depth."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.text(str(name)): self._named(str(name), inner) for name, inner in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.clean(inner) for inner in value]
        return value

    def _named(self, name: str, value: Any) -> Any:
        secret = _SECRET_NAME.search(name) is not None and not isinstance(value, (bool, int, float, type(None)))
        return REDACTED if secret else self.clean(value)


def redactor_of(job: Job, environ: Mapping[str, str]) -> Redactor:
    """Return what takes the secrets of a job and of its environment out of a text."""
    values = [value.strip() for name, value in environ.items() if _SECRET_VARIABLE.search(name)]
    for name, value in environ.items():
        if name.startswith("OTEL_") and name.endswith("_HEADERS"):  # `name=value,name=value`
            values += [pair.partition("=")[2].strip() for pair in value.split(",")]
        if name.startswith("OTEL_") and name.endswith("_ENDPOINT"):
            values += [_SIGNAL.sub("", urlsplit(value).path).strip("/"), urlsplit(value).query, *_inside(value)]
    values += [value for name, value in job.endpoint.headers.items() if _SECRET_NAME.search(name)]
    values += [environ.get(job.notify.webhook_env or "", ""), job.notify.webhook or ""]
    for address in (job.endpoint.base_url, job.endpoint.proxy, job.notify.webhook, job.dataset):
        values += _inside(address or "")
    return Redactor(values)


def _inside(address: str) -> list[str]:
    """Return what opens an address that holds it: a user name and a password, and what its query signs it with."""
    user, _, _ = urlsplit(address).netloc.rpartition("@")
    signed = signatures(address)
    return [*([user, *user.split(":")] if user else []), *signed, *(quote(value, safe="") for value in signed)]
