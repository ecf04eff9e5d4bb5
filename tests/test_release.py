"""What is released: the README of a package index, its addresses, the workflow, the forms."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from conftest import REPOSITORY

URL = "https://example.org/team/incatalog"
PAGE = """# Name

![A picture](docs/images/a.png)

See [the
docs](docs/index.md#top), [below](#use) and [paper](https://arxiv.org/abs/1). `[code](docs/no.md)`

```bash
echo "[code](docs/no.md)"
```

## Use
"""


@pytest.fixture(scope="module")
def release() -> Any:
    """The script as a module, beside the one that it imports."""
    sys.path.insert(0, str(REPOSITORY / "docs"))
    try:
        import release
    finally:
        sys.path.remove(str(REPOSITORY / "docs"))
    return release


def test_links_lead_to_the_files_of_the_version(release: Any) -> None:
    assert release.readme(PAGE, URL, "1.2.3") == PAGE.replace(
        "(docs/images/a.png)", f"({URL}/raw/v1.2.3/docs/images/a.png)"
    ).replace("(docs/index.md#top)", f"({URL}/blob/v1.2.3/docs/index.md#top)").replace(
        "(#use)", f"({URL}/blob/v1.2.3/README.md#use)"
    )


def test_without_an_address_nothing_leads_nowhere(release: Any) -> None:
    assert release.readme(PAGE, "", "1.2.3") == (
        "# Name\n\nSee the\ndocs, below and [paper](https://arxiv.org/abs/1). "
        '`[code](docs/no.md)`\n\n```bash\necho "[code](docs/no.md)"\n```\n\n## Use\n'
    )


@pytest.mark.parametrize("url", [URL, ""])
def test_the_readme_has_no_relative_link_on_an_index(
    release: Any, url: str, tmp_path: Path
) -> None:
    page = tmp_path / "README.md"
    text = (REPOSITORY / "README.md").read_text("utf-8")
    page.write_text(release.readme(text, url, "1.2.3"), encoding="utf-8")
    assert release.links.links(page) == []
    # Code is what it was.
    blocks = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
    assert blocks.findall(page.read_text("utf-8")) == blocks.findall(text)


def test_addresses_are_added_to_the_metadata(release: Any) -> None:
    text = (REPOSITORY / "pyproject.toml").read_text("utf-8")
    # That of an sdist has them already.
    text = re.sub(r"\[project\.urls\]\n(?:.+\n)+\n", "", text)
    before = tomllib.loads(text)
    found = tomllib.loads(release.metadata(text, URL, "1.2.3"))
    assert found["project"].pop("urls") == {
        "Source": URL,
        "Documentation": f"{URL}/blob/v1.2.3/docs/index.md",
        "Changelog": f"{URL}/blob/v1.2.3/CHANGELOG.md",
        "Issues": f"{URL}/issues",
    }
    assert found == before
    assert release.metadata(text, "", "1.2.3") == text
    once = release.metadata(text, URL, "1.2.3")
    assert release.metadata(once, "https://example.org/other", "1.2.4") == once


@pytest.mark.parametrize(
    ("tag", "changelog", "expected"),
    [
        ("v1.2.3", "# Changelog\n\n## 1.2.3 (2026-01-02)\n", []),
        (
            "1.2.3",
            "## 1.2.3 (2026-01-02)\n",
            ["the tag is 1.2.3, and pyproject.toml has version 1.2.3"],
        ),
        (
            "v1.2.4",
            "## Unreleased\n\n## 1.2.3 (2026-01-02)\n",
            [
                "the tag is v1.2.4, and pyproject.toml has version 1.2.3",
                "CHANGELOG.md begins with Unreleased; expected 1.2.3 and its date",
            ],
        ),
        (
            "v1.2.3",
            "# Changelog\n",
            ["CHANGELOG.md begins with nothing; expected 1.2.3 and its date"],
        ),
    ],
)
def test_a_tag_is_the_version(release: Any, tag: str, changelog: str, expected: list[str]) -> None:
    assert release.problems(tag, {"version": "1.2.3"}, changelog) == expected


def test_the_script_refuses_another_tag() -> None:
    done = subprocess.run(
        [sys.executable, REPOSITORY / "docs" / "release.py", "--tag", "v0.0.1"],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("the tag is v0.0.1, and pyproject.toml has version ")


@pytest.fixture(scope="module")
def workflow() -> dict[Any, Any]:
    file = REPOSITORY / ".github" / "workflows" / "release.yml"
    found: dict[Any, Any] = yaml.safe_load(file.read_text("utf-8"))
    return found


def test_only_the_last_job_may_publish_and_needs_no_secret(workflow: dict[Any, Any]) -> None:
    jobs = workflow["jobs"]
    assert workflow["permissions"] == {"contents": "read"}
    may = {name: job["permissions"] for name, job in jobs.items() if "permissions" in job}
    assert may == {"publish": {"id-token": "write"}}
    assert jobs["publish"]["environment"]["name"] == "pypi"
    assert (jobs["publish"]["needs"], jobs["test"]["needs"]) == ("test", "build")
    text = (REPOSITORY / ".github" / "workflows" / "release.yml").read_text("utf-8")
    assert "secrets." not in text
    # What a tag or a title says is never part of a script's text.
    for job in jobs.values():
        for step in job["steps"]:
            assert "${{ github" not in step.get("run", "")


def test_the_pythons_are_those_of_the_metadata(workflow: dict[Any, Any]) -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
    prefix = "Programming Language :: Python :: 3."
    named = [one.removeprefix(prefix) for one in project["classifiers"] if one.startswith(prefix)]
    tried = workflow["jobs"]["test"]["strategy"]["matrix"]["python"]
    assert tried == [f"3.{minor}" for minor in named] == ["3.11", "3.12", "3.13"]
    assert project["requires-python"] == ">=3.11"


def test_the_forms_ask_for_what_a_fault_is_found_by() -> None:
    folder = REPOSITORY / ".github" / "ISSUE_TEMPLATE"
    labels = {}
    for file in sorted(folder.glob("*.yml")):
        form = yaml.safe_load(file.read_text("utf-8"))
        if file.name != "config.yml":
            assert {"name", "description", "body"} <= set(form)
            fields = [one for one in form["body"] if one["type"] != "markdown"]
            assert len({one["id"] for one in fields}) == len(fields)
            labels[file.stem] = [one["attributes"]["label"] for one in fields]
    assert set(labels) == {"bug", "wish"}
    assert "incatalog --version" in labels["bug"]


@pytest.mark.slow
def test_the_workflow_passes_actionlint() -> None:
    done = subprocess.run(
        ["make", "-C", REPOSITORY, "lint-workflows"], capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
