"""steady-queue: a supervisor with a dispatcher and two processes of threads."""

from __future__ import annotations

from benchmarks.peers.programs import django_site

if __name__ == "__main__":
    django_site.main(
        "steady_queue",
        ["steady_queue", "--verbosity", "0"],
        "steady_queue_job, steady_queue_readyexecution, steady_queue_claimedexecution",
    )
