"""Every ```python block of the README and of `docs/` runs, top to bottom, one namespace per file.

A block whose first line is a comment with a file's name, such as `# my_app.py`, is that file: it is written,
and the blocks below import it, in workers too.
"""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FILE = re.compile(r"# (\w+\.py)\n")
MOST = 120
LINK = re.compile(r"\]\((?!https?:)([^)#]+)")


def page_name(page: Path) -> str:
    return str(page.relative_to(ROOT)).removeprefix("docs/")


@pytest.mark.parametrize("page", PAGES, ids=page_name)
@pytest.mark.timeout(120)
def test_the_blocks_of_a_page_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    text = page.read_text()
    namespace: dict[str, object] = {"__name__": page.stem}
    for block in BLOCK.finditer(text):
        if named := FILE.match(block.group(1)):
            (tmp_path / named.group(1)).write_text(block.group(1))
            continue
        # Leading newlines make the line numbers of a traceback those of the page.
        source = "\n" * text.count("\n", 0, block.start(1)) + block.group(1)
        exec(compile(source, str(page), "exec"), namespace)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=page_name)
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    broken = [link for link in LINK.findall(page.read_text()) if not (page.parent / link).exists()]
    assert broken == []


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md"], ids=page_name)
def test_a_line_has_at_most_120_characters(page: Path) -> None:
    """Tables too: people read these pages in an editor and in a diff, where a long row cannot be read."""
    lines = page.read_text().splitlines()
    assert [f"{page.name}:{number}" for number, line in enumerate(lines, 1) if len(line) > MOST] == []


def test_the_page_of_public_names_is_what_the_docstrings_say() -> None:
    """`python docs/api_page.py` writes it anew."""
    check = [sys.executable, str(ROOT / "docs" / "api_page.py"), "--check"]
    done = subprocess.run(check, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, ""), "docs/api.md is old: run `python docs/api_page.py`"


def test_the_layers_of_the_architecture_are_those_that_imports_keep_to() -> None:
    may_import = runpy.run_path(str(ROOT / "tests" / "unit" / "test_imports.py"))["MAY_IMPORT"]
    rows = re.findall(r"^  (\d)  (.*)$", (ROOT / "docs" / "architecture.md").read_text(), re.MULTILINE)
    layer = {name: int(number) for number, names in rows for name in re.findall(r"\w+", names)}
    assert set(may_import) <= set(layer)
    for package, below in may_import.items():
        assert all(layer[name] < layer[package] for name in below.split()), package
