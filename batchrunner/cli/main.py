"""The command line: one module a verb, imported only when it is called."""

from __future__ import annotations

import importlib

import click

from .. import __version__

COMMANDS: dict[str, tuple[str, str]] = {
    "run": ("run", "Do the main job: submit, poll, download. Run it again to continue."),
    "resume": ("run", "Continue unfinished batches from the ledger alone, without the manifest."),
    "worker": ("worker", "Do what was left to workers: submit, poll, download, beside any number of others."),
    "validate": ("validate", "Check a manifest; nothing is recorded or sent."),
    "plan": ("plan", "Show what a run would do, what it would cost, and how long it would take."),
    "status": ("status", "Counts by state, and credits spent, reserved and at risk."),
    "jobs": ("jobs", "List jobs."),
    "show": ("show", "Everything about one job: request, history, attempts."),
    "check": ("check", "Look at finished files again: whole, unchanged, and as ordered?"),
    "retry": ("words", "Send failed jobs back to pending."),
    "resolve": ("words", "Say what became of an unconfirmed job."),
    "cancel": ("words", "Withdraw pending jobs, and ask the service to cancel running ones where it can."),
    "approve": ("verdict", "Approve finished clips: `promote` makes the final from them."),
    "reject": ("verdict", "Reject finished clips: nothing is promoted from them."),
    "promote": ("run", "Make the finals of approved drafts: their own requests, with a profile's fields over them."),
    "report": ("report", "One self-contained HTML page: clips, costs, failures, the night."),
    "export": ("export", "Results as CSV, JSON or JSONL."),
    "pause": ("remote", "Let the run that is alive submit nothing for now."),
    "continue": ("remote", "Let a paused run submit again."),
    "limits": ("remote", "Show or change the upper bounds of the run that is alive."),
    "serve": ("serve", "A live page of the ledger's batches, for a browser on this machine."),
    "simulate": ("simulate", "A local server that speaks the provider's API."),
    "models": ("models", "List the models, their fields and prices."),
    "providers": (
        "providers",
        "List the services: where the key of each belongs, and what it can do.",
    ),
    "schema": ("models", "Print the JSON Schema of manifests, or of one model's requests."),
    "init": ("init", "Write a commented manifest to start from."),
    "ledger": ("ledger", "Copy a whole ledger, or bring its schema up to date."),
    "doctor": ("doctor", "Check key, balance, disk, SQLite and clock."),
}
"""verb -> (module, one line for the list). A test holds the lines equal to the commands' own help."""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called, so that `--help` costs no import of theirs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"batchrunner.cli.{COMMANDS[cmd_name][0]}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            import difflib

            near = difflib.get_close_matches(args[0], COMMANDS, 1)
            if near:
                raise click.UsageError(f"{error.format_message()} Did you mean {near[0]!r}?", ctx) from None
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


EPILOG = """\b
Start:     batchrunner init first.yaml
           batchrunner run first.yaml --simulate     (free, no key)
           REAPI_API_KEY=... batchrunner run first.yaml
Look:      batchrunner status; batchrunner jobs --state failed
Complete:  eval "$(_BATCHRUNNER_COMPLETE=bash_source batchrunner)"   (or zsh_source, fish_source)

\b
Exit codes: 0 all succeeded   1 some failed   2 usage or manifest   3 a person must look (unconfirmed)
            4 stopped early, run again   5 another runner   6 credentials or network   70 a bug   130, 143 signals
"""


@click.group(
    cls=LazyGroup, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(__version__, "-V", "--version", message="batchrunner %(version)s")
def cli() -> None:
    """Runs hundreds of paid, slow, remote generation jobs from a YAML manifest. Each is paid for once: kill it at
    any moment, run it again, and it continues."""
