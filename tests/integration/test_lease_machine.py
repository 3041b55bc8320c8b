"""The lease machine: whatever producers, holders, stewards and operators do, in any order, and with stale leases
replayed at any later time, the table is what the model says.

`REPROQ_LEASE_MACHINE_EXAMPLES=20000` looks longer than each run of the suite does.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import closing
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from reproq_prefork.errors import RunNotFound, UniqueKeyHeld
from reproq_prefork.model.new_run import NewRun
from reproq_prefork.model.outcome import (
    Cancelled,
    Failure,
    FailureKind,
    Interrupted,
    Outcome,
    Snoozed,
    Success,
)
from reproq_prefork.model.run import (
    FINAL_STATUSES,
    LEGAL_EDGES,
    ClaimedRun,
    LostWorker,
    Place,
    Status,
    TaskRun,
)
from reproq_prefork.model.settlement import RetryPolicy, Settlement, handed_back, settle
from reproq_prefork.model.stored_values import read_moment
from reproq_prefork.spec import Spec
from reproq_prefork.store import copies, operator_store, runs
from reproq_prefork.store.connection import connect
from reproq_prefork.store.deadline import DeadlineConnection
from reproq_prefork.store.fetching import fetch
from reproq_prefork.store.operator_store import OperatorStore
from reproq_prefork.store.statements import statement
from reproq_prefork.store.worker_store import WorkerStore
from tests.support.lease.draws import (
    QUEUES,
    SPECS,
    Turn,
    new_runs,
    options_of,
    outcomes,
    several_turns,
    turns,
    which,
)
from tests.support.lease.model import (
    CANCELLED,
    FAILED,
    LIVE,
    PENDING,
    RUNNING,
    SUCCESSFUL,
    Edge,
    End,
    Model,
    Run,
    Token,
)
from tests.support.lease.table import LeaseTable
from tests.support.postgres.databases import new_database
from tests.support.postgres.servers import Server
from tests.support.rows import audit, stores

EXAMPLES = int(os.environ.get("REPROQ_LEASE_MACHINE_EXAMPLES", "250"))
FEW_EXAMPLES = 100  # in `make test`, which is to be quick
STEPS = 25
EXAMPLE_S = 1.0  # twenty times what one takes on a machine that is not busy
FOR_EVER_S = 1e9


class LeaseMachine(RuleBasedStateMachine):
    """`claims`: whatever was ever claimed, and by whom; a token stays in it when it is stale."""

    def __init__(self, table: LeaseTable) -> None:
        super().__init__()
        table.clear()
        self.table = table
        self.model = Model()
        self.stores: dict[str, WorkerStore] = {}
        self.claims: list[tuple[str, ClaimedRun]] = []
        self.before = self.after = table.now()

    @initialize(ceiling=st.sampled_from([None, None, 2]), several=st.lists(new_runs, min_size=2, max_size=6))
    def begin(self, ceiling: int | None, several: Sequence[dict[str, Any]]) -> None:
        self.model.ceiling = ceiling
        self.steward = stores.steward_store(self.table.url, queues=QUEUES, max_attempts_ceiling=ceiling)
        self.policy = RetryPolicy(1.0, 1.0, ceiling)
        self._fork_a_worker(QUEUES)
        self._fork_a_worker(QUEUES)
        self.enqueue(several)

    # --- producers ---

    @rule(several=st.lists(new_runs, min_size=1, max_size=4))
    def enqueue(self, several: Sequence[dict[str, Any]]) -> None:
        given = [(new["spec"], options_of(new, self.table.made_at)) for new in several]
        connection = self.table.connection
        if len(given) == 1:
            ((spec, options),) = given
            added: Sequence[TaskRun] = [runs.enqueue(connection, spec, **options)]
        else:
            added = runs.enqueue_many(connection, [NewRun.of(spec, **options) for spec, options in given])
        keys: set[str] = set()
        for (_, options), run in zip(given, added, strict=True):
            key = options["unique_key"]
            assert run.created == (self.model.holder_of_key(key) is None and key not in keys)
            keys |= {key} - {None}
        # Runs with keys were inserted in the order of these, and so they have their ids.
        for (spec, options), run in sorted(zip(given, added, strict=True), key=lambda pair: pair[1].id):
            if run.created:
                self.model.add(Run(run.id, spec=spec.hash, **options))
        for (_, options), run in zip(given, added, strict=True):
            holder = self.model.holder_of_key(options["unique_key"])
            assert holder is None or run.id == holder.id

    @rule(which=which | st.none(), spec=st.sampled_from(SPECS))
    def requeue(self, which: int | None, spec: Spec) -> None:
        if which is None or not self.model.runs:
            self._requeue(self.model.newest_of(spec.hash), spec_hash=spec.hash)
        else:
            self._requeue(self._run(which), run_id=self._run(which).id)

    def _requeue(self, original: Run | None, **by: Any) -> None:
        holder = None if original is None else self.model.holder_of_key(original.unique_key)
        if original is None:
            with pytest.raises(RunNotFound):
                runs.requeue(self.table.connection, **by)
        elif holder is not None:
            with pytest.raises(UniqueKeyHeld, match=f"held by run {holder.id},"):
                runs.requeue(self.table.connection, **by)
        else:
            self.model.replay(original, runs.requeue(self.table.connection, **by).id)

    # --- operators ---

    @precondition(lambda machine: machine.model.runs)
    @rule(which=which)
    def cancel(self, which: int) -> None:
        run = self._run(which)
        self.model.cancel(run)
        assert runs.cancel(self.table.connection, run.id).status == run.status

    @precondition(lambda machine: machine.model.runs)
    @rule(which=which, what=st.sampled_from(["this", "successful", "failed", "finished"]))
    def delete(self, which: int, what: str) -> None:
        """A run, whatever it is at, or what has finished in one way or the other."""
        run = self._run(which)
        if what == "this":
            self.table.delete(run.id)
            del self.model.runs[run.id]
        else:
            self._prune(what in ("successful", "finished"), what in ("failed", "finished"))

    def _prune(self, successful: bool, failed: bool) -> None:
        gone = self.model.prune([SUCCESSFUL] * successful + [FAILED, CANCELLED] * failed)
        pruned = OperatorStore(self.table.url).prune(
            older_than_s=0 if successful else FOR_EVER_S, failed_older_than_s=0 if failed else FOR_EVER_S
        )
        assert sum(pruned) == gone

    @precondition(lambda machine: machine.model.runs)
    @rule(which=which)
    def let_a_run_become_due(self, which: int) -> None:
        run = self._run(which)
        if run.status == PENDING and run.due > self.after:
            run.run_after = self.table.make_due(run.id)

    # --- workers ---

    def _fork_a_worker(self, queues: tuple[str, ...]) -> str:
        worker_id = f"w{len(self.stores)}"
        self.stores[worker_id] = stores.worker_store(self.table.url, worker_id, queues=queues)
        self.model.add_worker(worker_id, queues)
        return worker_id

    @rule(turns=several_turns)
    def work(self, turns: Sequence[Turn]) -> None:
        """Where no worker has a lease, the master has forked another."""
        for turn in turns:
            fit = [worker_id for worker_id in self.stores if self.model.has_lease(worker_id)]
            worker_id = self._pick(turn.which, fit) if fit else self._fork_a_worker(turn.queues)
            own = [claimed for holder, claimed in self._current() if holder == worker_id]
            ended = list(zip(own, turn.outcomes, strict=False))
            self._turn(worker_id, ended, turn.max_runs, goes_on=turn.goes_on)
            self.the_table_is_what_the_model_says()

    @rule(which=which, turns=several_turns)
    def drain(self, which: int, turns: Sequence[Turn]) -> None:
        """A worker hands back all it holds; then it, or another, may claim that again."""
        worker_id = self._worker(which)
        own = [claimed for holder, claimed in self._current() if holder == worker_id]
        self._turn(worker_id, [(claimed, None) for claimed in own], 0)
        self.the_table_is_what_the_model_says()
        self.work(turns)

    @rule(turn=turns)
    def work_with_a_lease_that_may_be_over(self, turn: Turn) -> None:
        worker_id = self._worker(turn.which)
        own = [claimed for holder, claimed in self.claims if holder == worker_id]
        self._turn(worker_id, list(zip(own, turn.outcomes, strict=False)), turn.max_runs)

    @precondition(lambda machine: machine._stale())
    @rule(which=which, outcome=outcomes)
    def replay_a_stale_end(self, which: int, outcome: Outcome | None) -> None:
        worker_id, claimed = self._pick(which, self._stale())
        with self.table.unchanged():
            self._turn(worker_id, [(claimed, outcome)], 0)

    @precondition(lambda machine: machine.claims)
    @rule(which=which, current=st.booleans())
    def complete_in_the_tasks_own_transaction(self, which: int, current: bool) -> None:
        """As an atomic task does, with a token that may be stale."""
        worker_id, claimed = self._pick(which, self._any_claim(current))
        token = {"run_id": claimed.id, "claim": claimed.claim, "worker_id": worker_id}
        answer = fetch(
            self.table.connection,
            statement("complete_run"),
            {**token, "result": "2", "last_attempt": "{}"},
        )
        assert bool(answer) == self.model.finish(claimed.token, End(SUCCESSFUL, 2))

    def _turn(
        self,
        worker_id: str,
        ended: Sequence[tuple[ClaimedRun, Outcome | None]],
        max_runs: int,
        *,
        goes_on: bool = False,
    ) -> None:
        places = self._last_places(worker_id) if goes_on else {}
        behind = {
            queue: (-place.priority, read_moment(place.due), place.id) for queue, place in places.items()
        }
        queues = self.model.queues_of(worker_id)
        # What is ended and what is claimed is decided in one moment: no run is both.
        candidates = self.model.claimable(queues, self.after, behind)
        settled = sum(self.model.finish(run.token, self._end(run, outcome)) for run, outcome in ended)
        tokens = self.model.claim(worker_id, candidates, max_runs)

        answer = self.stores[worker_id].finish_and_claim(
            [self._settlement(run, outcome) for run, outcome in ended], max_runs=max_runs, places=places
        )
        assert answer.settled == settled
        assert answer.holds_lease == self.model.has_lease(worker_id)
        assert [run.token for run in answer.runs] == tokens
        for run in answer.runs:
            model = self.model.runs[run.id]
            assert (run.attempt, list(run.history.worker_ids)) == (model.attempts, model.worker_ids)
        self.claims += [(worker_id, run) for run in answer.runs]

    def _last_places(self, worker_id: str) -> dict[str, Place]:
        return {run.queue_name: run.place for holder, run in self.claims if holder == worker_id}

    def _settlement(self, run: ClaimedRun, outcome: Outcome | None) -> Settlement:
        settlement = (
            handed_back(*run.token) if outcome is None else settle(run, outcome, self.policy, random=0.5)
        )
        assert settlement is not None
        return settlement

    def _end(self, run: ClaimedRun, outcome: Outcome | None) -> End:
        """What the design says of it."""
        ceiling = self.model.ceiling
        allowed = run.max_attempts if ceiling is None else min(run.max_attempts, ceiling)
        match outcome:
            case Success():
                return End(SUCCESSFUL, {"n": 1})
            case Failure(kind=kind, retry=retry, retry_after_s=delay_s):
                goes_on = retry and run.attempt < allowed
                return End(PENDING if goes_on else FAILED, error=kind, delay_s=delay_s if goes_on else None)
            case Interrupted() if allowed == 1:
                return End(FAILED, error="shutdown")
            case Cancelled():
                return End(CANCELLED, error="cancelled")
            case Snoozed(after_s):
                return End(PENDING, refunded=True, delay_s=after_s)
            case _:
                return End(PENDING, refunded=True)

    @rule(which=which)
    def deregister(self, which: int) -> None:
        self.stores[self._worker(which)].deregister()
        self.model.leave(self._worker(which))

    # --- time, and stewards ---

    @rule(workers=st.lists(which, max_size=3))
    def renew_and_look(self, workers: Sequence[int]) -> None:
        """Expired leases, and those of workers that are gone, among them."""
        ids = {self._worker(each) for each in workers}
        with_lease = {worker_id for worker_id in ids if self.model.has_lease(worker_id)}
        assert self.steward.renew_leases(ids, lease_s=60) == with_lease
        for worker_id in ids:
            assert self.stores[worker_id].reconnected() == (worker_id in with_lease)
            held = {run.token for run in self.model.held_by(worker_id)}
            assert self.stores[worker_id].held_runs() == held
        sight = self.steward.look(ids, announces=False)
        assert sight.runs_are_due == bool(self.model.claimable(QUEUES, self.after, {}))
        assert {(told.worker_id, told.id, told.claim) for told in sight.to_cancel} == {
            (run.holder, *run.token)
            for run in self.model.runs.values()
            if run.status == RUNNING and run.cancel_requested and run.holder in ids
        }

    @rule(which=which, lease=st.sampled_from(["past", "long past"]))
    def let_the_lease_of_a_worker_end(self, which: int, lease: str) -> None:
        self.table.end_lease_of_worker(self._worker(which), lease)
        self.model.end_lease(self._worker(which), lease)

    @precondition(lambda machine: machine._current())
    @rule(which=which)
    def let_the_lease_of_a_claim_end(self, which: int) -> None:
        run = self._pick(which, [run for run in self.model.runs.values() if run.status == RUNNING])
        self.table.end_lease_of_run(run.id)
        run.own_lease_is_past = True

    @rule(which=which, lost=st.booleans(), turns=several_turns)
    def sweep(self, which: int, lost: bool, turns: Sequence[Turn]) -> None:
        """`lost`: after a host is gone, so that both leases of what a worker of it held are over. Others go on."""
        if lost and self._current():
            self._lose(self._pick(which, self._current())[0])
        swept = self.model.sweep()
        assert sorted(run.id for run in self.steward.sweep_expired()) == sorted(swept)
        self.work(turns)

    def _lose(self, worker_id: str) -> None:
        for run in self.model.held_by(worker_id):
            self.table.end_lease_of_run(run.id)
            run.own_lease_is_past = True
        self.table.end_lease_of_worker(worker_id, "past")
        self.model.end_lease(worker_id, "past")

    @rule(
        which=which,
        started=which | st.none(),
        options=st.tuples(st.booleans(), st.booleans(), st.booleans()),
        turns=several_turns,
    )
    def reset_a_dead_worker(
        self, which: int, started: int | None, options: tuple[bool, bool, bool], turns: Sequence[Turn]
    ) -> None:
        """`started`: one of all that it has ever claimed, so it may be long over. Others go on."""
        charge_all, refund, keep = options
        worker_id = self._worker(which)
        held = {run.id for run in self.model.held_by(worker_id)}
        own = [claimed.token for holder, claimed in self.claims if holder == worker_id]
        own.sort(key=lambda token: token[0] in held)
        token = None if started is None or not own else self._pick(started, own)
        self._reset(worker_id, token, charge_all=charge_all, refund=refund, keep=keep)
        self.work(turns)

    @precondition(lambda machine: machine.claims)
    @rule(which=which, current=st.booleans(), by=which | st.none())
    def hand_back_what_waits(self, which: int, current: bool, by: int | None) -> None:
        """Behind a run that takes long: told of with its holder, or with a token that is stale or another's."""
        holder, claimed = self._pick(which, self._any_claim(current))
        worker_id = holder if by is None else self._worker(by)
        self._hand_back_waiting(worker_id, claimed.token)

    @rule(which=which, dies=st.booleans())
    def tell_late(self, which: int, dies: bool) -> None:
        """What is said of a claim arrives after the worker has handed that back and claimed the same once more."""
        worker_id = self._worker(which)
        own: list[ClaimedRun] = []
        for _ in range(2):
            own = [claimed for holder, claimed in self._current() if holder == worker_id]
            self._turn(worker_id, [(claimed, None) for claimed in own], 0)
            self.the_table_is_what_the_model_says()
            self._turn(worker_id, (), 4)
            self.the_table_is_what_the_model_says()
        for claimed in own[:1]:
            if dies:
                self._reset(worker_id, claimed.token, charge_all=False, refund=False, keep=False)
            else:
                self._hand_back_waiting(worker_id, claimed.token)

    def _reset(
        self, worker_id: str, token: Token | None, *, charge_all: bool, refund: bool, keep: bool
    ) -> None:
        lost = LostWorker(worker_id, token, charge_all, refund, FailureKind.WORKER_LOST, "the worker died")
        charged = self.model.reset(worker_id, started=token, charge_all=charge_all, refund=refund, keep=keep)
        reset = self.steward.reset_worker(lost, keep_registration=keep)
        assert {run.id: run.charged for run in reset} == charged
        assert {run.id: run.status for run in reset} == {
            run_id: self.model.runs[run_id].status for run_id in charged
        }

    def _hand_back_waiting(self, worker_id: str, token: Token) -> None:
        expected = self.model.hand_back_waiting(worker_id, token)
        reset = self.steward.hand_back_waiting(worker_id, *token)
        assert sorted(run.id for run in reset) == sorted(expected)

    # --- after each step ---

    @invariant()
    def the_table_is_what_the_model_says(self) -> None:
        rows, workers, edges, now = self.table.read()
        self.before, self.after = self.after, now
        assert rows.keys() == self.model.runs.keys()
        self.model.settle_moments(
            lambda run_id: (rows[run_id].enqueued_at, rows[run_id].run_after), self.before, self.after
        )
        for run in self.model.runs.values():
            assert rows[run.id]._asdict() == _expected(run), rows[run.id]
        assert workers == {worker_id: worker.lease for worker_id, worker in self.model.workers.items()}
        assert sorted(edges) == sorted(self.model.edges)
        self._check_promises(rows.values(), edges)

    def _check_promises(self, rows: Collection[Any], edges: Iterable[Edge]) -> None:
        """What holds whatever the model says."""
        assert {(Status(old), Status(new)) for _, old, new in edges} <= LEGAL_EDGES
        ended = [run_id for run_id, _, new in edges if new in FINAL_STATUSES]
        assert len(ended) == len(set(ended)), "a run has ended twice"
        for row in rows:
            assert 0 <= row.attempts <= min(row.max_attempts, row.claims)
            assert row.attempts == len(row.worker_ids)
        keys = [row.unique_key for row in rows if row.unique_key is not None and row.status in LIVE]
        assert len(keys) == len(set(keys)), "a unique key is held twice"

    # --- which one ---

    def _pick(self, which: int, among: Sequence[Any]) -> Any:
        """The last first: small numbers, which are tried first, mean what was there last."""
        return among[-1 - which % len(among)]

    def _run(self, which: int) -> Run:
        run: Run = self._pick(which, list(self.model.runs.values()))
        return run

    def _worker(self, which: int) -> str:
        return f"w{which % len(self.stores)}"

    def _current(self) -> list[tuple[str, ClaimedRun]]:
        return [claim for claim in self.claims if self.model.holding(claim[1].token) is not None]

    def _stale(self) -> list[tuple[str, ClaimedRun]]:
        """Those whose run is held by a later claim last, so that they are drawn first."""
        running = {run.id for run in self.model.runs.values() if run.status == RUNNING}
        stale = [claim for claim in self.claims if self.model.holding(claim[1].token) is None]
        return sorted(stale, key=lambda claim: claim[1].id in running)

    def _any_claim(self, current: bool) -> list[tuple[str, ClaimedRun]]:
        return (self._current() if current else self._stale()) or self.claims


def _expected(run: Run) -> dict[str, Any]:
    return {
        "id": run.id,
        "queue_name": run.queue_name,
        "spec_hash": run.spec,
        "priority": run.priority,
        "max_attempts": run.max_attempts,
        "enqueued_at": run.enqueued_at,
        "run_after": run.run_after,
        "unique_key": run.unique_key,
        "atomic": run.atomic,
        "replay_of": run.replay_of,
        "status": run.status,
        "attempts": run.attempts,
        "claims": run.claims,
        "leased_by": run.holder,
        "lease_is_past": run.status == RUNNING and run.own_lease_is_past,
        "worker_ids": run.worker_ids,
        "errors": run.errors,
        "result": run.result,
        "is_cancel_requested": run.cancel_requested,
        "has_started": run.has_started,
        "has_finished": run.status not in LIVE,
    }


@pytest.fixture
def table(server: Server, template_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[LeaseTable]:
    """One database, and one connection that all have: what is to be proven is about rows, not about sockets."""
    with new_database(server.url, template_url) as url:
        with psycopg.connect(url, autocommit=True) as connection:
            audit.install(connection)
        with closing(connect(url, application_name="the lease machine")) as shared:

            def connect_again(*args: object, **kwargs: object) -> DeadlineConnection:
                return shared

            for module in (copies, operator_store):
                monkeypatch.setattr(module, "connect", connect_again)
            yield LeaseTable(url, shared)


def test_in_a_short_search_the_table_agrees_with_the_model(table: LeaseTable) -> None:
    search(table, FEW_EXAMPLES)


@pytest.mark.fault
@pytest.mark.timeout(60 + EXAMPLES * EXAMPLE_S)
def test_after_any_sequence_of_actions_the_table_agrees_with_the_model(table: LeaseTable) -> None:
    search(table, EXAMPLES)


def search(table: LeaseTable, examples: int) -> None:
    run_state_machine_as_test(
        lambda: LeaseMachine(table),  # type: ignore[arg-type]
        settings=settings(
            max_examples=examples,
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
