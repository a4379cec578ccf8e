"""The command line: flags in, one call, text out. The only room that prints or exits.

`main` knows the commands by name and one-line summary; a command's own file is imported when that
command is asked for, and its heavy imports when it runs, so that `batchrun --help` costs what click
costs. Every error of the tree in `batchrun.errors` ends here as `error: …` and `hint: …` on stderr and
the contract's exit code; only a bug shows a traceback.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import click

from batchrun import __version__
from batchrun.errors import MAX_SHOWN_PROBLEMS, BatchrunError, DatasetError, JobError

COMMANDS = {
    "run": "Run a job, or a dataset against a model.",
    "resume": "Go on with a run that stopped: only the missing calls are made.",
    "check": "Validate a job and its whole dataset; send nothing.",
    "estimate": "Say what a job will cost and how long it will take, before it runs.",
    "score": "Score a finished run, or a file of answers, without a call.",
    "cost": "Reprice finished runs: other prices, dates, models, modes.",
    "report": "Write the report of one or several runs.",
    "view": "Page through a run's results in a browser, on loopback.",
    "compare": "Compare two runs row by row, with intervals and tests.",
    "history": "Show the finished runs of a job and where they changed.",
    "schedule": "Run jobs by their schedules, or export them to another scheduler.",
    "convert": "Turn a dataset of another format into ours.",
    "export": "Write a run's results as JSONL or CSV.",
    "simulate": "Serve a local /v1/messages endpoint, with faults.",
    "cancel": "Stop the batches a run has submitted.",
    "init": "Write a job file and a small dataset to start from.",
}

GARBAGE_EVERY = 100_000
"""Objects between two searches for cycles, in place of 700: the modules of a run make 75,000 that all stay (60 ms of search for
nothing), and a row leaves no cycle behind: the peak memory of 100,000 rows is the same."""


READER_GONE = 141
"""What a shell counts for a command that ended of SIGPIPE."""


class LazyGroup(click.Group):
    """A group that imports a command's file only when that command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order a newcomer meets them."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return the command of this name, or None."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(f"batchrun.cli.{cmd_name}").command
        if not isinstance(command, click.Command):
            raise TypeError(f"batchrun.cli.{cmd_name} has no click command")
        for option in command.params:
            if isinstance(option, click.Option) and option.envvar is None:
                option.envvar = variable(cmd_name, option)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, and end as a shell expects it where the reader of our stdout went away (`| head`).

        It is caught here since click would make it exit code 1, which is a bug's. Nothing is left to say, and Python must not
        try again at exit.
        """
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return READER_GONE

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the command table from `COMMANDS`, importing none of them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def variable(command: str, option: click.Option) -> str:
    """Return the environment variable of a flag: `BATCHRUN_<COMMAND>_<FLAG>`, after its longest name."""
    flag = max(option.opts, key=len).lstrip("-").replace("-", "_")
    return f"BATCHRUN_{command}_{flag}".upper()


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start here: batchrun run jobs/weather.toml --simulate",
)
@click.version_option(__version__, prog_name="batchrun")
def batchrun() -> None:
    """Run tool-call datasets against a Messages endpoint; score and price what comes back."""


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line and exit with the contract's code."""
    code = 1
    _settle()
    try:
        result = batchrun.main(args=list(args) if args is not None else None, standalone_mode=False)
        code = result if isinstance(result, int) else 0
    except click.exceptions.Abort:
        _say("error", "red", "stopped by SIGINT before it was done")
        _say("hint", "cyan", "the same command begins again; a run that had begun goes on with `batchrun resume RUN`")
        code = 130
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except BatchrunError as error:
        show_error(error)
        code = error.exit_code
    except Exception as error:  # noqa: BLE001 - the last resort: a bug of ours, named as one
        traceback.print_exc()
        click.echo(f"error: unexpected {type(error).__name__}: this is a bug in batchrun {__version__}", err=True)
        click.echo("hint: what was paid for is in the run's journal; `batchrun resume RUN` goes on from there", err=True)
        code = 1
    sys.exit(code)


def _settle() -> None:
    """Have the process, which is ours alone, search for garbage seldom, and not at all as it ends (40 to 80 ms for nothing)."""
    gc.set_threshold(GARBAGE_EVERY, 10, 10)
    atexit.register(gc.freeze)


def show_error(error: BatchrunError) -> None:
    """Print one error on stderr with what to do about it: of several problems, each group with its own hint."""
    problems = error.problems if isinstance(error, JobError | DatasetError) else ()
    if len(problems) > 1:
        shown = problems[:MAX_SHOWN_PROBLEMS]
        for problem, following in zip(shown, [*shown[1:], None], strict=True):
            _say("error", "red", str(problem))
            if problem.hint and (following is None or following.hint != problem.hint):
                _say("hint", "cyan", problem.hint)
        if len(problems) > len(shown):
            _say("error", "red", f"… and {len(problems) - len(shown)} more")
        return
    for line in str(error).splitlines() or [type(error).__name__]:
        _say("error", "red", line)
    if error.hint:
        _say("hint", "cyan", error.hint)


def _say(label: str, paint: str, text: str) -> None:
    """Print one labelled line on stderr, in colour where that is wanted; words of a dataset or an endpoint only show."""
    from batchrun.visible import visible

    click.echo(click.style(f"{label}: ", fg=paint, bold=True) + str(visible(text)), err=True, color=colour(sys.stderr))


def colour(stream: object) -> bool:
    """Tell whether to colour: a terminal, and no `NO_COLOR` (https://no-color.org)."""
    isatty = getattr(stream, "isatty", None)
    return bool(isatty and isatty()) and not os.environ.get("NO_COLOR")
