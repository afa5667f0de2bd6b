"""Draws docs/providers.md: the table comes from the code, the rest stands here. A test holds the two equal.

Run from the checkout: `python -m docs.make_providers`.
"""

from __future__ import annotations

from pathlib import Path

from batchrunner import plugins
from batchrunner.providers.base import ProviderKind

PAGE = Path(__file__).with_name("providers.md")

INTRODUCTION = """\
# Providers

Made by `python -m docs.make_providers`; don't edit it by hand. `batchrunner providers` shows the same of what is
installed, and whether a key is set.

A shot goes to the service of its model, so one manifest may use several side by side: stills of one, drafts of
another, finals of a third. `provider: fal` in the manifest's head makes every other service's model an error. Each
service has a key, a pace, a hold after a 429 and a circuit breaker of its own: what one refuses stops its own jobs
and nobody else's, and the run goes on. There is one budget over all of them.

A shot has no `provider:` of its own. Where two services offer the same, they are two models, each with its own fields
and price, and `model:` (in the defaults, a profile or a shot) switches between them: the common names (`first_frame`,
`duration`, ...) need not be touched. `plan --requests` shows what would be sent, and `plan` what each account has left.

```yaml
version: 1
batch: mixed
budget: {max_credits: 5000}
limits:
  in_flight: 40                                   # of all together
  providers: {replicate: {in_flight: 10}}         # and of these alone
  models: {fal-ai/kling-video/v3/turbo/pro/text-to-video: {submits_per_minute: 30}}
defaults: {prompt: a corgi on the beach}
shots:
  - {id: still, model: fal-ai/flux/schnell}
  - {id: draft, model: kling-3-0-turbo, first_frame: "${shots.still.output_url}"}
  - {id: other, model: black-forest-labs/flux-schnell, num_outputs: 2}
```

`run --simulate` needs no key for any of them. The simulator speaks all their dialects, with one account.

## What each can do
"""

MEANING = """\
- **lost answer**: what becomes of a submission whose answer was not read. *held* means that nothing can be looked up:
  the job is `unconfirmed`, and waits for your word (`batchrunner resolve`). None of these services documents an
  idempotency key or a lookup that would be certain. *looked up* means that a run asks the service ([below](#a-lookup)).
- **cancel**: `batchrunner cancel` asks the service for running jobs too. A job stays `running` until a poll says how
  its task ended: `failed`, or done all the same where the wish came too late. It works beside a run and without one,
  and records nothing. What has run may be charged (below).
- **over the limit**: *429* refuses, and nothing is created; *queued* accepts, and the task waits there.
- **outputs kept**: how long a file can be fetched. A run fetches at once; what ended while no run was there may be
  gone at a service that keeps it for an hour.
- **failed tasks**: *refunded* means never charged. *counted* means that the pages promise no refund in general: such a
  failure counts as spent in the budget (unless this very one is documented as free), and `retry:` never submits it
  again by itself; `batchrunner retry` is your word that it may.

## Keys and addresses

A key is read from the environment alone, never from a flag or a manifest, and is shown nowhere. The ledger remembers
for each provider at which address its key was first used, and refuses another one: a task's id means nothing there.
"""

NOTES = """\
## fal

[Queue API](https://fal.ai/docs/api-reference/inference-api): `POST /{model}` answers with a `request_id`; status and
result are asked for below the first two parts of the model's name. The page advises to take the URLs of the answer
instead; they are built here, so that the key goes to no address that an answer names.

- Status 500 and above is [never charged](https://fal.ai/docs/documentation/model-apis/faq), 422 may be: a
  [moderated](https://fal.ai/docs/documentation/model-apis/errors) request counts as spent.
- An error of a result counts as the model's only where it is typed (`type` or
  [`error_type`](https://fal.ai/docs/documentation/model-apis/request-errors)); any other is asked for again.
- An account without credit is answered 403, with the reason in words only
  ([seen](https://github.com/fal-ai/fal/issues/1147)): the run ends with 6 as for a refused key, and says why.
- A result is kept [for an hour, or 6 minutes from 10 KB on](https://fal.ai/docs/inference-api/queue/result), unless
  payloads are stored: a run that comes back later may find the task `lost`.
- Not verified: how a status of a failed request looks beyond `COMPLETED`; what the status of a cancelled one is; for
  how long files on fal.media stay. `X-Fal-Idempotency-Key` is sent by other people's clients and promised on no page:
  it is not sent, and nothing rests on it.

## Replicate

[HTTP API](https://replicate.com/docs/reference/http): `POST /v1/models/{owner}/{name}/predictions` with
`{"input": {...}}` answers 201 with an `id`; `GET /v1/predictions/{id}`. `Prefer: wait` is not sent.

- Files are gone [after an hour](https://replicate.com/docs/topics/predictions/data-retention). A prediction that
  succeeded and whose data were removed before a run came back is `failed`, and counts as spent.
- What was `aborted` never ran and is free; what was `canceled` is
  [charged for the time that it ran](https://replicate.com/docs/topics/predictions/lifecycle). Whether a failed one is
  charged depends on the model, so that it counts as spent.
- [600 predictions a minute](https://replicate.com/docs/topics/predictions/rate-limits); without a Retry-After header
  the wait grows from a second.
- The list of predictions shows their input. Two takes of one prompt have the same input, and others may use the
  account: nothing in it makes a match certain, so that it is not used as a lookup.
- Not verified: whether a 429 has a Retry-After header; the code `E005` of flagged content, which is seen in reports
  and stands on no page; whether every error has a `detail`.

## A lookup

Where a service keeps a name that we give to a submission, and can be asked by it, a lost answer settles itself. None of
the shipped services documents such a call; a provider that a package brings may have one (`Capabilities.lookup`).

- The name is 40 hex digits over batch, key, fingerprint, attempt and the times at which batch and job were recorded: no
  other submission of any ledger has it, nothing random is in it, and it can be made again after any crash. It goes
  with the POST of such a provider, and of no other.
- After an ambiguous answer, and at its start for every `unconfirmed` job of its batches, a run asks: a free GET, in its
  place among the polls, up to four times with growing pauses.
- **Found**: the job becomes `running` (`show`: by the service's own record) and goes on at no further cost. The answer
  must name this submission and one usable task that no other job has.
- **Not found, or anything else**: the job stays `unconfirmed`, exit code 3, and `show` says what the service said and
  when. It is never sent again for that: a POST that a service knows nothing of may still be on its way (promise P1).
  The next run asks again; `batchrunner resolve` is your word. `--on-unconfirmed resubmit` is your word too: it
  counts for a job once the service has answered that it knows nothing of it. Where it could not be asked, the job is
  held all the same, and `resolve --resubmit` sends it.
- A job of a provider whose package or key is not there stays as it is, and the rest of the run goes on.
- An answer in the service's own words that the key is refused, or a 429, stops or holds the account as for a poll.
- [Workers](cluster-workers.md) that share a ledger don't ask: what they leave `unconfirmed` waits for a `run` of the
  batch without workers, or for your word. `--on-unconfirmed resubmit` beside workers leaves such jobs as they are;
  `resolve --resubmit` sends them.
- An idempotency key that is answered as the first time (`Capabilities.replay`) is not used: it would mean a second POST
  of a request that may have been accepted, and for how long a service remembers a key, or whether it compares the
  request, is each one's own promise. `batchrunner providers --json` shows what a package declares.

## A provider of your own

A package adds one. Nothing of batchrunner changes:

```toml
[project.entry-points."batchrunner.providers"]
acme = "acme_batchrunner:KIND"
```

`KIND` is a `batchrunner.providers.base.ProviderKind`: name, key variables, address, capabilities, and `open`, which
makes a `Provider`. Over HTTP that is a subclass of `providers.http.HttpProvider` with four methods: the body of a POST,
what its answer proves (`replies.submit_verdict` with a `Dialect`, which says where errors and ids stand), how a task
is asked after, and, where there is such a call, the balance. Its models are files for `--models`
([models](models.md)), with `"provider": "acme"`. A name that is shipped can't be taken: a key goes to what was meant.
One with a lookup has two methods more, `_marks` (the header that carries the name of a submission) and `lookup`
(`replies.lookup_verdict`); `tests/providers/beacon.py` is a whole one.

What it must promise, and `tests/providers/test_behaviour.py` holds every shipped one to (`test_crash_points.py` beside
it kills runs at every named point, and again in the recovery, at each of them and in a chain over all; reAPI's deaths
are those of `tests/crash`):

1. Nothing is on the wire before `before_send` has returned; what it raises comes out, and nothing was sent.
2. After that the answer is `Ambiguous`, unless the service's own words prove something else. A proxy's page, a cut
   answer, a redirect, a 5xx, a 2xx without a usable id prove nothing.
3. A POST is sent once. No redirect is followed, nothing is repeated by the client library.
4. A poll's answer counts only where it names the task that was asked for.
5. No method raises for what a server or a network does, and the key is in nothing that is returned.
6. It has a `lookup` exactly where it declares one. `Found` is one usable task under the name that was asked for; any
   other list, a proxy's page, a cut answer prove nothing; `NotFound` is the service's own empty list or its own 404.
"""


def page() -> str:
    """The whole page, as Markdown."""
    kinds: list[ProviderKind] = [plugins.load(name) for name in plugins.SHIPPED]
    lines = [
        INTRODUCTION,
        "| provider | lost answer | cancel | over the limit | outputs kept | failed tasks | balance | webhook |",
        "|---|---|---|---|---|---|---|---|",
        *map(_row, kinds),
        "",
        MEANING,
        "| provider | key | address, and its variable |",
        "|---|---|---|",
    ]
    lines += [
        f"| {k.name} | {' or '.join(f'`{key}`' for key in k.keys)} | {k.base_url}, `{k.base_variable}` |" for k in kinds
    ]
    return "\n".join([*lines, "", NOTES])


def _row(kind: ProviderKind) -> str:
    can = kind.capabilities
    kept = "not said" if can.output_hours is None else f"{can.output_hours:g} h"
    lost = "looked up" if can.lookup else "held"
    failed = "refunded" if can.refunds else "counted"
    yes = {True: "yes", False: "no"}
    webhook = "yes, not used" if can.webhook else "no"
    return (
        f"| [{kind.name}]({kind.source}) | {lost} | {yes[can.cancel]} | {can.over_limit.value} | {kept} | {failed} "
        f"| {yes[can.balance]} | {webhook} |"
    )


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
