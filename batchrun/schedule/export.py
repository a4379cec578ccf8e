"""Jobs and their schedules → files for a scheduler that somebody has already: cron, systemd, GitHub Actions, Kubernetes.

Each of them only says `batchrun run JOB` at the right times: lock, gates, history, notification and exit codes are the
command's own, so a run is as safe there as here. What a scheduler cannot say (a time zone, catching up, jitter) is said in
a comment of its file; what would be wrong is refused. Nothing here holds a credential: files name where it comes from.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

from batchrun.schedule.cron_text import Fields, interval
from batchrun.schedule.entry import Entry

Kind = Literal["cron", "systemd", "github-actions", "kubernetes"]
_SPARE_S: Final = 120  # for the closing of a run, after its grace


def export(kind: Kind, entries: Sequence[Entry], folder: str, command: str = "batchrun") -> str:
    """Return the file (or files, one after the other, each under a line with its name) for `kind`.

    Runs begin in `folder`; `command` is how batchrun is called there. Raises `UsageError` for a schedule that cannot be said.
    """
    made: dict[Kind, Callable[[], str]] = {
        "cron": lambda: _cron(entries, folder, command),
        "systemd": lambda: "\n".join(_systemd(entry, folder, command) for entry in entries),
        "github-actions": lambda: "\n".join(_github(entry) for entry in entries),
        "kubernetes": lambda: "---\n".join(_kubernetes(entry) for entry in entries),
    }
    return _shared(entries) + made[kind]()


def _shared(entries: Sequence[Entry]) -> str:
    """Return a comment where jobs share an endpoint: nothing there keeps their runs apart."""
    endpoints = [entry.table.endpoint for entry in entries]
    if len(set(endpoints)) == len(endpoints):
        return ""
    return "# Jobs on one endpoint are not kept apart here: the rates of runs that overlap add up. Leave room between them.\n"


def _arguments(entry: Entry, command: str = "batchrun") -> list[str]:
    """Return the command line of one run."""
    return [command, *entry.arguments()]


def _cron(entries: Sequence[Entry], folder: str, command: str) -> str:
    """Return crontab lines, with the zone before each and `%` escaped, which cron takes for a line's end."""
    lines = [
        "# batchrun: add these lines with `crontab -e`.",
        "# CRON_TZ is read by cronie (Fedora, RHEL, Arch, SUSE). Debian's and Ubuntu's cron ignores it and goes by the",
        "# machine's zone: set that, or write the times in it. A time that is missed (machine off) is not caught up.",
        "# The credential must be in the environment of the job, for instance: . ~/.config/batchrun/env",
        "",
    ]
    for entry in entries:
        schedule, times = entry.job.schedule, entry.table.times
        jitter = int(schedule.jitter_s)
        wait = f"sleep $(shuf -i 0-{jitter} -n 1) && " if jitter else ""
        line = f"cd {shlex.quote(folder)} && {wait}{shlex.join(_arguments(entry, command))}"
        lines.append(f"CRON_TZ={schedule.timezone if times.cron is not None else 'UTC'}")
        expression = times.cron if times.cron is not None else interval(times, entry.table.name)
        if times.cron is not None:
            Fields(times, entry.table.name)
        lines.append(f"{expression} " + line.replace("%", r"\%"))
    return "\n".join(lines) + "\n"


def _systemd(entry: Entry, folder: str, command: str) -> str:
    """Return a service and its timer."""
    job, times = entry.job, entry.table.times
    name = f"batchrun-{job.name}"
    if not command.startswith("/"):
        command = f"/usr/bin/env {command}"
    head, *rest = _arguments(entry, command)
    line = " ".join([head, *(_systemd_word(word) for word in rest)])
    zone = job.schedule.timezone if times.cron is not None else "UTC"
    calendar = "\n".join(f"OnCalendar={moment}" for moment in Fields(times, job.name).calendar(zone))
    catch_up = {
        "skip": "Persistent=false",
        "latest": "Persistent=true",
        "all": '# catch_up = "all" cannot be said: a missed time is caught up once.\nPersistent=true',
    }[job.schedule.catch_up]
    jitter = f"RandomizedDelaySec={job.schedule.jitter_s:g}\n" if job.schedule.jitter_s else ""
    return f"""# {name}.service
[Unit]
Description=batchrun {job.name}
Wants=network-online.target
After=network-online.target

[Service]
Type=oneshot
WorkingDirectory={folder.replace("%", "%%")}
# The credential: ANTHROPIC_API_KEY=… in a file that only you can read.
EnvironmentFile=-%h/.config/batchrun/env
ExecStart={line}
# SIGTERM drains the run and saves it: only the run itself gets it, and time to end.
KillMode=mixed
TimeoutStopSec={job.limits.grace_s + _SPARE_S:g}

# {name}.timer
[Unit]
Description=batchrun {job.name}, by its schedule

[Timer]
{calendar}
{catch_up}
{jitter}AccuracySec=1s

[Install]
WantedBy=timers.target
"""


def _systemd_word(word: str) -> str:
    """Return one word of `ExecStart`, quoted: systemd expands `%` and `$`, and reads backslashes in quotes."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return escaped if re.fullmatch(r"[\w@%+=:,./$-]+", escaped) else f'"{escaped}"'


def _github(entry: Entry) -> str:
    """Return a workflow. Its cron is in UTC, so a zone with summer time is moved by its winter offset, and that is said."""
    job, times = entry.job, entry.table.times
    fields, notes = Fields(times, job.name), ["GitHub's cron is in UTC, may start late, and catches nothing up."]
    winter, summer = _offsets(entry)
    if times.cron is not None and job.schedule.timezone.upper() != "UTC":
        notes.append(f"{times.cron} {job.schedule.timezone} is moved by {winter} to UTC.")
        if winter != summer:
            notes.append("While summer time is in force there, it runs an hour (or its shift) later by the local clock.")
    moments = "\n".join(f"    - cron: {_text(line)}" for line in fields.moved(winter))
    key = _text(f"batchrun-{job.name}-${{{{ github.run_id }}}}")
    minutes = f"\n    timeout-minutes: {_minutes(entry)}" if _bound(entry) else ""
    return f"""# .github/workflows/batchrun-{job.name}.yml
{_comment(notes)}
name: {_text("batchrun " + job.name)}
on:
  schedule:
{moments}
  workflow_dispatch:
permissions:
  contents: read
concurrency:
  group: {_text("batchrun-" + job.name)}
  cancel-in-progress: false
jobs:
  run:
    runs-on: ubuntu-latest{minutes}
    steps:
      - uses: actions/checkout@v4
      - uses: actions/setup-python@v5
        with:
          python-version: "3.12"
      - run: pip install batchrun
      # The history that gates compare with: the newest one saved is taken, and saved again under this run's name.
      - uses: actions/cache/restore@v4
        with:
          path: reports
          key: {key}
          restore-keys: {_text(f"batchrun-{job.name}-")}
      - run: {_text(shlex.join(_arguments(entry)).replace("${{", "${{ '${{' }}"))}
        env:
          ANTHROPIC_API_KEY: "${{{{ secrets.ANTHROPIC_API_KEY }}}}"
      - uses: actions/cache/save@v4
        if: always()
        with:
          path: reports
          key: {key}
      - uses: actions/upload-artifact@v4
        if: always()
        with:
          name: {_text("batchrun-" + job.name)}
          path: {_text(f"reports/{job.name}/*/report.html")}
"""


def _kubernetes(entry: Entry) -> str:
    """Return a CronJob that never overlaps, with its time zone (Kubernetes 1.27 or later)."""
    job, times = entry.job, entry.table.times
    zone = (
        ("Etc/UTC" if job.schedule.timezone.upper() == "UTC" else job.schedule.timezone) if times.cron is not None else "Etc/UTC"
    )
    name = _label(f"batchrun-{job.name}")
    late = {"skip": 60, "latest": 86_400, "all": 86_400}[job.schedule.catch_up]
    notes = ["Kubernetes starts a missed run at most once, and knows no jitter."]
    bound = f"\n      activeDeadlineSeconds: {_minutes(entry) * 60}" if _bound(entry) else ""
    return f"""# batchrun-{job.name}.yaml
{_comment(notes)}
apiVersion: batch/v1
kind: CronJob
metadata:
  name: {name}
spec:
  schedule: {_text(Fields(times, job.name).cron())}
  timeZone: {_text(zone)}
  concurrencyPolicy: Forbid
  startingDeadlineSeconds: {late}
  successfulJobsHistoryLimit: 3
  failedJobsHistoryLimit: 3
  jobTemplate:
    spec:
      backoffLimit: 0{bound}
      template:
        spec:
          restartPolicy: Never
          terminationGracePeriodSeconds: {int(job.limits.grace_s + _SPARE_S)}
          containers:
            - name: batchrun
              image: batchrun:latest  # an image of yours with batchrun, the job and its dataset
              workingDir: /batchrun
              command: {json.dumps(_arguments(entry), ensure_ascii=False)}
              envFrom:
                - secretRef:
                    name: batchrun-credentials  # ANTHROPIC_API_KEY
              volumeMounts:
                - name: reports
                  mountPath: /batchrun/reports
          volumes:
            - name: reports
              persistentVolumeClaim:
                claimName: batchrun-reports
"""


def _label(name: str) -> str:
    """Return a name as Kubernetes takes one, of at most 52 characters; one that had to be changed ends in a hash of itself."""
    label = re.sub(r"[^a-z0-9]+", "-", name.lower())[:52].strip("-")
    return label if label == name else f"{label[:43].strip('-')}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _bound(entry: Entry) -> float | None:
    """Return the sooner of the run's deadlines in seconds."""
    bounds = [bound for bound in (entry.job.schedule.deadline_s, entry.job.limits.deadline_s) if bound is not None]
    return min(bounds, default=None)


def _minutes(entry: Entry) -> int:
    """Return the minutes after which a run is surely over: its deadline, its grace, and time to close."""
    return int(((_bound(entry) or 0) + entry.job.limits.grace_s + _SPARE_S) // 60) + 1


def _offsets(entry: Entry) -> tuple[timedelta, timedelta]:
    """Return the zone's offsets from UTC in winter and in summer, the smaller one first."""
    year = datetime.now(UTC).year
    zone = entry.table.times.zone if entry.table.times.cron is not None else UTC
    offsets = [datetime(year, month, 1, tzinfo=zone).utcoffset() or timedelta() for month in (1, 7)]
    return min(offsets), max(offsets)


def _comment(notes: Sequence[str]) -> str:
    return "\n".join(f"# {note}" for note in notes)


def _text(text: str) -> str:
    """Return text as a YAML scalar: JSON's double quotes are YAML's."""
    return json.dumps(text, ensure_ascii=False)
