"""The external task of a storm: `program.py --payload JSON`."""

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import pages  # type: ignore[import-not-found]

payload = json.loads(sys.argv[sys.argv.index("--payload") + 1])
token = int(os.environ["REPROQ_TASK_ID"]), int(os.environ["REPROQ_CLAIM"])

pages.write("start", *token)
match payload.get("doing"):
    case "work" | "patient":
        pages.beat_for(payload["seconds"], *token)
    case "nested":
        pages.in_another_session(payload["seconds"], *token)
    case "hoard":
        pages.write("fail", *token)
        hoard = b"x" * (2 * pages.MEMORY_BYTES)
    case "later" if os.environ["REPROQ_ATTEMPT"] == "1":
        pages.write("fail", *token)
        sys.exit(json.dumps({"message": "later", "retry_after_seconds": payload["after_s"]}))
    case None:  # an odd row, which names no Python task that a worker would know
        pages.write("fail", *token)
        sys.exit("the payload does not say what to do")
pages.write("end", *token)
print(payload["number"])
