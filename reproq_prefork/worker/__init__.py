"""Claim, run, record: what one worker process does, and the template that forks the workers.

May import `executors`, `unix`, `store` and what is below them.

The lease protocol
==================

Terms. `docs/glossary.md` has the others.

* *Claim*: one statement makes a PENDING run RUNNING. It adds one to `claims`, sets `leased_by` to the id of this
  worker, and sets the end of the lease. A worker has a new id after each fork, and no id is ever used again.
* *Token*: the pair (`id`, `claims`). Every write of a worker names it, together with `status = 'RUNNING'`. If
  the run was claimed again, the token does not match and the write changes nothing. This is the fence.
* *Lease*: 30 s by default. The claim has one in `task_runs`, the registration of the worker has one in
  `reproq_workers`. The steward renews the second one for all workers of its host, every sixth of a lease. If
  nobody saw the worker die, others may take the run only after both have ended. A lease that has ended is never
  renewed.
* *Margin*: a sixth of the lease. A worker believes in its lease until the margin before its end.

Who may believe what, and until when
------------------------------------

* A *worker* believes that it holds its runs until five sixths of a lease after the moment *before* the claim or
  the renewal was sent. It reads CLOCK_BOOTTIME, which goes on while the machine sleeps. When that time is over,
  or when a renewal did not find its registration, it kills its task and exits (status 9).
* The *master* reads the same time on the scoreboard. If the worker has not stopped half a margin later, the
  master kills it. The other half is left for the kill, so no second copy of the task can start before the first
  is dead.
* *Other hosts* believe only the server's `now()`. No clock of a client decides whether a lease has ended.
* *Nobody* believes that a statement failed because its reply is missing. After a lost connection the worker ends
  its old server process, connects, and asks which runs it holds. It records again what was not recorded, under
  the same token. It hands back runs of which it does not know; these count no attempt. If it did not see the old
  process end, it asks again each second, because that process may still commit a claim. It also asks once a lease.
* One case is left: a whole host, or its master, that is frozen. Its task may overlap with a second copy. When it
  wakes up, the task is killed, and the fence refuses its result.

When an attempt counts
----------------------

The worker shows (`id`, `claims`) on the scoreboard *before* the task starts. From then on the attempt counts,
whatever dies. So a run that kills its worker each time ends when its attempts are used up, and `max_attempts = 1`
means at most once. If nobody can read the scoreboard any more, every claimed run counts as started.

What each death means
---------------------

=====================  ==========================================================================================
dies                   then
=====================  ==========================================================================================
the task's process     The worker records a failed attempt.
the worker             The master reaps it and copies its id and what it had started. It kills everything that
                       the task has left, and only then tells the steward. The steward ends the worker's server
                       process, which could still commit a claim, and resets the runs: an attempt that had
                       started counts. If it does not see that process end, it repeats the reset (for a lease, at
                       least 30 s).
the steward            The master forks another and tells it again of each worker whose reset was not answered.
                       Idle workers poll by themselves after 5 s. Leases go on until their end.
the template           No run is affected. A worker that it was forking is known to the master, or never starts.
the master             A pipe closes that all its children watch, and the workers get SIGTERM. They kill their
                       tasks, hand back and exit. The steward waits 2 s, kills what is left, resets those
                       workers' runs, and exits.
master and children    The steward of the next master on this host resets their runs; all attempts count.
the host, its network  The sweep of any other host resets the runs after both leases have ended. All attempts
                       count, because nobody can say which had started.
the server             Tasks go on while their leases last. Then as after a lost connection, see above.
=====================  ==========================================================================================

A cancelled run never goes back to PENDING: every process that writes it makes it CANCELLED.

Which file does what
--------------------

* `claiming`, `lone_claims`, `batch`, `batch_size`: which runs are claimed, how many, and how long they may wait
* `loop`: starts what was claimed, and shows it on the scoreboard first
* `task_watch`: watches a task: lease first, then orders, cancellation, deadline
* `database`: what the worker does next with the database; `link` connects, `recording` and `refused_ends` write
  ends, `reconciling` and `asking` find out what the worker holds
* `steward/`: the renewals, the sweep, and the reset of a dead worker
* `fleet/decide`: when the master kills a worker or a steward; `master/loop`: the reaping and the orphans
* `store/sql/worker/finish_and_claim.sql`, `store/sql/steward/renew_leases.sql`, `reset_worker.sql` and
  `sweep_expired.sql` beside it, `store/sql/parts/expired_run.sql`: the fence and the two leases
"""
