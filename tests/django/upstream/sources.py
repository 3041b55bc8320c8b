"""Django's tests/tasks, taken out of its source distribution when the tests run; nothing of it is kept here."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

DOWNLOAD_TIMEOUT_S = 50


class NoSources(Exception):
    """The source distribution could not be had; the message is pip's."""


def suite_of_django(version: str) -> Path:
    """A directory with Django's package `tasks`, which is downloaded unless an earlier run has done so."""
    return _in_cache(f"django-{version}", lambda place: _download(version, place))


def suite_for_the_backport(version: str) -> Path:
    """The same in the backport's words, as the package `tasks_of_backport`: its sources come without tests."""
    original = suite_of_django(version) / "tasks"

    def translate(place: Path) -> None:
        package = place / "tasks_of_backport"
        package.mkdir()
        for file in original.glob("*.py"):
            (package / file.name).write_text(_in_words_of_the_backport(file.read_text()))

    words = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[
        :8
    ]  # what is kept is of today's translation
    return _in_cache(f"django-{version}-for-the-backport-{words}", translate)


def _in_words_of_the_backport(source: str) -> str:
    source = source.replace("django.tasks", "django_tasks").replace(
        '"tasks.tasks.', '"tasks_of_backport.tasks.'
    )
    source = source.replace("from django.utils.json", "from django_tasks.utils").replace(
        "async Tasks.", "async tasks."
    )
    return re.sub(r"\b(InvalidTask|InvalidTaskBackend)\b", r"\1Error", source)


def _in_cache(name: str, make: Callable[[Path], None]) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "reproq-prefork-tests"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # all processes of a run want it at the same time
        place = cache / name
        if not place.exists():
            with tempfile.TemporaryDirectory(dir=cache) as unfinished:
                (finished := Path(unfinished) / "finished").mkdir()
                make(finished)
                finished.rename(place)
    return place


def _download(version: str, place: Path) -> None:
    with tempfile.TemporaryDirectory() as directory:
        options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-binary", ":all:"]
        command = [sys.executable, "-m", "pip", "download", *options, "--ignore-requires-python"]
        try:
            subprocess.run(
                [*command, "--dest", directory, f"django=={version}"],
                capture_output=True,
                text=True,
                timeout=DOWNLOAD_TIMEOUT_S,
                check=True,
            )
        except subprocess.CalledProcessError as error:
            raise NoSources(error.stderr.strip()) from None
        except subprocess.TimeoutExpired:
            raise NoSources(f"pip had not downloaded it within {DOWNLOAD_TIMEOUT_S} s") from None
        (archive,) = Path(directory).glob("*.tar.gz")
        with tarfile.open(archive) as sources:
            for member in sources.getmembers():
                if "/tests/tasks/" in member.name and member.isfile():
                    member.name = f"tasks/{Path(member.name).name}"
                    sources.extract(member, place, filter="data")
