from typing import final

from batchrun.wire.usage import PlainUsage

@final
class Answer:
    events: int
    seen: bool
    started: bool
    called: bool
    closed: bool
    id: str | None
    model: str | None
    stop_reason: str | None
    stop_sequence: str | None
    usages: list[bytes] | None
    @property
    def usage(self) -> PlainUsage | None: ...
    @property
    def rest(self) -> bytes: ...
    def feed(self, chunk: bytes, /) -> bool: ...
    def blocks(self) -> list[tuple[str, str | None, str | None, str, int, bool]]: ...

def surely_strict(text: str, /) -> bool: ...
