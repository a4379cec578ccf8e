"""What a format is: how to tell its rows, and how to turn one into the contract's fields.

A conversion that loses something says so by a named note, counted; a row that cannot be converted raises
`Unconvertible` with the reason. A format that needs an environment to be run at all raises
`UnsupportedFormat`. It refuses to know files: rows come in decoded, rows go out as plain values.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from msgspec import Struct

from batchrun.errors import UsageError

Row = Mapping[str, Any]
"""One row as it was in the file, decoded."""

Fields = dict[str, Any]
"""One row as contract 2 has it, decoded; names outside the contract become metadata."""


LOSSES: Final[Mapping[str, str]] = {
    "enum-without-values": "an `enum` that allows nothing was dropped",
    "field-left-out": "a request field that the Messages API has not was left out",
    "keyword-dropped": "a word beside a parameter that JSON Schema has not was dropped",
    "late-system-message-moved-up": "a system message in mid-conversation joined the system prompt",
    "later-turns-left-out": "turns after the expected answer were left out",
    "leading-assistant-turn-left-out": "an assistant's turn before the user's first was left out",
    "missing-tool-result-made": "a call that was never answered got an empty result",
    "model-left-to-the-job": "the row's model became metadata: the job names the models",
    "name-changed": "a tool's or parameter's name was made valid; `name_map` has the old one",
    "nullable-dropped": "OpenAPI's `nullable` was dropped",
    "properties-not-an-object": "`properties` was no object and is now empty",
    "required-names-no-property": "`required` named a property that is not there",
    "required-not-a-list": "`required` beside a property says nothing in JSON Schema and was dropped",
    "schema-not-an-object": "a schema was no object and now takes anything",
    "strict-dropped": "`strict` was dropped",
    "tool-prompt-left-out": "the system prompt that lists the tools was left out: they go in the request",
    "tool-result-without-call-made-text": "a tool's answer to no call became the user's words",
    "type-any": "the type `any` became no type",
    "type-unknown": "a type nobody knows became no type",
    "words-of-the-answer-not-scored": "the right answer is words: only that no tool is called is scored",
}
"""Every way in which a conversion can lose something, by the name it is counted under."""


class Unconvertible(ValueError):
    """This row cannot be turned into a dataset row; the text says why."""


class UnsupportedFormat(UsageError):
    """No row of this format can be run here; the text says why."""


class Notes:
    """Counts of what conversions lost, by stable name."""

    def __init__(self) -> None:
        """Start with nothing lost."""
        self.counts: Counter[str] = Counter()

    def lossy(self, name: str) -> None:
        """Count one loss of a kind that `LOSSES` explains."""
        self.counts[name] += 1


def every_file(names: Sequence[str]) -> list[str]:
    """Read all the files."""
    return list(names)


def no_companion(_name: str) -> str | None:
    """Everything is in one file."""
    return None


class Format(Struct, frozen=True, kw_only=True):
    """One format.

    `claims` tells whether a decoded row looks like one of it. `convert` returns the row's fields. Where
    answers are kept apart from questions, `questions` picks the files to read (raising
    `UnsupportedFormat` where none can be run), `companion` names the file with the answers to a file's
    questions, and the two rows whose `key` is equal are merged before they are converted.
    """

    name: str
    title: str
    claims: Callable[[Row], bool]
    convert: Callable[[Row, Notes], Fields]
    questions: Callable[[Sequence[str]], list[str]] = every_file
    companion: Callable[[str], str | None] = no_companion
    key: str = "id"
    to_score: bool = False  # rows are answers to score, not questions to run
