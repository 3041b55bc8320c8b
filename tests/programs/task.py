"""The task program of the tests: does what its payload says, and keeps a diary outside the database.

Standard library only, and started with -I -S, so that a test waits for the engine and not for an interpreter.
"""

import json
import os
import select
import signal
import subprocess
import sys
import time

payload = sys.argv[sys.argv.index("--payload") + 1]
if payload == "-":
    payload = sys.stdin.read()
spec = json.loads(payload)


def note(what: str) -> None:
    """One line of the diary, in one write: what, run, claim, pid, and the clock that the master uses."""
    if "diary" in spec:
        line = " ".join(
            (
                what,
                os.environ["REPROQ_TASK_ID"],
                os.environ["REPROQ_CLAIM"],
                str(os.getpid()),
                str(time.clock_gettime(time.CLOCK_BOOTTIME)),
            )
        )
        diary = os.open(spec["diary"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(diary, line.encode() + b"\n")
        os.close(diary)


if spec.get("ignore_term"):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if spec.get("note_term"):
    signal.signal(signal.SIGTERM, lambda _signum, _frame: note("term"))
note("start")
for command in spec.get("children", ()):
    # A session of its own: a group kill would miss it.
    child = subprocess.Popen(command, start_new_session=True, stdout=sys.stdout)
    if "children_pids" in spec:
        with open(spec["children_pids"], "a") as pids:
            pids.write(f"{child.pid}\n")
if "wait_for" in spec:
    while not os.path.exists(spec["wait_for"]):
        time.sleep(0.005)
select.select((), (), (), spec.get("sleep", 0))  # time.sleep fails under libfaketime
if "hoard" in spec:
    hoard = b"x" * spec["hoard"]  # so many bytes, each of them written
if "kill_parent" in spec:
    os.kill(os.getppid(), spec["kill_parent"])
    time.sleep(30)
if "kill_self" in spec:
    os.kill(os.getpid(), spec["kill_self"])
if "stderr" in spec:
    sys.stderr.write(spec["stderr"])
if "raw_stderr" in spec:
    sys.stderr.buffer.write(bytes.fromhex(spec["raw_stderr"]))
if "exit" in spec and int(os.environ["REPROQ_ATTEMPT"]) <= spec.get("fail_attempts", 1_000_000):
    note("fail")
    sys.exit(spec["exit"])
note("end")
if "raw_output" in spec:
    sys.stdout.buffer.write(bytes.fromhex(spec["raw_output"]))
else:
    print(json.dumps({"echo": spec.get("value"), "attempt": int(os.environ["REPROQ_ATTEMPT"])}))
