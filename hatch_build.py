"""Makes the text of the package page from README.md when a package is built."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

try:
    from hatchling.metadata.plugin.interface import MetadataHookInterface
except ImportError:  # the tests import this file without the build tools
    MetadataHookInterface = object

_IMAGE = re.compile(r"!\[([^\]]*)\]\((?!https?://)[^)]+\)")
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?://)[^)]+\)")
_WHERE = "\nThe pages that are named here are in the directory `docs` of the source distribution.\n"


def package_page(readme: str) -> str:
    """`readme`, with the mere text of what leads into the repository: a package page has no such files."""
    return _LINK.sub(r"\1", _IMAGE.sub(r"\1.", readme)).rstrip() + "\n" + _WHERE


class CustomMetadataHook(MetadataHookInterface):  # type: ignore[misc,unused-ignore]
    def update(self, metadata: dict[str, Any]) -> None:
        readme = Path(self.root, "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": package_page(readme)}
