"""Count the words of a file: an executor in Python, with our helper for the contract.

    reproq-prefork --chdir examples --executor-module helper_executor
    reproq-prefork enqueue '{"file": "../README.md"}'

It may print anything. An exception is a failed attempt, recorded with its traceback.
"""

from pathlib import Path

from reproq_prefork import executor


def count_words(payload: dict[str, str]) -> dict[str, int]:
    if "file" not in payload:
        raise executor.Discard("the payload names no file")
    print(f"attempt {executor.context().number} counts the words of {payload['file']}")
    return {"words": len(Path(payload["file"]).read_text(encoding="utf-8").split())}


if __name__ == "__main__":
    executor.run(count_words)
