"""Model and head of a prompt → whether the API may keep it in its prompt cache: shorter ones are never kept.

A mark on a head that is too short costs nothing and brings nothing, but its rows would wait for a leader. The least length
goes by the model and is counted in tokens, of which only the bytes are known here: a head is called too short only where it
is by any count. Where sources differ the lesser length stands, and models that nobody names have the least there is.

Sources: API documentation, Prompt caching ("Cache limitations") and Tool use (the hidden prompt that comes with tools).
"""

from __future__ import annotations

import re
from typing import Final

LEAST_TOKENS: Final = 512
LEAST_BY_MODEL: Final[tuple[tuple[re.Pattern[str], int], ...]] = tuple(
    (re.compile(pattern, re.IGNORECASE), tokens)
    for pattern, tokens in (
        (r"(?:opus[-.]4[-.][56]|haiku[-.]4[-.]5)(?!\d)", 4096),
        (r"opus[-.]4[-.]7(?!\d)|claude[-.]3(?:[-.]5)?[-.]haiku", 2048),
        (r"claude[-.](?:3[-.]|sonnet[-.][45](?!\d)|opus[-.]4(?!\d))", 1024),
    )
)
"""The first that fits, however a gateway writes the model."""

TOKEN_BYTES: Final = 2
"""Of dense text; a token of English stands for about four."""

TOOL_PROMPT_TOKENS: Final = 346
"""Of the prompt that the API puts before any tools."""


def may_be_kept(model: str, *, tools: int, system: int) -> bool:
    """Tell whether a head with so many bytes of tools and of system may be long enough for the model's prompt cache."""
    tokens = (tools + system) / TOKEN_BYTES + (TOOL_PROMPT_TOKENS if tools else 0)
    least = next((tokens for pattern, tokens in LEAST_BY_MODEL if pattern.search(model)), LEAST_TOKENS)
    return tokens >= least
