"""A request body → the most input tokens the endpoint can count for it, so that a budget can be kept.

A token is at least one byte of text, and the JSON around the text (keys, quotes, escapes) is longer than what the API
adds around each message: so the body's length bounds everything that is in it as text. What is not is added by kind,
from the API's documentation: the hidden prompt that comes with tools (346 tokens for most models; up to 935 have been
reported), images (at most 4,784 tokens, on the models that see the most; others 1,600), and documents that are not plain
text, of which only the context window (200,000 tokens) is a bound. Found by their JSON without decoding it: what only
looks like one makes the bound larger, never smaller. What a server tool fetches while the model answers is not in it:
nobody knows that before.
"""

from __future__ import annotations

import re
from typing import Final

TOOL_PROMPT_TOKENS: Final = 1024
"""The hidden prompt of any tools at all, and again of each tool that the API itself describes (`bash_…`, `computer_…`)."""

IMAGE_TOKENS: Final = 4784
DOCUMENT_TOKENS: Final = 200_000

_KINDS: Final = re.compile(rb'"type"\s*+:\s*+"(image|base64|url|file|\w+_20\d{6})"').findall
_OPAQUE: Final = (b"base64", b"url", b"file")


def most_input_tokens(body: bytes) -> int:
    """Return an upper bound of the input tokens of a request body, cached ones included."""
    tokens, kinds = len(body), _KINDS(body)
    images = kinds.count(b"image")
    opaque = sum(kinds.count(kind) for kind in _OPAQUE) if kinds else 0
    if b'"tools"' in body:
        tokens += TOOL_PROMPT_TOKENS * (1 + len(kinds) - images - opaque)
    if opaque > images and b'"document"' in body:
        tokens += DOCUMENT_TOKENS * (opaque - images)
    return tokens + IMAGE_TOKENS * images
