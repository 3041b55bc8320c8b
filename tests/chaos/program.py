"""The external task of a storm: `program.py --payload JSON`."""

import json
import os
import resource
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import pages  # type: ignore[import-not-found]

MEMORY_BYTES = 512 << 20

payload = json.loads(sys.argv[sys.argv.index("--payload") + 1])
token = int(os.environ["REPROQ_TASK_ID"]), int(os.environ["REPROQ_CLAIM"])

pages.write("start", *token)
match payload["doing"]:
    case "work":
        pages.beat_for(payload["seconds"], *token)
    case "nested":
        pages.in_another_session(payload["seconds"], *token)
    case "hoard":
        # What an out-of-memory killer does to a task, by a limit that needs no root.
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        pages.write("fail", *token)
        hoard = b"x" * (2 * MEMORY_BYTES)
pages.write("end", *token)
print(payload["number"])
