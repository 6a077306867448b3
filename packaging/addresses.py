"""Say where the project lives, in the package that is about to be built: ``addresses.py https://host/us/it v1.0``.

The package index shows the README by itself, where relative pictures and links lead nowhere, and lists the project's
addresses. Both are known only where the package is published, so the workflow writes them there.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"(!?\[[^\]]*\]\()(?![a-z]+:|#)([^)]+)\)")


def absolute(readme: str, home: str, version: str) -> str:
    """A README whose relative links lead to the files of this version."""

    def led(link: re.Match[str]) -> str:
        return f"{link[1]}{home}/{'raw' if link[1].startswith('!') else 'blob'}/{version}/{link[2]})"

    return LINK.sub(led, readme)


def with_urls(project: str, home: str, version: str) -> str:
    """A pyproject.toml with the addresses of the project."""
    pages = {
        "Source": home,
        "Documentation": f"{home}/tree/{version}/docs",
        "Changelog": f"{home}/blob/{version}/CHANGELOG.md",
        "Issues": f"{home}/issues",
    }
    table = "\n".join(f'{name} = "{address}"' for name, address in pages.items())
    return project.replace("[project.scripts]", f"[project.urls]\n{table}\n\n[project.scripts]")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("expected the address of the repository and a tag, e.g. https://github.com/us/it v1.0")
    for name, change in {"README.md": absolute, "pyproject.toml": with_urls}.items():
        file = ROOT / name
        file.write_text(change(file.read_text(), sys.argv[1].rstrip("/"), sys.argv[2]))
