"""`batchrun view`: all rows of a run in a browser, served on loopback to whoever has the address."""

from __future__ import annotations

import click

from batchrun.errors import UsageError


@click.command("view", epilog="Example: batchrun view reports/weather/RUN --no-open")
@click.argument("run", metavar="RUN")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, show_default=True, help="Port on 127.0.0.1; 0 takes a free one."
)
@click.option("--open/--no-open", "opens", default=True, help="Open it in the browser.")
def command(run: str, port: int, *, opens: bool) -> None:
    """Page through all rows of RUN, a folder or an address in a bucket, in a browser: filter, search, sort, open.

    Only this machine is served, at an address with a secret in it, until Ctrl-C. The address is printed on stdout.
    """
    import webbrowser

    from batchrun.cli.places import run_folder
    from batchrun.cli.report import samples_of
    from batchrun.report.comparison import read_summary
    from batchrun.report.server import ViewServer
    from batchrun.report.viewer import Viewer

    folder = run_folder(run)
    viewer = Viewer(folder, read_summary(folder), samples_of(folder))
    try:
        server = ViewServer(viewer, port)
    except OSError as error:
        raise UsageError(f"port {port} cannot be listened on: {error.strerror}", hint="--port 0 takes a free one") from None
    with server:
        click.echo(server.url)
        click.echo("Ctrl-C stops it", err=True)
        if opens:
            webbrowser.open(server.url)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            click.echo("stopped", err=True)
