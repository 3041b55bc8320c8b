"""The program that the demo's tasks run. It adds up an invoice, and takes time as a program that mails it would.

It is a complete executor: it gets `--payload <json>`, prints its result as JSON and exits with 0. If it fails, it
writes the reason to standard error and exits with another status. It is run by its path, so it imports nothing of
ours.
"""

import json
import os
import sys
import time


def main() -> int:
    invoice = json.loads(sys.argv[sys.argv.index("--payload") + 1])
    time.sleep(invoice["takes_ms"] / 1000)
    if int(os.environ["REPROQ_ATTEMPT"]) <= invoice.get("failing_attempts", 0):
        print(json.dumps({"message": "the mail server is busy"}), file=sys.stderr)
        return 1
    print(json.dumps({"invoice": invoice["invoice"], "total_cents": sum(invoice["cents"])}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
