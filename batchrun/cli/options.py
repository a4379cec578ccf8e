"""Flags every job command shares, and how they become overrides of the job file.

The job file is the interface; these few flags and `--set key.path=value` lay values over it. They stay
plain (path, value) pairs here: what a key means, and whether its value is right, `job` knows.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

if TYPE_CHECKING:
    from batchrun.job import Job

Command = TypeVar("Command", bound=Callable[..., Any])


class JobFlags(NamedTuple):
    """The shared flags as they were typed; None and empty mean "not given"."""

    base_url: str | None = None
    model: tuple[str, ...] = ()
    out: str | None = None
    limit: int | None = None
    sample: int | None = None
    seed: int | None = None
    where: str | None = None
    shard: str | None = None
    simulate: bool = False
    json: bool = False
    quiet: bool = False
    log_format: str | None = None
    set: tuple[str, ...] = ()

    def overrides(self) -> list[tuple[str, object]]:
        """Return the flags as (key path, value) pairs; `--set` comes last and so wins."""
        from batchrun.job import parse_set

        named = {
            "endpoint.base_url": self.base_url,
            "request.model": list(self.model) or None,
            "out": self.out,
            "select.limit": self.limit,
            "select.sample": self.sample,
            "select.seed": self.seed,
            "select.where": self.where,
            "select.shard": self.shard,
            "observe.log_format": self.log_format,
        }
        given: list[tuple[str, object]] = [(path, value) for path, value in named.items() if value is not None]
        return given + [parse_set(assignment) for assignment in self.set]

    def load(self, source: str, more: Sequence[tuple[str, object]] = ()) -> Job:
        """Return the job that `source` (a job file or a dataset), these flags and `more` overrides describe."""
        from batchrun.prepare import load_job

        return load_job(source, overrides=[*more, *self.overrides()], environ=os.environ)


def job_flags(*, simulate: bool = True) -> Callable[[Command], Command]:
    """Add the shared flags to a command; it receives them as one `flags: JobFlags`."""

    def decorate(function: Command) -> Command:
        options = [
            click.option("--base-url", metavar="URL", help="Endpoint; calls go to URL/v1/messages."),
            click.option("--model", multiple=True, metavar="MODEL", help="Model to call; may be given several times."),
            click.option("--out", metavar="DIR", help="Folder of the run [default: reports/<job>/<run_id>]."),
            click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the first N rows."),
            click.option("--sample", type=click.IntRange(min=1), metavar="N", help="Only N rows, drawn at random."),
            click.option("--seed", type=int, metavar="N", help="Which draw of --sample it is [default: 0]."),
            click.option("--where", metavar="CONDITION", help="Only rows of which this SQL condition holds: \"id LIKE 'a%'\"."),
            click.option("--shard", metavar="I/N", help="Only the I-th of N parts: 3/16."),
            click.option("--set", "set_", multiple=True, metavar="KEY=VALUE", help="Any key of the job, by its path."),
            click.option("--json", "json_", is_flag=True, help="Print the summary as JSON on stdout."),
            click.option("-q", "--quiet", is_flag=True, help="No progress, no table."),
            click.option("--log-format", type=click.Choice(["text", "json"]), help="json: every event as a JSON line on stderr."),
        ]
        if simulate:
            options.append(click.option("--simulate", is_flag=True, help="Call a local simulated endpoint: no key, no cost."))
        return _gathered(function, options)

    return decorate


def _gathered(function: Command, options: list[Callable[[Any], Any]]) -> Command:
    """Wrap `function` so that the shared options reach it as one `JobFlags`."""
    import functools

    @functools.wraps(function)
    def wrapper(**values: Any) -> object:
        flags = JobFlags(
            base_url=values.pop("base_url"),
            model=values.pop("model"),
            out=values.pop("out"),
            limit=values.pop("limit"),
            sample=values.pop("sample"),
            seed=values.pop("seed"),
            where=values.pop("where"),
            shard=values.pop("shard"),
            set=values.pop("set_"),
            json=values.pop("json_"),
            quiet=values.pop("quiet"),
            log_format=values.pop("log_format"),
            simulate=values.pop("simulate", False),
        )
        return function(flags=flags, **values)

    wrapped: Any = wrapper
    for option in reversed(options):
        wrapped = option(wrapped)
    return wrapped  # type: ignore[no-any-return]  # click's decorators are untyped


def print_json(value: object) -> None:
    """Print one value as JSON on stdout: data for machines, money as decimal text."""
    import msgspec

    from batchrun.visible import HIDDEN

    text = msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
    click.echo(HIDDEN.sub(lambda match: f"\\u{ord(match.group()):04x}", text))  # the same value, and a terminal does nothing


def interactive() -> bool:
    """Tell whether stderr is a terminal a person looks at: live progress, else plain lines."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("CI")
