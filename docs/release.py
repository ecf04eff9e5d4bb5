"""Makes the distributions of this version as a package index shows them.

``python docs/release.py --url https://github.com/OWNER/NAME`` copies the repository to a temporary
folder, has the links and pictures of its README lead to the files of this version there, adds the
addresses to the metadata, and builds sdist and wheel from the copy. Without ``--url`` nothing is
known to lead to: links become their text, and pictures are left out. ``--tag v0.2.0`` only checks
that a tag is this version, and that the changelog has it.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

import links

# Code, which stays as it is; and links and pictures, whose text may be of several lines.
_CODE = r"^```.*?^```|`[^`]*`"
_LINK = r"(?P<picture>!?)\[(?P<text>[^\[\]]*)\]\((?P<target>[^()\s]+)\)"
_PARTS = re.compile(f"(?P<code>{_CODE})|{_LINK}", re.MULTILINE | re.DOTALL)
# What is left behind in a copy of an unpacked sdist, which has no list of tracked files.
_MADE = ("*.egg-info", "__pycache__", "build", "dist", "runs", ".venv*", ".git", "PKG-INFO")


def readme(text: str, url: str, version: str) -> str:
    """The README with addresses in place of relative links, or without links if there is no URL."""

    def there(found: re.Match[str]) -> str:
        text, target = found["text"], found["target"]
        if found["code"] is not None or links.ELSEWHERE.match(target):
            return found[0]
        if not url:
            return "" if found["picture"] else text
        kind = "raw" if found["picture"] else "blob"
        place = "README.md" + target if target.startswith("#") else target
        return f"{found['picture']}[{text}]({url}/{kind}/v{version}/{place})"

    return re.sub(r"\n{3,}", "\n\n", _PARTS.sub(there, text))


def metadata(text: str, url: str, version: str) -> str:
    """The pyproject.toml with the addresses of the project, if there are some and it has none."""
    if not url or "[project.urls]" in text:
        return text
    addresses = {
        "Source": url,
        "Documentation": f"{url}/blob/v{version}/docs/index.md",
        "Changelog": f"{url}/blob/v{version}/CHANGELOG.md",
        "Issues": f"{url}/issues",
    }
    table = "".join(f'{name} = "{address}"\n' for name, address in addresses.items())
    return text.replace("[project.scripts]\n", f"[project.urls]\n{table}\n[project.scripts]\n", 1)


def problems(tag: str, project: dict[str, Any], changelog: str) -> list[str]:
    """What is wrong with a tag: it is not the version, or the changelog does not have that."""
    version = project["version"]
    newest = re.search(r"^## (\S+)", changelog, re.MULTILINE)
    found = []
    if tag != f"v{version}":
        found.append(f"the tag is {tag}, and pyproject.toml has version {version}")
    if newest is None or newest[1] != version:
        first = newest[1] if newest else "nothing"
        found.append(f"CHANGELOG.md begins with {first}; expected {version} and its date")
    return found


def copy(root: Path, folder: Path) -> None:
    """Copies what belongs to the repository: the tracked files, or all of an unpacked sdist."""
    git = ["git", "-C", str(root), "ls-files", "-z"]
    listed = subprocess.run(git, capture_output=True, text=True, check=False)
    files = [name for name in listed.stdout.split("\0") if name]
    if not (root / ".git").exists() or not files:
        shutil.copytree(root, folder, symlinks=True, ignore=shutil.ignore_patterns(*_MADE))
        return
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(root / name, folder / name, follow_symlinks=False)


def build(root: Path, url: str, out: Path) -> None:
    """Builds sdist and wheel of the repository into a folder."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "incatalog"
        copy(root, folder)
        project, page = folder / "pyproject.toml", folder / "README.md"
        version = tomllib.loads(project.read_text("utf-8"))["project"]["version"]
        page.write_text(readme(page.read_text("utf-8"), url, version), encoding="utf-8")
        project.write_text(metadata(project.read_text("utf-8"), url, version), encoding="utf-8")
        command = [sys.executable, "-m", "build", "--outdir", str(out.resolve()), str(folder)]
        subprocess.run(command, check=True)


def main() -> None:
    """Builds, or checks a tag."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="", help="Address of the repository.")
    parser.add_argument("--out", type=Path, default=Path("dist"), help="Folder for both files.")
    parser.add_argument("--tag", help="Only check that this tag is that of the version.")
    given = parser.parse_args()
    if given.tag is None:
        build(links.ROOT, given.url.rstrip("/"), given.out)
        return
    project = tomllib.loads((links.ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    changelog = (links.ROOT / "CHANGELOG.md").read_text("utf-8")
    if found := problems(given.tag, project, changelog):
        sys.exit("; ".join(found))


if __name__ == "__main__":
    main()
