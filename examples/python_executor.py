"""Count the words of a file: an executor in plain Python, without our package.

    reproq-prefork --command "python3 examples/python_executor.py"
    reproq-prefork enqueue '{"file": "README.md"}'

If it succeeds, its standard output is the result; it logs to standard error. If it fails, it does so as other
programs do, with an exit status and a last line that gives the reason. Then it is tried again. If no other attempt
can help, that line is JSON.
"""

import argparse
import json
import sys
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(description="Count the words of a file.")
    parser.add_argument("--payload", required=True, help="JSON, or - to read it from standard input")
    text = parser.parse_args().payload
    payload = json.loads(sys.stdin.read() if text == "-" else text)

    if "file" not in payload:
        print(json.dumps({"message": "the payload names no file", "retry": False}), file=sys.stderr)
        return 1
    print(f"counting the words of {payload['file']}", file=sys.stderr)
    words = len(Path(payload["file"]).read_text(encoding="utf-8").split())
    print(json.dumps({"words": words}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
