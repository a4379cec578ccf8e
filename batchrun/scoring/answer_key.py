"""The leaderboard's answer key ↔ the contract's `expected`.

Three forms of one thing, for a parameter that may be 1, 2 or absent:

    key        {"allowed": [1, 2], "optional": true}             as the leaderboard's data is published for batchrun
    contract   {"$any_of": [1, 2], "$optional": true}            contract 3
    list       [1, 2, ""]                                        what the leaderboard's checker reads

Objects are `{"$object": {key: {"allowed", "optional"}}}` in a key, plain objects in the contract, and objects of lists
in the third. A text is a key only if *every* argument in it has exactly the two fields, so no contract form is
mistaken for one. This module refuses to know answers and verdicts.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

from batchrun.scoring.values import Json

Lists: TypeAlias = list[tuple[str, dict[str, list[Json]]]]
"""(name, {parameter: allowed values}) a call; `""` among the values: the parameter may be absent."""

OPTIONAL: Final = ""

_FIELDS: Final = {"allowed", "optional"}
_FOLD: Final = "bfcl"


class NoAnswerKey(Exception):
    """The `expected` says something that an answer key cannot."""


def is_answer_key(raw: Json) -> bool:
    """Tell whether `raw` is a list of calls whose arguments, at least one, are all `{"allowed", "optional"}`."""
    if type(raw) is not list:
        return False
    arguments = 0
    for call in raw:  # plain loops: each `expected` comes through here, and most leave at their first argument
        if type(call) is not dict or type(call.get("arguments")) is not dict:
            return False
        for argument in call["arguments"].values():
            if not _is_choice(argument):
                return False
            arguments += 1
    return arguments > 0


def to_contract(raw: list[dict[str, Any]], *, fold: bool) -> list[dict[str, Any]]:
    """Return a key in the contract's words; `fold` turns strings into `$text`, folded as the leaderboard means them."""
    return [
        {**call, "arguments": {name: _contract_choice(choice, fold=fold) for name, choice in call["arguments"].items()}}
        for call in raw
    ]


def to_lists(raw: Json) -> Lists:
    """Return the lists of a key or a contract `expected` (its calls alone); raise `NoAnswerKey` where there are none."""
    if type(raw) is not list:
        raise NoAnswerKey("is no list of calls")
    keyed = is_answer_key(raw)
    calls: Lists = []
    for call in raw:
        if type(call) is not dict or type(call.get("name")) is not str or type(call.get("arguments")) is not dict:
            raise NoAnswerKey("a call is an object with `name` and `arguments`")
        read = _list_of_choice if keyed else _list_of_matcher
        calls.append((call["name"], {name: read(item) for name, item in call["arguments"].items()}))
    return calls


def _is_choice(raw: Json) -> bool:
    return type(raw) is dict and raw.keys() == _FIELDS and type(raw["allowed"]) is list and type(raw["optional"]) is bool


def _is_object(raw: Json) -> bool:
    return type(raw) is dict and raw.keys() == {"$object"} and type(raw["$object"]) is dict


def _contract_choice(choice: Json, *, fold: bool) -> Json:
    if not _is_choice(choice):
        return _contract_value(choice, fold=fold)
    made: dict[str, Any] = {"$any_of": [_contract_value(value, fold=fold) for value in choice["allowed"]]}
    return {**made, "$optional": True} if choice["optional"] else made


def _contract_value(value: Json, *, fold: bool) -> Json:
    if type(value) is str and fold:
        return {"$text": value, "$fold": [_FOLD]}
    if type(value) is list:
        return [_contract_value(item, fold=fold) for item in value]
    if _is_object(value):
        return {key: _contract_choice(choice, fold=fold) for key, choice in value["$object"].items()}
    return value


def _list_of_choice(choice: Json) -> list[Json]:
    if not _is_choice(choice):
        return [_plain_value(choice)]
    return [_plain_value(value) for value in choice["allowed"]] + ([OPTIONAL] if choice["optional"] else [])


def _plain_value(value: Json) -> Json:
    if type(value) is list:
        return [_plain_value(item) for item in value]
    if _is_object(value):
        return {key: _list_of_choice(choice) for key, choice in value["$object"].items()}
    return value


def _list_of_matcher(raw: Json) -> list[Json]:
    """Return the allowed values of a contract value: `$any_of`, `$text` and `$optional` are all that a key can say."""
    if type(raw) is not dict or not raw or not all(key.startswith("$") for key in raw):
        return [_plain_of_contract(raw)]
    if raw.keys() == {"$text", "$fold"} or raw.keys() == {"$text"}:
        return [raw["$text"]]
    if not raw.keys() <= {"$any_of", "$optional"} or type(raw.get("$any_of", [])) is not list:
        raise NoAnswerKey(f"the leaderboard has no {', '.join(sorted(raw))}")
    allowed = [value for item in raw.get("$any_of", []) for value in _list_of_matcher(item)]
    return allowed + ([OPTIONAL] if raw.get("$optional") is True else [])


def _plain_of_contract(value: Json) -> Json:
    if type(value) is list:
        return [_single(item) for item in value]
    if type(value) is dict:
        return {key: _list_of_matcher(item) for key, item in value.items()}
    return value


def _single(item: Json) -> Json:
    """Return the one value that an item of an array may be; a choice there is not the leaderboard's."""
    values = _list_of_matcher(item)
    if len(values) != 1:
        raise NoAnswerKey("the leaderboard has one value for an item of an array")
    return values[0]
