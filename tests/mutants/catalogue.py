"""Named mistakes, each an edit of the real code that breaks the promise, and the tests that must catch it.

The edited text is short, so that it stays valid while the code around it changes; a test holds that each still stands
in the source exactly once.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.mutants.cluster import CLUSTER


@dataclass(frozen=True, slots=True)
class Edit:
    """Replace `old`, which stands once in `batchrunner/<file>`, by `new`."""

    file: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Mutant:
    """Attributes:
    name: short, unique.
    mistake: what a programmer would have done wrong, in one sentence.
    edits: more than one where another line of defence would hide the mistake.
    tests: pytest node ids that must catch it; any of them is enough.
    """

    name: str
    mistake: str
    edits: tuple[Edit, ...]
    tests: tuple[str, ...]


def _mutant(name: str, mistake: str, file: str, old: str, new: str, *tests: str) -> Mutant:
    return Mutant(name, mistake, (Edit(file, old, new),), tests)


REAPI, ANSWERS, WIRE, FETCH = "providers/reapi.py", "providers/answers.py", "providers/wire.py", "providers/fetch.py"
HTTP, REPLIES, PART = "providers/http.py", "providers/replies.py", "providers/part.py"
MEDIA, GUARD, FOLDERS = "providers/media.py", "providers/netguard.py", "providers/folders.py"
WAITING = "providers/disk.py"
SUBMIT, POLL, DOWNLOAD, RUNNER = "engine/submit.py", "engine/poll.py", "engine/download.py", "engine/runner.py"
SLOTS = "engine/slots.py"
CONTROL, FILES, SPOOL, RECOVER = "engine/control.py", "engine/files.py", "engine/spool.py", "engine/recover.py"
STORE, WRITER, TRANSITIONS = "ledger/store.py", "ledger/writer.py", "ledger/transitions.py"
SQL = "ledger/sql.py"
CONNECTION, LEDGER_FILES, SCHEMA = "ledger/connection.py", "ledger/files.py", "ledger/migrations/0001_first.sql"
LOOKUP, SEND = "engine/lookup.py", "engine/send.py"
LIFECYCLE, PACING, KEYS = "core/lifecycle.py", "core/pacing.py", "core/keys.py"

POSTS = "tests/integration/test_reapi_submit.py"
POLLS = "tests/integration/test_reapi_poll.py"
FETCHES = "tests/integration/test_fetch.py"
RECOVERY = "tests/integration/test_ledger_recovery.py"
MOVES = "tests/unit/test_ledger_transitions.py"
OPENING = "tests/unit/test_ledger_open.py"
SIGNALS = "tests/acceptance/test_signals.py"
REHEARSAL = "tests/acceptance/test_rehearsal.py"
DISK = "tests/system/test_disk.py"
SEEDS = "tests/simulation/test_simulation.py::test_the_promise_holds_for_every_seed"
DEADLINES = "tests/simulation/test_deadline.py"
LOOKUPS = "tests/providers/test_lookup.py"
SOCKET = "tests/integration/test_remote_server.py"
PAGE = "tests/integration/test_live_server.py"
WAKEUPS = "tests/crash/test_lost_wakeup.py"
STREAMING = "tests/integration/test_streaming_start.py"
CHAINS = "tests/acceptance/test_chains.py"
EARLY = "tests/unit/test_early_look.py"
POWER = "tests/powerloss/test_powerloss.py::test_a_power_cut_loses_nothing"

INTENT = (
    _mutant(
        "no_intent",
        "Nothing is recorded before a POST.",
        HTTP,
        "await self.before_send()",
        "pass",
        f"{POSTS}::test_the_hook_is_awaited_before_the_first_byte",
    ),
    _mutant(
        "late_intent",
        "The intent is committed when the answer has begun to come, not before the first byte.",
        HTTP,
        "trace.on_request_headers_sent.append(_hook)",
        "trace.on_request_end.append(_hook)",
        f"{POSTS}::test_the_hook_is_awaited_before_the_first_byte",
    ),
    _mutant(
        "dead_connection_used",
        "A connection that the server closed during the commit is written to all the same.",
        HTTP,
        "if protocol is None or protocol.should_close or not protocol.is_connected():",
        "if protocol is None:",
        f"{POSTS}::test_a_server_that_speaks_or_leaves_before_it_is_asked",
    ),
    _mutant(
        "second_send_allowed",
        "One intent lets a POST go out twice.",
        HTTP,
        "if self.open:\n            raise",
        "if False:\n            raise",
        f"{POSTS}::test_a_second_send_of_one_post_is_refused",
    ),
    _mutant(
        "clock_starts_early",
        "The time allowed for an answer runs while the intent is being committed.",
        HTTP,
        "asyncio.timeout(None) as post.deadline",
        "asyncio.timeout(post.allowed) as post.deadline",
        f"{POSTS}::test_the_clock_of_a_post_starts_when_the_intent_is_durable",
    ),
    _mutant(
        "written_behind",
        "A transition counts as made before it is committed.",
        STORE,
        "await self._writer.put(Change(",
        "self._writer.put(Change(",
        MOVES,
        RECOVERY,
    ),
)

DURABLE = (
    _mutant(
        "synchronous_normal",
        "The ledger runs with synchronous=NORMAL.",
        CONNECTION,
        '"synchronous", 2)',
        '"synchronous", 1)',
        f"{POWER}[plain]",
        f"{OPENING}::test_the_settings_that_the_promise_rests_on",
    ),
    _mutant(
        "no_folder_sync",
        "A file gets its final name and the folder is not synced.",
        FILES,
        '    yield target.parent\n    crash("place.folder_synced")',
        '    crash("place.folder_synced")',
        "tests/unit/test_files.py::test_what_is_durable_before_what",
        f"{POWER}[plain]",
    ),
    _mutant(
        "no_part_sync",
        "A downloaded file is not synced before it gets its final name.",
        PART,
        "yield self._descriptor",
        "pass",
        f"{FETCHES}::test_what_came_home_is_durable",
    ),
    _mutant(
        "no_sidecar_sync",
        "The facts beside a file are not synced.",
        FILES,
        "yield descriptor\n    finally:\n        os.close(descriptor)\n    try:\n        give_name",
        "yield from ()\n    finally:\n        os.close(descriptor)\n    try:\n        give_name",
        "tests/unit/test_files.py::test_what_is_durable_before_what",
    ),
    _mutant(
        "no_spool_sync",
        "A task id that the ledger could not take is written to the spool and not synced.",
        SPOOL,
        "        os.fsync(self._fd)",
        "        pass",
        "tests/unit/test_spool.py::test_a_record_is_durable_when_append_returns",
    ),
    _mutant(
        "old_name_removed_first",
        "The old name of a file goes before the new one is durable.",
        FILES,
        '    crash("place.renamed")\n',
        '    os.unlink(part)\n    crash("place.renamed")\n',
        "tests/unit/test_files.py::test_what_is_durable_before_what",
        f"{POWER}[plain]",
    ),
)

SENT_AGAIN = (
    _mutant(
        "post_redirected",
        "A POST follows redirects.",
        HTTP,
        "allow_redirects=False,\n                    trace_request_ctx=post",
        "allow_redirects=True,\n                    trace_request_ctx=post",
        f"{POSTS}::test_no_redirect_is_followed",
    ),
    _mutant(
        "poll_redirected",
        "A poll follows redirects, with the key.",
        HTTP,
        "encoded=True), allow_redirects=False",
        "encoded=True), allow_redirects=True",
        f"{POLLS}::test_no_redirect_is_followed",
    ),
    _mutant(
        "download_redirected",
        "A download follows redirects without looking where they lead.",
        FETCH,
        "allow_redirects=False",
        "allow_redirects=True",
        FETCHES,
    ),
    _mutant(
        "post_retried_on_reset",
        "A POST whose connection broke is sent again.",
        HTTP,
        "        return self._verdict(post, failure)",
        "        if isinstance(failure, aiohttp.ClientConnectionError) and post.open:\n"
        "            post = _Post(before_send, self._settings.submit_timeout)\n"
        "            failure = await self._post(known.endpoint, self._body(known, request), post, label)\n"
        "        return self._verdict(post, failure)",
        f"{POSTS}::test_a_reset",
    ),
    _mutant(
        "post_retried_on_500",
        "A 5xx counts as not sent, so that the job goes back to pending.",
        REPLIES,
        "        case 429:\n            return Throttled(problem,",
        "        case 500 | 502 | 503 | 504:\n            return NotSent(problem)\n"
        "        case 429:\n            return Throttled(problem,",
        f"{POSTS}::test_everything_else_is_ambiguous",
    ),
    _mutant(
        "post_retried_on_nonsense",
        "A malformed answer counts as none.",
        HTTP,
        "        return Ambiguous(explain(failure)",
        "        if isinstance(failure, aiohttp.ClientResponseError):\n            return NotSent(explain(failure))\n"
        "        return Ambiguous(explain(failure)",
        f"{POSTS}::test_everything_else_is_ambiguous",
    ),
    _mutant(
        "status_from_an_exception",
        "The status of an exception counts as the server's word.",
        HTTP,
        "        return Ambiguous(explain(failure)",
        "        if isinstance(failure, aiohttp.ClientResponseError) and failure.status == 400:\n"
        "            return Rejected(explain(failure))\n"
        "        return Ambiguous(explain(failure)",
        f"{POSTS}::test_everything_else_is_ambiguous",
    ),
    _mutant(
        "connections_shared",
        "POSTs use kept connections, which the server may have closed.",
        HTTP,
        "force_close=True",
        "force_close=False",
        f"{POSTS}::test_every_post_has_a_connection_of_its_own",
    ),
    _mutant(
        "poll_resent",
        "aiohttp sends a GET again by itself, past every limit.",
        HTTP,
        "session._retry_connection = False",
        "session._retry_connection = True",
        f"{POLLS}::test_a_dead_kept_connection_is_a_failed_poll_and_no_second_get",
    ),
    _mutant(
        "cancelled_post_forgotten",
        "A POST that is cancelled on the wire raises instead of answering.",
        HTTP,
        "except (KeyboardInterrupt,",
        "except (asyncio.CancelledError, KeyboardInterrupt,",
        f"{POSTS}::test_cancelled_when_it_may_have_been_sent",
    ),
    _mutant(
        "posts_abandoned_at_a_signal",
        "A run that is told to end does not wait for the POSTs on the wire.",
        RUNNER,
        "while not drain.done():",
        "while False:",
        f"{SIGNALS}::test_a_signal_lets_the_posts_on_the_wire_be_answered_and_recorded",
    ),
    _mutant(
        "interrupted_is_pending",
        "What was on the wire when the runner died counts as not sent.",
        RECOVER,
        "advance(job, interrupted)",
        'advance(job, e.NotSent(Problem("probably not")))',
        f"{RECOVERY}::test_a_submission_without_an_answer_is_unconfirmed",
    ),
    _mutant(
        "expired_url_resubmits",
        "A dead output URL sends the job to pending: it is paid for again.",
        LIFECYCLE,
        "return Running(fact.attempt, fact.task_id, fact.renewals + 1)",
        "return Pending(fact.attempt)",
        "tests/unit/test_lifecycle.py",
        f"{SIGNALS}::test_a_dead_link_is_renewed_once",
    ),
    _mutant(
        "vanished_task_resubmits",
        "A task that the provider does not know any more is submitted again.",
        LIFECYCLE,
        "return Failed(fact.attempt, FailureKind.LOST, problem, fact.task_id)",
        "return Pending(fact.attempt)",
        "tests/unit/test_lifecycle.py",
        f"{SIGNALS}::test_a_task_that_nobody_knows_any_more_is_lost",
    ),
    _mutant(
        "one_404_is_lost",
        "One 404 is enough to give a paid task up.",
        POLL,
        ">= self._settings.lost_after:",
        ">= 0.0:",
        f"{SIGNALS}::test_a_task_that_is_missing_for_a_while_is_not_lost",
    ),
    _mutant(
        "charged_task_retried",
        "A task that was complete once, and charged, is submitted again when it is failed later.",
        "core/retry.py",
        " or (isinstance(job.fact, Running) and job.fact.renewals):",
        ":",
        "tests/unit/test_retry.py",
    ),
    _mutant(
        "retries_one_too_many",
        "The retry budget allows one submission more than the manifest says.",
        "core/retry.py",
        "used >= allowed",
        "used > allowed",
        "tests/unit/test_retry.py",
    ),
    _mutant(
        "batch_retry_pays_twice",
        "`retry BATCH` also takes the failures that were charged.",
        "engine/words.py",
        "if exact or kind in REFUNDED:",
        "if True:",
        "tests/unit/test_cli_words.py",
    ),
    _mutant(
        "a_key_for_each_order",
        "The same request with its fields in another order is another job.",
        KEYS,
        "sort_keys=True, ",
        "",
        "tests/unit/test_keys.py",
    ),
    _mutant(
        "compare_and_set_dropped",
        "A transition is written whatever state the job is in by now.",
        TRANSITIONS,
        'WHERE id = ? AND state = ? AND attempt = ?"\n)\n_INSERT_HISTORY',
        'WHERE id = ? AND (1 OR state = ? OR attempt = ?)"\n)\n_INSERT_HISTORY',
        MOVES,
    ),
    _mutant(
        "unwanted_is_claimed",
        "A job that nobody asks for any more is submitted all the same.",
        TRANSITIONS,
        '_WANTED = " AND current = 1"',
        '_WANTED = ""',
        MOVES,
    ),
    _mutant(
        "no_row_changed_is_fine",
        "A transition that changed no row counts as made.",
        SQL,
        ".rowcount != 1:",
        ".rowcount > 1:",
        MOVES,
    ),
    _mutant(
        "lock_not_taken",
        "A run does not take the lock.",
        STORE,
        "        lock.acquire()\n",
        "",
        f"{OPENING}::test_one_runner_at_a_time",
    ),
    _mutant(
        "log_not_settled",
        "What a dead runner did not live to sync is left so, and the next commit is written behind it.",
        CONNECTION,
        "if damaged is None and settle:",
        "if damaged is None and settle and False:",
        f"{OPENING}::test_what_a_dead_runner_did_not_live_to_sync_is_durable_before_anything_is_written",
    ),
    _mutant(
        "lock_lost",
        "The lock is let go as soon as it is held.",
        LEDGER_FILES,
        "        self._fd = fd\n",
        "        os.close(fd)\n",
        f"{OPENING}::test_one_runner_at_a_time",
    ),
    _mutant(
        "consent_not_needed",
        "The ledger takes another submission after a doubtful one without anybody's word.",
        SCHEMA,
        "money <> 'none' AND consent IS NULL)",
        "money = 'nothing' AND consent IS NULL)",
        "tests/unit/test_ledger_schema.py",
    ),
)

ANSWERED = (
    _mutant(
        "doubt_is_a_failure",
        "A status that proves nothing counts as a refusal.",
        REPLIES,
        'return Ambiguous(evidence_of(reply, "unexpected_status"',
        'return Rejected(evidence_of(reply, "unexpected_status"',
        f"{POSTS}::test_everything_else_is_ambiguous",
    ),
    _mutant(
        "any_400_believed",
        "A 4xx without the provider's envelope (a proxy's page) counts as a refusal.",
        REPLIES,
        "    if error is None:\n        return Ambiguous(",
        "    if error is None and 400 <= reply.status < 500:\n"
        '        return Rejected(evidence_of(reply, "refused", "refused", error, key))\n'
        "    if error is None:\n        return Ambiguous(",
        f"{POSTS}::test_everything_else_is_ambiguous",
    ),
    _mutant(
        "cut_error_believed",
        "An error of which only a part was read counts as proof.",
        REPLIES,
        "if reply.cut or named or",
        "if named or",
        POSTS,
        "tests/unit/test_answers.py",
    ),
    _mutant(
        "error_with_an_id_believed",
        "An error that names a task counts as proof that none was created.",
        REPLIES,
        "if reply.cut or named or",
        "if reply.cut or",
        f"{POSTS}::test_everything_else_is_ambiguous",
    ),
    _mutant(
        "first_of_two_ids",
        "Of an answer that names two tasks the first is taken.",
        REPLIES,
        "if any(other != first for other in named):",
        "if False:",
        f"{POSTS}::test_everything_else_is_ambiguous",
    ),
    _mutant(
        "any_text_is_an_id",
        "A task id may be any text, and goes into the URL as it is.",
        REPLIES,
        "isinstance(text, str) and _ID.fullmatch(text) is not None and text",
        "isinstance(text, str) and text",
        f"{POSTS}::test_everything_else_is_ambiguous",
        f"{POLLS}::test_what_is_no_task_id_is_not_asked_for",
    ),
    Mutant(
        "task_id_not_escaped",
        "A task id from the ledger goes into the URL unchecked and unescaped.",
        (
            Edit(REAPI, "{quote(task_id, safe='')}", "{task_id}"),
            Edit(HTTP, "if not usable_task_id(task_id):", "if False:"),
        ),
        (f"{POLLS}::test_what_is_no_task_id_is_not_asked_for",),
    ),
    _mutant(
        "poll_id_not_checked",
        "A poll's answer may be about any task.",
        REPLIES,
        "if not named or any(value != task_id for value in named):",
        "if False:",
        f"{POLLS}::test_poll_that_says_little",
    ),
    _mutant(
        "any_404_is_missing",
        "A proxy's 404 counts as the provider not knowing the task.",
        REPLIES,
        "    if reply.status == 404 and error is not None:\n        return Missing(problem_of(reply, error, key))",
        "    if reply.status == 404:\n        return Missing(problem_of(reply, error or {}, key))",
        f"{POLLS}::test_poll_that_says_little",
    ),
    Mutant(
        "duplicate_task_accepted",
        "One task id may belong to two submissions.",
        (
            Edit(TRANSITIONS, "            self._check_task(connection, event.task_id)\n", ""),
            Edit(SCHEMA, "CREATE UNIQUE INDEX attempt_task", "CREATE INDEX attempt_task"),
        ),
        (f"{MOVES}::test_a_task_belongs_to_one_submission",),
    ),
    _mutant(
        "no_limit_on_answers",
        "An answer is read to its end, however long.",
        WIRE,
        "if len(into) > limit:",
        "if False:",
        "tests/unit/test_reapi_settings.py::test_a_body_is_read_up_to_the_limit_and_no_further",
    ),
    _mutant(
        "bomb_unpacked",
        "A compressed answer is unpacked whole before its size is looked at.",
        REPLIES,
        "inflate.decompress(body, MAX_ANSWER + 1)",
        "inflate.decompress(body)",
        "tests/unit/test_answers.py::test_a_bomb_is_not_unpacked",
    ),
    _mutant(
        "retry_after_unclamped",
        "A server may hold the runner for a year.",
        PACING,
        "return min(MAX_RETRY_AFTER, max(0.0, seconds))",
        "return max(0.0, seconds)",
        "tests/unit/test_pacing.py",
    ),
    _mutant(
        "hold_of_one_job",
        "A 429 holds the job that it met, and the others go on.",
        CONTROL,
        "self._held_until = max(self._held_until, now + wait)",
        "self._held_until = max(self._held_until, now)",
        "tests/unit/test_control.py",
    ),
    _mutant(
        "no_breaker",
        "Doubtful answers never stop the submissions.",
        CONTROL,
        "if self._ambiguous >= MAX_AMBIGUOUS_IN_A_ROW:",
        "if False:",
        "tests/unit/test_control.py::test_breaker",
        f"{SIGNALS}::test_three_doubts_in_a_row_stop_submitting",
    ),
)

RECORDED = (
    _mutant(
        "commit_error_swallowed",
        "A commit that failed counts as made.",
        WRITER,
        '            connection.execute("ROLLBACK")\n        raise\n    return results',
        '            connection.execute("ROLLBACK")\n        return [None] * len(operations)\n    return results',
        "tests/unit/test_writer.py",
    ),
    _mutant(
        "failed_group_left_open",
        "A transaction that failed is not rolled back.",
        WRITER,
        "    except Exception:\n        if connection.in_transaction:\n",
        "    except Exception:\n        if False:\n",
        "tests/unit/test_writer.py",
    ),
    _mutant(
        "uncommitted_read",
        "What another task has written and not committed is read, or read half.",
        WRITER,
        "        async with self._turn:\n            with _readable():",
        "        if True:\n            with _readable():",
        "tests/unit/test_writer.py",
    ),
    _mutant(
        "cancelled_wait_lets_others_in",
        "A cancelled wait takes back a commit that is under way.",
        WRITER,
        "return await asyncio.shield(task)",
        "return await task",
        "tests/unit/test_writer.py",
    ),
    _mutant(
        "damaged_request_sent",
        "A request that was damaged in the ledger is paid for.",
        STORE,
        "if not genuine(",
        "if False and not genuine(",
        "tests/unit/test_ledger_due.py::test_a_damaged_request_is_not_sent",
    ),
    _mutant(
        "write_failure_is_nothing",
        "An operation that failed resolves as if it had been done.",
        WRITER,
        "    if isinstance(result, BaseException):\n        future.set_exception(result)",
        "    if isinstance(result, BaseException):\n        future.set_result(None)\n        return\n"
        "        future.set_exception(result)",
        "tests/unit/test_writer.py",
        MOVES,
    ),
    _mutant(
        "id_not_spooled",
        "A task id that the full disk did not let into the ledger is kept nowhere.",
        SEND,
        "self._deps.spool.append(",
        "str(",
        "tests/system/test_disk.py::test_a_ledger_that_may_not_grow",
        "tests/system/test_disk.py::test_an_io_error_of_the_ledger",
    ),
    _mutant(
        "spool_not_replayed",
        "What stands in the spool is forgotten at the next start.",
        RECOVER,
        "in books.spool.found:",
        "in []:",
        f"{RECOVERY}::test_an_id_in_the_spool_is_recorded",
    ),
    _mutant(
        "spool_cleared_first",
        "The spool is emptied before its ids are in the ledger.",
        RECOVER,
        "        for spooled in books.spool.found:",
        "        found = list(books.spool.found)\n        books.spool.clear()\n        for spooled in found:",
        f"{RECOVERY}::test_a_death_between_two_ids_of_the_spool",
    ),
    _mutant(
        "gives_up_recording",
        "A received id whose commit failed is not tried again.",
        SEND,
        "                if self._control.ended:\n",
        "                if True:\n",
        "tests/system/test_disk.py::test_a_passing_error_is_tried_again",
    ),
    _mutant(
        "old_revisions_forgotten",
        "Tasks of an edited shot that were paid for are not followed.",
        "ledger/due.py",
        'f"AND batch_id IN ({marks(batches)}) ORDER BY next_poll_at',
        'f"AND current = 1 AND batch_id IN ({marks(batches)}) ORDER BY next_poll_at',
        "tests/unit/test_ledger_due.py",
    ),
    _mutant(
        "removed_jobs_sent",
        "Jobs that the manifest does not ask for any more are still sent.",
        "ledger/due.py",
        "AND state = 'pending' AND current = 1 AND {condition}",
        "AND state = 'pending' AND {condition}",
        "tests/unit/test_ledger_due.py",
    ),
    _mutant(
        "foreign_database_taken",
        "A database of another program is taken for a ledger.",
        CONNECTION,
        "if tables and application != APPLICATION_ID:",
        "if False:",
        f"{OPENING}::test_a_database_of_another_program",
    ),
    _mutant(
        "damage_not_looked_for",
        "A damaged ledger is worked on.",
        CONNECTION,
        '        if result != "ok":',
        "        if False:",
        f"{OPENING}::test_a_quick_check_that_finds_something",
    ),
    _mutant(
        "reader_may_write",
        "`status` opens the ledger for writing.",
        CONNECTION,
        "?mode=ro",
        "?mode=rw",
        f"{OPENING}::test_a_reader_cannot_write",
    ),
    _mutant(
        "ledger_by_a_link",
        "The ledger may be a symbolic link.",
        LEDGER_FILES,
        "if stat.S_ISLNK(info.st_mode):",
        "if False:",
        f"{OPENING}::test_a_symlink",
    ),
    _mutant(
        "same_place_same_job",
        "A job whose request was changed passes for the one that stands in the ledger in its place.",
        "ledger/record.py",
        "        fingerprint == job.fingerprint\n        and key",
        "        key",
        "tests/unit/test_ledger_record.py::test_what_is_left_out_changes_nothing",
    ),
    _mutant(
        "missing_part_not_noted",
        "A batch of which only a part is recorded passes for the whole.",
        "ledger/record.py",
        "(left, batch_id))",
        "(0 * left, batch_id))",
        f"{STREAMING}::test_what_was_cut_short_is_said_and_made_whole",
    ),
    _mutant(
        "known_batch_in_parts",
        "A batch that the ledger knows is recorded as if it were new.",
        "ledger/record.py",
        "WHERE name = ? OR output_dir = ?",
        "WHERE name = ? AND output_dir = ? AND 0",
        f"{STREAMING}::test_a_batch_of_which_a_part_is_known",
    ),
    _mutant(
        "shared_folder_in_parts",
        "A batch is sent before all its files are held against those of another batch.",
        "ledger/record.py",
        "WHERE name = ? OR output_dir = ?",
        "WHERE name = ? OR 0 * length(?)",
        f"{STREAMING}::test_two_batches_in_one_folder_are_held_against_each_other",
    ),
    _mutant(
        "full_folder_in_parts",
        "A batch is paid for before all its files are looked for on disk.",
        "recording.py",
        "            return next(entries, None) is None",
        "            return True",
        f"{STREAMING}::test_a_folder_with_something_in_it_is_looked_at_whole",
    ),
    _mutant(
        "part_exits_with_0",
        "The exit code says nothing of jobs that never got into the ledger.",
        "runs.py",
        "if unrecorded or any(",
        "if any(",
        f"{STREAMING}::test_what_was_cut_short_is_said_and_made_whole",
    ),
    _mutant(
        "early_look_never_stale",
        "What was found before another run wrote is believed.",
        "ledger/early.py",
        " and _version(connection) == before",
        "",
        f"{EARLY}::test_a_commit_meanwhile_makes_it_worthless",
    ),
    _mutant(
        "early_look_sees_nothing",
        "The look beside the manifest does not look.",
        "ledger/early.py",
        "whole = whole and audit.find(connection) is None",
        "pass",
        f"{EARLY}::test_a_lie_that_sqlite_would_not_see",
    ),
    _mutant(
        "doubt_exits_with_0",
        "The exit code says nothing of jobs that a person must look at.",
        "runs.py",
        "if current.get(State.UNCONFIRMED) or old.get(State.UNCONFIRMED):",
        "if False:",
        "tests/unit/test_exit_code.py",
    ),
)

MONEY = (
    Mutant(
        "budget_outside_the_transaction",
        "The budget is looked at first, and the claim is written later.",
        (
            Edit(TRANSITIONS, "if cap is not None and job.credits > left:", "if False:"),
            Edit(SCHEMA, "reserved + spent + at_risk + NEW.credits > max_credits)", "max_credits < 0)"),
            Edit(
                STORE,
                "        after = advance(job.fact, event)\n",
                "        after = advance(job.fact, event)\n"
                "        if isinstance(event, e.Claimed):\n"
                '            sql = "SELECT coalesce(max_credits, 1e9) - reserved - spent - at_risk FROM batch"\n'
                "            left = await self._writer.read(lambda c: c.execute(sql).fetchone()[0])\n"
                "            if job.credits > left:\n"
                "                from .errors import BudgetExhausted\n\n"
                '                raise BudgetExhausted("no money is left")\n',
            ),
        ),
        (f"{MOVES}::test_a_crowd_never_goes_beyond_the_budget",),
    ),
    _mutant(
        "cap_not_in_the_schema",
        "The ledger itself would take a claim beyond the cap.",
        SCHEMA,
        "reserved + spent + at_risk + NEW.credits > max_credits)",
        "max_credits < 0)",
        "tests/unit/test_ledger_schema.py",
    ),
    _mutant(
        "throttled_is_charged",
        "A 429 counts as charged.",
        LIFECYCLE,
        "        case e.NotSent() | e.Throttled() | e.Refused()",
        "        case e.Throttled():\n            return Money.SPENT\n        case e.NotSent() | e.Refused()",
        "tests/unit/test_lifecycle.py",
        MOVES,
    ),
    _mutant(
        "doubts_are_free",
        "A doubtful submission counts as not charged.",
        LIFECYCLE,
        "return Money.AT_RISK",
        "return Money.NONE",
        "tests/unit/test_lifecycle.py",
        MOVES,
    ),
    _mutant(
        "refund_believed_after_completion",
        "A task that was complete, and charged, counts as refunded when the provider says so later.",
        LIFECYCLE,
        "    if isinstance(event, e.TaskFailed) and isinstance(before, Running) and before.renewals:",
        "    if False:",
        "tests/unit/test_lifecycle.py",
    ),
    _mutant(
        "price_floored",
        "A price is rounded down.",
        "core/pricing.py",
        "rounding=ROUND_CEILING)",
        'rounding="ROUND_FLOOR")',
        "tests/unit/test_pricing.py",
    ),
    _mutant(
        "in_flight_unbounded",
        "More tasks are in flight than the manifest allows.",
        SLOTS,
        "return self.used < self.limit and (",
        "return True or (",
        "tests/unit/test_control.py::test_slots",
    ),
    _mutant(
        "cap_raised",
        "`--max-credits` may raise the budget of the manifest.",
        "recording.py",
        "max_credits=min(caps) if caps",
        "max_credits=max(caps) if caps",
        f"{SIGNALS}::test_of_two_caps_the_smaller_one_counts",
    ),
)

OUTPUTS = (
    _mutant(
        "container_not_checked",
        "Whatever came is taken for the film.",
        PART,
        'media.check(b"".join(chunks) if alone else self._path, kind, whole=whole)',
        'media.Media(kind, "MP4", ".mp4")',
        FETCHES,
    ),
    _mutant(
        "truncation_accepted",
        "An MP4 whose last box is cut off passes.",
        MEDIA,
        "if size < header or size > end - position:",
        "if size < header:",
        "tests/unit/test_media.py",
    ),
    _mutant(
        "no_limit_on_files",
        "A download may fill the disk.",
        FETCH,
        "        if came > self._max_bytes:",
        "        if False:",
        FETCHES,
    ),
    _mutant(
        "overwritten",
        "A file that has the name already is replaced.",
        "engine/rename.py",
        "        os.link(source, target, follow_symlinks=False)",
        "        os.replace(source, target)",
        "tests/unit/test_files.py",
    ),
    _mutant(
        "one_name_for_all_writers",
        "A worker that was taken for dead and the one that has its job write to the same name.",
        FILES,
        'return _passing(target, writer, "part") if writer else target',
        "return target",
        "tests/unit/test_files.py::test_one_that_was_taken_for_dead_goes_on_beside_another",
    ),
    _mutant(
        "the_second_is_not_looked_at",
        "An output that another worker has placed meanwhile is a failure of the disk.",
        FILES,
        "except (FileExistsError, FileNotFoundError):",
        "except ZeroDivisionError:",
        "tests/unit/test_files.py::test_one_that_was_taken_for_dead_goes_on_beside_another",
    ),
    _mutant(
        "any_file_adopted",
        "Whatever stands under the final name is taken for the output.",
        FILES,
        "if (digest, size) != (done.sha256, done.size):",
        "if False:",
        "tests/unit/test_files.py",
    ),
    _mutant(
        "link_written_through",
        "A `.part` that is a symbolic link is written through.",
        WAITING,
        "os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC",
        "os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC",
        f"{FETCHES}::test_not_even_one_that_appears_at_the_last_moment",
    ),
    _mutant(
        "link_followed_out",
        "A symbolic link in the output folder may lead out of it.",
        FOLDERS,
        "if here != top and top not in here.parents:",
        "if False:",
        "tests/unit/test_files.py::test_no_link_is_followed_out",
    ),
    _mutant(
        "private_address_allowed",
        "An output may be fetched from a private network.",
        GUARD,
        "return is_public(address) or",
        "return True or",
        "tests/unit/test_netguard.py",
    ),
    _mutant(
        "address_not_checked_at_connect",
        "Only the spelling of a host is looked at, not where its name leads.",
        FETCH,
        "socket_factory=self._guard.socket, ",
        "",
        f"{FETCHES}::test_a_name_that_leads_into_a_private_network",
    ),
    _mutant(
        "stored_before_it_is",
        "A job counts as succeeded before its file stands under its final name.",
        DOWNLOAD,
        "placed = yield from put(name, sidecar=sidecar)",
        'placed = Placed(name, sidecar["sha256"], sidecar["bytes"])',
        f"{SIGNALS}::test_a_dead_link_is_renewed_once",
    ),
)

SECRETS = (
    _mutant(
        "key_in_an_error",
        "An error is put into words by its own repr, which holds the request's headers.",
        WIRE,
        "{detail} ({type(error).__name__})",
        "{detail} ({error!r})",
        "tests/unit/test_reapi_settings.py::test_no_error_is_explained_in_its_own_words",
    ),
    _mutant(
        "key_echoed",
        "What a server says is kept even where it repeats the key.",
        WIRE,
        "return secret.hide(text, self._forms)",
        "return text",
        f"{POSTS}::test_everything_else_is_ambiguous",
    ),
    _mutant(
        "key_printed",
        "The repr of the key is the key.",
        WIRE,
        'return "Key(hidden)"',
        'return f"Key({self._value})"',
        "tests/unit/test_reapi_settings.py::test_the_key_can_not_be_printed",
    ),
    _mutant(
        "key_sent_elsewhere",
        "A ledger that was used with one server may be used with another.",
        "ledger/runs.py",
        "elif row[0] != origin:",
        "elif False:",
        "tests/unit/test_ledger_due.py::test_the_account",
    ),
    _mutant(
        "key_over_http",
        "The key may travel unprotected.",
        WIRE,
        'if url.scheme == "http" and not loopback:',
        "if False:",
        "tests/unit/test_reapi_settings.py::test_bad_base_urls",
    ),
    _mutant(
        "proxy_trusted",
        "A proxy of the environment sees every call.",
        HTTP,
        "trust_env=False",
        "trust_env=True",
        f"{POSTS}::test_proxies_of_the_environment_are_not_used",
    ),
    _mutant(
        "proxy_trusted_by_downloads",
        "A proxy of the environment sees every download.",
        FETCH,
        "trust_env=False",
        "trust_env=True",
        f"{FETCHES}::test_proxies_of_the_environment_are_not_used",
    ),
    _mutant(
        "escapes_shown",
        "A prompt or a server's message reaches the terminal as it is.",
        "core/text.py",
        "_escape(c) if unicodedata.category(c) in _DANGEROUS and c not in keep else c",
        "c",
        "tests/unit/test_text.py",
    ),
)

BOUNDS = (
    _mutant(
        "rate_ignored",
        "POSTs go out as fast as the slots allow.",
        SUBMIT,
        "self._pacer.delay(now), ",
        "0.0, ",
        f"{SEEDS}[0]",
    ),
    _mutant(
        "hold_ignored",
        "Submissions go on during the hold of a 429.",
        SUBMIT,
        "max(self._control.hold(), self._control.quiet(),",
        "max(self._control.quiet(),",
        f"{SIGNALS}::test_a_429_holds_every_call",
        f"{SEEDS}[0]",
    ),
    _mutant(
        "hold_forgotten",
        "A hold ends with the run that met it.",
        SEND,
        "self._deps.ledger.save_hold(claimed.provider, until)",
        "pass",
        f"{SIGNALS}::test_a_hold_outlives_the_run",
    ),
    _mutant(
        "limit_ignored",
        "`--limit` limits nothing.",
        SLOTS,
        "self.left -= 1",
        "pass",
        f"{SIGNALS}::test_limit_and_max_credits_on_the_command_line",
    ),
    Mutant(
        "deadline_ignored",
        "Submissions go on after `--until`.",
        (
            Edit(SUBMIT, "if deadline is not None and", "if False and deadline is not None and"),
            Edit(SUBMIT, "if deadline is None:", "if True:"),
        ),
        (f"{SIGNALS}::test_nothing_is_submitted_after_the_deadline",),
    ),
    _mutant(
        "late_ones_are_sent",
        "What would not be done by the deadline is submitted all the same.",
        "core/deadline.py",
        "known.quantile(SURE) <= left",
        "True",
        f"{DEADLINES}::test_nothing_is_sent_that_would_not_be_done_in_time",
    ),
    _mutant(
        "grace_without_end",
        "A task that never ends keeps a run with a deadline alive for ever.",
        RUNNER,
        "self._check_grace()",
        "pass",
        f"{DEADLINES}::test_what_never_ends_is_left_after_the_grace_and_taken_up_by_the_next_night",
    ),
    _mutant(
        "out_of_credit_goes_on",
        "A 402 does not stop the submissions.",
        SEND,
        "self._control.halt(stop, problem.message)",
        "pass",
        f"{SIGNALS}::test_out_of_credit_stops_submitting_and_brings_home_what_runs",
    ),
    _mutant(
        "no_room_ignored",
        "Work is paid for that the disk has no room for.",
        SUBMIT,
        "if free < self._settings.min_free_bytes:",
        "if False:",
        f"{DISK}::test_too_little_room_stops_before_anything_is_paid_for",
    ),
    _mutant(
        "backlog_ignored",
        "Submissions go on however many finished outputs wait to be fetched.",
        SUBMIT,
        "if self._backlog() > max(",
        "if False and self._backlog() > max(",
        f"{SIGNALS}::test_submitting_waits_while_outputs_pile_up",
    ),
    _mutant(
        "clock_believed",
        "A clock that was set back leaves paid tasks unwatched for as long.",
        POLL,
        "min(max(0.0, schedule.next_poll_at - wall), self._settings.poll.longest)",
        "max(0.0, schedule.next_poll_at - wall)",
        f"{SIGNALS}::test_a_schedule_of_another_day_is_not_waited_for",
    ),
    _mutant(
        "moderated_retried",
        "A moderated prompt is sent again on the budget of the other failures.",
        "core/retry.py",
        "job.retry.moderated if failed.moderated else job.retry.provider",
        "job.retry.provider",
        "tests/unit/test_retry.py",
    ),
    _mutant(
        "taken_name_ignored",
        "A job is paid for whose file name is taken.",
        "night.py",
        "        await self._check_outputs(work)\n",
        "",
        f"{REHEARSAL}::test_a_file_that_nobody_knows_is_refused_before_anything_is_paid_for",
    ),
    _mutant(
        "origin_not_bound",
        "A run does not look to which server its ledger belongs.",
        "workbench.py",
        "        await self._ledger.bind_origin(provider.name, self._origin(provider))\n",
        "",
        f"{REHEARSAL}::test_the_ledger_of_a_rehearsal_is_refused_for_a_paid_run",
    ),
    _mutant(
        "consent_for_all",
        "`--on-unconfirmed resubmit --only X` also submits what was not selected.",
        RECOVER,
        "selected(work.ids, work.selection, State.UNCONFIRMED)",
        "selected(work.ids, type(work.selection)(), State.UNCONFIRMED)",
        f"{RECOVERY}::test_consent",
    ),
    _mutant(
        "spool_of_another_attempt",
        "An id in the spool is given to a later attempt of the job.",
        RECOVER,
        "or job.fact.attempt != spooled.attempt:",
        "or False:",
        f"{RECOVERY}::test_an_id_of_another_attempt",
    ),
    _mutant(
        "spool_not_checked",
        "A torn line of the spool is taken for an id.",
        SPOOL,
        "!= zlib.crc32(body):",
        "== None:",
        "tests/unit/test_spool.py",
    ),
    _mutant(
        "redirect_not_checked",
        "A download goes wherever a redirect points.",
        GUARD,
        "        return self.check(target)\n",
        "        return URL(target)\n",
        "tests/unit/test_netguard.py::test_redirects_to_bad_places",
        FETCHES,
    ),
    _mutant(
        "answer_recorded_by_nobody",
        "A POST counts as done before its answer is recorded.",
        SEND,
        "        await self._record(claimed, answer, place)\n",
        "        asyncio.ensure_future(self._record(claimed, answer, place))\n",
        f"{SEEDS}[0]",
    ),
)

REMOTE = (
    _mutant(
        "socket_listens_to_anybody",
        "Another user of the machine is listened to.",
        "remote/server.py",
        "if not peer.trusted:",
        "if False:",
        f"{SOCKET}::test_another_user_is_not_listened_to",
    ),
    Mutant(
        "socket_open_to_all",
        "The socket is made with the mode that the umask leaves.",
        (
            Edit("remote/server.py", "os.fchmod(listener.fileno(), 0o600)", "pass"),
            Edit("remote/server.py", "os.chmod(place.name, 0o600, dir_fd=place.folder)", "pass"),
        ),
        (f"{SOCKET}::test_a_question_and_its_answer",),
    ),
    _mutant(
        "what_is_in_the_way_is_removed",
        "A file that stands in the socket's place is taken for a dead run's socket.",
        "remote/place.py",
        "if not stat.S_ISSOCK(found.st_mode):",
        "if False:",
        f"{SOCKET}::test_what_is_no_socket_is_left_alone",
    ),
    _mutant(
        "pause_is_not_heeded",
        "A paused run submits on.",
        SUBMIT,
        "if self._control.paused_by:",
        "if False:",
        f"{WAKEUPS}::test_jobs_that_are_withdrawn_while_their_page_is_read",
        "tests/acceptance/test_remote.py::test_a_run_is_paused_limited_and_goes_on",
    ),
    _mutant(
        "page_of_withdrawn_jobs",
        "A page that was read before its jobs were withdrawn is kept.",
        SUBMIT,
        "if withdrawals != self._withdrawals:",
        "if False:",
        f"{WAKEUPS}::test_jobs_that_are_withdrawn_while_their_page_is_read",
    ),
    _mutant(
        "page_changes_without_token",
        "Whoever reaches the live page's server changes the run.",
        "live/guard.py",
        "if not hmac.compare_digest(given.encode(), token.encode()):",
        "if False:",
        f"{PAGE}::test_only_who_has_the_token_changes_anything",
    ),
    _mutant(
        "page_answers_to_any_name",
        "A name that was made to mean this machine reaches the live page.",
        "live/guard.py",
        """if request.headers.get("Host", "").lower() not in hosts:""",
        "if False:",
        f"{PAGE}::test_pages_of_other_sites_get_nothing",
    ),
    _mutant(
        "page_serves_any_file",
        "The live page serves what lies outside the batch's folder.",
        "live/looker.py",
        " or not _inside(folder, file)",
        "",
        f"{PAGE}::test_what_lies_elsewhere_or_is_no_medium_is_not_served",
    ),
)

CHAINED = (
    _mutant(
        "child_before_parent",
        "A job is due before the jobs that it needs have succeeded.",
        "ledger/due.py",
        " AND NOT {UNMET}",
        "",
        f"{CHAINS}::test_only_the_child_does_not_pay_for_its_parent",
    ),
    _mutant(
        "reference_sent",
        "What is sent is the job's own request, with references in it.",
        SEND,
        "request = job.request if resolved is None else resolved",
        "request = job.request",
        f"{CHAINS}::test_a_chain_of_three_is_sent_link_by_link_each_with_the_output_before_it",
    ),
    _mutant(
        "sent_request_not_kept",
        "The ledger lets a job that needs others be sent without the request that it is sent as.",
        "ledger/migrations/0006_needs.sql",
        'WHEN (NEW.request IS NULL) = (SELECT instr(request, \'{"$output":{"\') > 0 FROM job WHERE id = NEW.job_id)\n'
        "  OR (NEW.request IS NULL) = EXISTS (SELECT 1 FROM need WHERE job_id = NEW.job_id)\n  OR",
        "WHEN",
        "tests/unit/test_references.py::test_no_intent_before_the_parent_has_succeeded_nor_with_a_reference_in_it",
    ),
    _mutant(
        "dead_url_sent",
        "A URL is sent without a look at whether it lives.",
        "engine/supply.py",
        "            if await self._dead(url) is None:",
        "            if True:",
        f"{CHAINS}::test_a_url_of_an_earlier_night_is_renewed_by_a_free_poll",
    ),
    _mutant(
        "upload_believed",
        "Whatever the upload command prints is sent.",
        "engine/supply.py",
        "return url if dead is None else",
        "return url if True else",
        f"{CHAINS}::test_an_upload_that_gives_no_url_holds_the_child",
    ),
    _mutant(
        "upload_sees_the_key",
        "The upload command is given the key.",
        "programs.py",
        "if name not in hidden",
        "if True",
        f"{CHAINS}::test_the_upload_command_never_sees_the_key",
    ),
    _mutant(
        "parent_not_in_fingerprint",
        "An edited parent leaves its descendants as they are.",
        "manifest/chains.py",
        "return Need(target.key, self._marks[target.key], target.url).reference",
        'return Need(target.key, "", target.url).reference',
        "tests/unit/test_references.py::test_an_edit_changes_all_that_come_from_it_and_nothing_else",
    ),
    _mutant(
        "parent_lost_wakeup",
        "Nobody looks again when a parent's output is on disk.",
        RUNNER,
        "account.submitter.stored()",
        "pass",
        f"{CHAINS}::test_a_chain_of_three_is_sent_link_by_link_each_with_the_output_before_it",
    ),
)

ASKED = (
    _mutant(
        "not_found_sends_again",
        "A submission that the service knows nothing of is sent again, though it may still be on its way.",
        LOOKUP,
        "await self._note(provider, job, said)",
        'await self._deps.advance(job, e.Resubmitted(provider.name, "it knows nothing of it"))',
        f"{LOOKUPS}::test_what_never_arrived_stays_with_a_person",
    ),
    _mutant(
        "any_listed_task_is_found",
        "A lookup's answer counts whichever submission it is about.",
        REPLIES,
        "tokens != [token]",
        "not tokens",
        f"{LOOKUPS}::test_whatever_proves_less_is_no_answer",
    ),
    _mutant(
        "consent_before_asking",
        "`--on-unconfirmed resubmit` sends again what the service could have told of.",
        "night.py",
        "person(), await self._lookups(work.ids))",
        "person())",
        f"{LOOKUPS}::test_a_word_that_it_may_be_sent_again_counts_after_the_service_was_asked",
    ),
    _mutant(
        "consent_without_an_answer",
        "`--on-unconfirmed resubmit` sends again where the service could not be asked.",
        LOOKUP,
        "isinstance(answer, NotFound)",
        "True",
        f"{LOOKUPS}::test_and_does_not_where_it_could_not_be_asked",
    ),
)

MUTANTS: dict[str, Mutant] = {
    mutant.name: mutant
    for mutant in (
        *INTENT,
        *DURABLE,
        *SENT_AGAIN,
        *ANSWERED,
        *RECORDED,
        *MONEY,
        *OUTPUTS,
        *SECRETS,
        *BOUNDS,
        *REMOTE,
        *CHAINED,
        *ASKED,
        *(_mutant(*one) for one in CLUSTER),
    )
}
"""Every mistake by name."""
