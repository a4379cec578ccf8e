"""The library's prices of the models that were asked for before, without loading the library (0.15 s).

The first command that meets a model looks it up and keeps the card; later ones read it. What is kept holds for the exact
files of the installed library and of our reading of it: with another release, or another version of ours, every model is
looked up anew. Prices are decimal text, so a kept card is the card that was looked up, to the last digit.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from batchrun import pricing
from batchrun.pricing.book import Listed, from_library
from batchrun.storage import user_cache

NAME: Final = "prices.json"
MOST: Final = 500
"""Models in the file, after which it begins anew: it is read whole."""


class _Kept(Struct, kw_only=True):
    """The file: what was found, by provider and model on two lines."""

    found: dict[str, Listed] = {}


class PriceList:
    """Looks models up, each once for all commands of one user. Not shared between threads."""

    def __init__(self) -> None:
        """Open nothing yet."""
        self._made_of: bytes | None = None
        self._kept: _Kept | None = None

    def __call__(self, model: str, provider: str) -> Listed:
        """Return the library's card of `model` as `provider` sells it."""
        if self._kept is None:
            self._made_of = _made_of()
            self._kept = self._read()
        name = f"{provider}\n{model}"
        found = self._kept.found.get(name)
        if found is None:
            found = from_library(model, provider)
            self._write(name, found)
        return found

    def _read(self) -> _Kept:
        """Return what earlier commands have looked up in the same files."""
        content = None if self._made_of is None else user_cache.kept(NAME, self._made_of)
        try:
            return _Kept() if content is None else msgspec.json.decode(content, type=_Kept)
        except msgspec.MsgspecError:
            return _Kept()

    def _write(self, name: str, found: Listed) -> None:
        """Add one model to what is kept by now."""
        self._kept = self._read()
        if len(self._kept.found) >= MOST:
            self._kept = _Kept()
        self._kept.found[name] = found
        if self._made_of is not None:
            user_cache.keep(NAME, self._made_of, msgspec.json.encode(self._kept))


def _made_of() -> bytes | None:
    """Return the fingerprint of the library's files and of ours that read it; finds the library without importing it."""
    spec = find_spec("genai_prices")
    theirs = [Path(place) for place in (spec.submodule_search_locations or ())] if spec is not None else []
    folders = [*theirs, *(Path(place) for place in pricing.__path__)]
    files = [file for folder in folders for file in sorted(folder.glob("*.py"))]
    return user_cache.fingerprint(files) if theirs else None
