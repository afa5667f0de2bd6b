"""`init`: a commented manifest to start from, and what runs one every night."""

from __future__ import annotations

import datetime
import os
import re
from pathlib import Path

import click

from ..core.text import visible
from ..exits import EXIT_OK, UsageError
from ..ledger.address import Address, Server
from .options import TimeOfDay, db_option, ledger_path
from .tables import say

TEMPLATE = """\
{schema}# A batch of shots. Check it: batchrunner validate {file}    Its price: batchrunner plan {file}
version: 1
batch: {batch}                  # the name under which its jobs are remembered; keep it

vars: {{season: winter}}          # ${{season}} in any string; --var season=summer overrides

defaults:                       # under every shot; what a shot says wins
  model: kling-3-0-turbo        # `batchrunner models` lists models, fields and prices
  resolution: 720p
  duration: 5
  aspect_ratio: 16:9

profiles:                       # batchrunner run {file} --profile final
  final: {{resolution: 1080p}}

budget: {{max_credits: 5000}}     # never more than this: 5000 credits are $5.00
# limits: {{submits_per_minute: 60, in_flight: 20}}   # upper bounds; the runner adapts below them
# retry: {{provider: 1}}          # submit again after a failure of the service (it was refunded)

output:
  dir: outputs/${{batch}}         # relative to this file's folder
  name: ${{shot}}-${{take}}.mp4

shots:
  - id: corgi-beach
    prompt: a corgi running on the beach in ${{season}}, cinematic
    takes: 2                    # two clips of the same request
    tags: [hero]                # batchrunner run {file} --tag hero

  - id: paper-boat
    prompt: a paper boat on a rainy street, macro lens

  # A matrix makes a job for every combination:
  # - id: walk
  #   prompt: a walk through the ${{place}} at dawn
  #   matrix: {{place: [dunes, forest], duration: [5, 10]}}
  #   exclude: [{{place: dunes, duration: 10}}]
"""


@click.command(
    epilog="""\b
Examples:
  batchrunner init                 writes manifest.yaml
  batchrunner init nightly.yaml
  batchrunner init --nightly nightly.yaml --at 22:00 --until 06:00
  batchrunner init --nightly nightly.yaml --to units     to look at first; nothing is installed
  batchrunner init --worker --db postgresql://batchrunner_worker@db.example/night

\b
--nightly writes a systemd service, its timer, and a file of mode 0600 for the key, and prints a line for cron.
The service runs in the current folder, as `batchrunner run` does here. docs/nightly.md tells the rest.
--worker writes a systemd template unit for any number of workers of this host, whose outputs go under the current
folder, and a file of mode 0600 for key and password. docs/cluster-deploy.md tells the rest.
"""
)
@click.argument("path", required=False, type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--nightly", "manifest", metavar="MANIFEST", type=click.Path(), help="Write a timer that runs it nightly."
)
@click.option("--worker", is_flag=True, help="Write a service for workers of a ledger in PostgreSQL.")
@click.option("--at", "since", type=TimeOfDay(), default="22:00", show_default=True, help="When the night begins.")
@click.option("--until", type=TimeOfDay(), default="06:00", show_default=True, help="When it is over.")
@click.option("--system", is_flag=True, help="A service of the machine, run as the manifest's owner; else your own.")
@click.option("--to", type=click.Path(file_okay=False, path_type=Path), help="Write into this folder instead.")
@db_option
def init(
    path: Path | None,
    manifest: str | None,
    worker: bool,
    since: datetime.time,
    until: datetime.time,
    system: bool,
    to: Path | None,
    db: Address | None,
) -> int:
    """Write a commented manifest to start from.

    With --nightly: what runs a manifest every night. With --worker: what runs workers on a host. An existing file is
    never overwritten.
    """
    if worker:
        if manifest is not None or path is not None:
            raise UsageError("--worker takes no manifest: workers do whatever is left to them in the ledger")
        return _worker(to, db)
    if manifest is not None:
        if path is not None:
            raise UsageError(f"--nightly {manifest} takes no other file; {path} is one too many")
        return _nightly(manifest, since=since, until=until, system=system, to=to, db=db)
    path = path or Path("manifest.yaml")
    text = manifest_text(path)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        raise UsageError(f"{path} exists and is never overwritten; name another file") from None
    except OSError as error:
        raise UsageError(f"can't write {path}: {error.strerror}") from None
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    name = visible(_word(path))
    say(f"wrote {visible(str(path))}. Now:")
    say(f"  batchrunner plan {name}                 what it would do and cost")
    say(f"  batchrunner run {name} --simulate       free, without a key")
    return EXIT_OK


def _nightly(
    manifest: str, *, since: datetime.time, until: datetime.time, system: bool, to: Path | None, db: Address | None
) -> int:
    from ..nightly import install
    from .loading import load_all

    if since == until:
        raise UsageError("--at and --until are the same time; a night has a beginning and an end")
    [loaded] = load_all([manifest], profile=None, variables={})
    night = install(loaded, since=since, until=until, system=system, to=to, ledger=ledger_path(db))
    for path in night.write():
        say(f"wrote {visible(str(path))}")
    manager = "systemctl" if system else "systemctl --user"
    key = visible(_word(night.settings))
    say("Now:")
    say(f"  put the key behind REAPI_API_KEY= in {key}")
    if to is not None:
        files = f"{_word(night.service_file)} {_word(night.timer_file)}"
        say(f"  systemd-analyze {'' if system else '--user '}verify {visible(files)}")
        say(f"  {manager} link {visible(files)}")
    say(f"  {manager} daemon-reload && {manager} enable --now {night.name}.timer")
    if not system:
        say("  loginctl enable-linger                  runs it while you are not logged in, too")
    journal = f"journalctl {'' if system else '--user '}-u {night.name}"
    say(f"  {manager} list-timers; {journal}   when, and what it said")
    say("Or, instead of the timer, this line in `crontab -e`:")
    say(f"  {visible(night.cron())}")
    return EXIT_OK


def _worker(to: Path | None, db: Address | None) -> int:
    from ..workerunit import NAME, worker_unit

    address = ledger_path(db)
    if not isinstance(address, Server):
        raise UsageError("workers share a ledger in PostgreSQL: name it with --db postgresql://HOST/NAME")
    unit = worker_unit(address, to)
    for path in unit.write():
        say(f"wrote {visible(str(path))}")
    say("Now, as root:")
    say(f"  put key and password in {visible(_word(unit.key_file))}")
    if to is not None:
        say(f"  systemd-analyze verify {visible(_word(unit.unit_file))}")
        say(f"  systemctl link {visible(_word(unit.unit_file))}")
    say(f"  systemctl daemon-reload && systemctl enable --now {NAME}@1 {NAME}@2")
    say(f"  journalctl -u '{NAME}@*'                what they said; `batchrunner status` lists them")
    return EXIT_OK


def manifest_text(path: Path) -> str:
    """The manifest for a file of that name."""
    batch = re.sub(r"[^a-z0-9._-]+", "-", path.stem.lower()).strip("-._")[:100]
    if batch in ("", "manifest"):
        batch = "first"
    return TEMPLATE.format(schema=_schema_line(), batch=batch, file=visible(_word(Path(path.name))))


def _word(path: Path) -> str:
    import shlex

    return shlex.quote(str(path))


def _schema_line() -> str:
    """The line by which an editor finds the schema; nothing where the schemas are not files."""
    from ..catalogue import schema_folder

    folder = schema_folder()
    if not isinstance(folder, Path):
        return ""
    return f"# yaml-language-server: $schema={(folder / 'manifest.schema.json').resolve().as_uri()}\n"
