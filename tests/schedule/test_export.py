"""Files for other schedulers: the same times, quoted so that no path or name acts; what cannot be said is refused."""

from __future__ import annotations

import configparser
import json
import re
import shlex
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cronsim import CronSim
from hypothesis import given
from hypothesis import strategies as st

from batchrun.errors import UsageError
from batchrun.job import Job, Schedule, parse_job
from batchrun.schedule.cron_text import Fields
from batchrun.schedule.entry import Entry, entries
from batchrun.schedule.export import export
from batchrun.schedule.times import Times

yaml = pytest.importorskip("yaml")


def entry(schedule: str, *, file: str = "jobs/nightly.toml", more: str = "", name: str = "nightly") -> Entry:
    text = f'name = "{name}"\ndataset = "d.jsonl"\n[request]\nmodel = "m"\n[schedule]\n{schedule}\n{more}'
    return entries([(file, parse_job(text))])[0]


def lines_of(text: str) -> list[str]:
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def fields(cron: str) -> Fields:
    return Fields(Times(Schedule(cron=cron)), "nightly")


NIGHTLY = 'cron = "0 6 * * 1-5"\ntimezone = "Europe/Berlin"'


def test_cron_names_the_zone_and_escapes_what_cron_reads() -> None:
    """In a crontab `%` ends the command: it is escaped, and the rest is quoted for the shell."""
    zone, line = lines_of(export("cron", [entry(NIGHTLY, file="jobs/a b%.toml")], "/data/100% mine"))
    assert zone == "CRON_TZ=Europe/Berlin"
    expression, command = line[: len("0 6 * * 1-5")], line[len("0 6 * * 1-5 ") :]
    assert expression == "0 6 * * 1-5"
    assert not re.search(r"(?<!\\)%", command)
    words = shlex.split(command.replace(r"\%", "%"))
    assert words == ["cd", "/data/100% mine", "&&", "batchrun", "run", "jobs/a b%.toml", "--quiet"]


def test_a_deadline_and_jitter_go_along() -> None:
    text = export("cron", [entry(NIGHTLY + "\ndeadline_s = 600\njitter_s = 30")], "/data")
    assert "--set limits.deadline_s=600" in text
    assert "sleep $(shuf -i 0-30 -n 1) &&" in text
    sooner = export("cron", [entry(NIGHTLY + "\ndeadline_s = 600", more="[limits]\ndeadline_s = 60")], "/data")
    assert "--set" not in sooner


def units(text: str) -> tuple[dict[str, dict[str, str]], dict[str, dict[str, str]], list[str]]:
    """Service, timer, and all `OnCalendar` lines."""
    service, timer = text.split("# batchrun-nightly.timer\n")
    parsed = []
    for unit in (service, timer):
        parser = configparser.RawConfigParser(strict=False, delimiters=("=",))
        parser.optionxform = str  # type: ignore[assignment, method-assign]  # keys keep their case
        parser.read_string(unit)
        parsed.append({section: dict(parser[section]) for section in parser.sections()})
    return parsed[0], parsed[1], re.findall("^OnCalendar=(.*)$", timer, re.MULTILINE)


def test_systemd_runs_once_and_catches_up_once() -> None:
    service, timer, calendar = units(export("systemd", [entry(NIGHTLY + "\njitter_s = 60")], "/data", "/usr/bin/batchrun"))
    assert service["Service"]["ExecStart"] == "/usr/bin/batchrun run jobs/nightly.toml --quiet"
    assert (service["Service"]["Type"], service["Service"]["KillMode"]) == ("oneshot", "mixed")
    assert calendar == ["Mon,Tue,Wed,Thu,Fri *-*-* 06:00:00 Europe/Berlin"]
    assert (timer["Timer"]["Persistent"], timer["Timer"]["RandomizedDelaySec"]) == ("true", "60")
    _, skipping, _ = units(export("systemd", [entry(NIGHTLY + '\ncatch_up = "skip"')], "/data"))
    assert skipping["Timer"]["Persistent"] == "false"


def test_systemd_words_are_quoted_as_it_reads_them() -> None:
    service, _, _ = units(export("systemd", [entry(NIGHTLY, file='jobs/50% "$HOME".toml')], "/data/100%"))
    assert '"jobs/50%% \\"$$HOME\\".toml"' in service["Service"]["ExecStart"]
    assert service["Service"]["WorkingDirectory"] == "/data/100%%"


@pytest.mark.parametrize(
    ("schedule", "calendar"),
    [
        ('cron = "*/15 8-10 * * *"', ["*-*-* 08,09,10:00,15,30,45:00 UTC"]),
        ('cron = "0 0 13 * 5"', ["*-*-13 00:00:00 UTC", "Fri *-*-* 00:00:00 UTC"]),
        ('cron = "0 0 1 1,7 *"', ["*-01,07-01 00:00:00 UTC"]),
        ('cron = "5 * * * 0,7"', ["Sun *-*-* *:05:00 UTC"]),
        ("every_s = 900", ["*-*-* *:00,15,30,45:00 UTC"]),
        ("every_s = 86400", ["*-*-* 00:00:00 UTC"]),
    ],
)
def test_systemd_calendars(schedule: str, calendar: list[str]) -> None:
    assert units(export("systemd", [entry(schedule)], "/data"))[2] == calendar


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("cron", ["0 6 * * 1-5", "0 0 13 * 5", "*/7 3,4 * 2 *"])
def test_systemd_understands_the_calendars(cron: str) -> None:
    for moment in fields(cron).calendar("Europe/Berlin"):
        subprocess.run(["systemd-analyze", "calendar", moment], check=True, capture_output=True, timeout=20)


def test_github_gets_utc_and_is_told_about_summer_time() -> None:
    text = export("github-actions", [entry(NIGHTLY + "\ndeadline_s = 600")], "/data")
    assert "runs an hour" in text
    workflow: dict[Any, Any] = yaml.safe_load(text)
    assert workflow[True]["schedule"] == [{"cron": "0 5 * * 1,2,3,4,5"}]  # YAML 1.1 reads `on` as true
    assert workflow["concurrency"] == {"group": "batchrun-nightly", "cancel-in-progress": False}
    steps = workflow["jobs"]["run"]["steps"]
    assert steps[4]["run"] == "batchrun run jobs/nightly.toml --quiet --set limits.deadline_s=600"
    assert steps[4]["env"] == {"ANTHROPIC_API_KEY": "${{ secrets.ANTHROPIC_API_KEY }}"}
    assert workflow["jobs"]["run"]["timeout-minutes"] == 13
    assert "moved" not in export("github-actions", [entry('cron = "0 6 * * *"')], "/data")


def test_github_expressions_in_a_path_are_text() -> None:
    workflow = yaml.safe_load(export("github-actions", [entry(NIGHTLY, file="jobs/${{ x }}.toml")], "/data"))
    assert "${{ x" not in workflow["jobs"]["run"]["steps"][4]["run"]


def test_kubernetes_forbids_overlaps_and_knows_the_zone() -> None:
    one = entry('cron = "0 6 * * 7"\ntimezone = "Europe/Berlin"', name="My_Nightly.1", file='jobs/a "b".toml')
    cron_job = yaml.safe_load(export("kubernetes", [one], "/data"))
    assert re.fullmatch("batchrun-my-nightly-1-[0-9a-f]{8}", cron_job["metadata"]["name"])
    spec = cron_job["spec"]
    assert (spec["schedule"], spec["timeZone"], spec["concurrencyPolicy"]) == ("0 6 * * 0", "Europe/Berlin", "Forbid")
    container = spec["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]
    assert container["command"] == ["batchrun", "run", 'jobs/a "b".toml', "--quiet"]
    several = yaml.safe_load_all(export("kubernetes", [entry(NIGHTLY), entry("every_s = 3600")], "/data"))
    assert [document["spec"]["timeZone"] for document in several] == ["Europe/Berlin", "Etc/UTC"]


def test_names_that_kubernetes_would_take_for_one_are_told_apart() -> None:
    names = ["nightly-a", "nightly_a", "日本", "x" * 60 + "1", "x" * 60 + "2"]
    texts = [export("kubernetes", [entry(NIGHTLY, name=name)], "/data") for name in names]
    labels = [yaml.safe_load(text)["metadata"]["name"] for text in texts]
    assert labels[0] == "batchrun-nightly-a"
    assert len(set(labels)) == len(labels)
    assert all(re.fullmatch("[a-z0-9]([a-z0-9-]{,50}[a-z0-9])", label) for label in labels)


@pytest.mark.parametrize("kind", ["cron", "systemd", "github-actions", "kubernetes"])
def test_what_the_command_line_asked_of_every_run_is_exported(kind: Any) -> None:
    """Else a file made with `--simulate` or a lower budget would call the real endpoint without it."""
    jobs = [
        (f"{name}.toml", entry(NIGHTLY, name=name, more=f"[limits]\nrpm = {rpm}").job) for name, rpm in (("a", 50), ("b", 10))
    ]
    made = entries(jobs, simulate=True, overrides=["limits.max_cost_usd=1"])
    command = export(kind, made[:1], "/data").replace('", "', " ").replace('"', "")
    assert "batchrun run a.toml --simulate --quiet --set limits.max_cost_usd=1" in command
    real = export(kind, entries(jobs), "/data")
    assert real.startswith("# Jobs on one endpoint are not kept apart here")
    assert ("limits.rpm=10" in real, "limits.rpm=50" in real) == (True, False)
    assert not command.startswith("# Jobs on one endpoint")


@pytest.mark.parametrize("kind", ["cron", "systemd", "github-actions", "kubernetes"])
@pytest.mark.parametrize("schedule", ['cron = "0 0 L * *"', 'cron = "0 0 * * 1#2"', "every_s = 5000", "every_s = 30"])
def test_what_cannot_be_said_is_refused(kind: Any, schedule: str) -> None:
    with pytest.raises(UsageError, match="nightly: this export cannot say"):
        export(kind, [entry(schedule)], "/data")


def test_a_step_of_days_with_a_weekday_means_both_and_is_said_only_where_it_can_be() -> None:
    assert fields("0 0 */10 * 1").calendar("UTC") == ["Mon *-*-01,11,21,31 00:00:00 UTC"]
    with pytest.raises(UsageError):
        fields("0 0 */10 * 1").cron()


def test_a_day_of_the_month_that_is_another_in_utc_is_refused() -> None:
    assert fields("0 6 1 * *").moved(timedelta(hours=2)) == ["0 4 1 * *"]
    for expression in ("0 1 1 * *", "0 1 * 3 *"):
        with pytest.raises(UsageError):
            fields(expression).moved(timedelta(hours=2))


@given(
    cron=st.sampled_from(["0 6 * * *", "30 0,23 * * 1", "*/20 * * * *", "15 */5 * * 1-5", "59 23 * * 0", "0 12 * 6 *"]),
    minutes=st.sampled_from([-660, -570, -210, -60, 0, 60, 330, 345, 720]),
)
def test_moved_to_utc_the_times_are_the_same(cron: str, minutes: int) -> None:
    """A week of due times of the expressions in UTC is that of the local one, moved."""
    offset = timedelta(minutes=minutes)
    start, end = datetime(2025, 6, 2, tzinfo=UTC), datetime(2025, 6, 9, tzinfo=UTC)

    def week(expression: str, begin: datetime) -> set[datetime]:
        found: set[datetime] = set()
        for due in CronSim(expression, begin - timedelta(seconds=1)):
            if due >= begin + (end - start):
                return found
            found.add(due)
        return found

    local = {due - offset for due in week(cron, start + offset)}
    assert set().union(*(week(line, start) for line in fields(cron).moved(offset))) == local


def test_jobs_on_one_endpoint_share_the_smallest_limits() -> None:
    """With two places on the endpoint each of its three jobs gets half; the job elsewhere keeps its own."""

    def job(name: str, limits: str, url: str = "https://gateway.example/") -> tuple[str, Job]:
        text = f'name = "{name}"\ndataset = "d"\n[endpoint]\nbase_url = "{url}"\n[limits]\n{limits}\n[schedule]\nevery_s = 60'
        return f"{name}.toml", parse_job(text)

    jobs = [job("a", "rpm = 100"), job("b", "itpm = 5000"), job("c", "rpm = 60"), job("d", "rpm = 9", "https://other.example")]
    one = entries(jobs)
    assert one[0].overrides == ("limits.rpm=60", "limits.itpm=5000")
    assert [each.overrides for each in one[1:]] == [("limits.rpm=60",), ("limits.itpm=5000",), ()]  # the others are its own
    two = entries(jobs, per_endpoint=2)
    assert two[0].overrides == ("limits.rpm=30", "limits.itpm=2500")
    assert two[3].overrides == ()
    assert len({each.table.endpoint for each in one}) == 2
    assert len({each.table.endpoint for each in entries(jobs, simulate=True)}) == 4


def test_a_folder_that_all_runs_would_share_is_refused() -> None:
    """The second run would find the first one's finished, call nothing, and be green for ever."""
    with pytest.raises(UsageError, match="runs of a schedule cannot share one folder"):
        entries([("a.toml", parse_job('name = "a"\nout = "runs/fixed"\ndataset = "d"\n[schedule]\nevery_s = 60'))])


def test_two_jobs_of_one_name_are_refused() -> None:
    one = entry(NIGHTLY)
    with pytest.raises(UsageError, match=r"nightly is also the name of a\.toml"):
        entries([("a.toml", one.job), ("b.toml", one.job)])


def test_the_command_of_a_run_and_of_going_on_with_one(tmp_path: Any) -> None:
    text = 'name = "n"\ndataset = "d"\n[schedule]\nevery_s = 60\ndeadline_s = 30'
    (one,) = entries([("n.toml", parse_job(text))], simulate=True, overrides=("request.model=m",))
    assert one.command()[1:] == [
        "-m", "batchrun", "run", "n.toml", "--simulate", "--quiet",
        "--set", "request.model=m", "--set", "limits.deadline_s=30",
    ]  # fmt: skip
    assert one.command(tmp_path)[3:6] == ["resume", str(tmp_path), "--quiet"]
    assert json.loads(json.dumps(one.command())) == one.command()
