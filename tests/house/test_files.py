"""Each file says what it is, is no longer than its idea, and names nothing it must not."""

import ast
import re
from pathlib import Path

import pytest

from tests.house.tree import ROOT, SIDES, files, name_of

LONGEST_LINES = 300
CODE = {".py", ".lua", ".js", ".css", ".html"}
SENTENCE = re.compile(r"(?!KEYS|ARGV).{15,}")

# A bracketed letter here and there, so that these lines are not what they look for.
FORBIDDEN = {
    "a package registry's host": r"py[p]i\.|pythonhost[e]d|npm[j]s|unpk[g]|jsdeliv[r]|crat[e]s\.io",
    "a path of somebody's machine": r"(?<![\w.$}~])/(?:root|home|Users|work)/|/tmp/[w]\b",
    "a page outside the project": r"\.\./shared/(?:DESIGN|PITFALLS|PROTOCOL|STYLE)\b",
    "a tool outside the project": r"\b[i]ssues (?:list|show)\b",
}


def head(path: Path) -> str:
    """What the file says of itself in its first line; '' where it says nothing."""
    text = path.read_text(encoding="utf-8")
    first = text.partition("\n")[0]
    if path.suffix == ".py":
        module = ast.parse(text)
        at_the_top = bool(module.body) and module.body[0].lineno == 1
        return (ast.get_docstring(module) or "").partition("\n")[0] if at_the_top else ""
    if path.suffix == ".lua":
        return first.removeprefix("-- ") if first.startswith("-- ") else ""
    second = text.split("\n")[1]
    return second.removeprefix("# ") if first.startswith("#!") and second.startswith("# ") else ""


def texts() -> list[tuple[str, str]]:
    """Name and text of each file that is text."""
    found = []
    for path in files():
        try:
            found.append((name_of(path), path.read_text(encoding="utf-8")))
        except UnicodeDecodeError:
            continue
    return found


def test_every_python_file_and_script_begins_with_what_it_does() -> None:
    told = [path for path in files(*SIDES, "tests") if path.suffix in {".py", ".lua"}]
    told += files("scripts", ".ci")
    assert [name_of(path) for path in told if not SENTENCE.match(head(path))] == []


def test_no_file_is_longer_than_its_idea() -> None:
    lines = {
        name_of(path): len(path.read_text(encoding="utf-8").splitlines())
        for path in files(*SIDES)
        if path.suffix in CODE
    }
    assert {name: count for name, count in lines.items() if count > LONGEST_LINES} == {}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_nothing_in_the_project_names(what: str) -> None:
    found = [
        f"{name}: {match.group()}"
        for name, text in texts()
        for match in re.finditer(FORBIDDEN[what], text)
    ]
    assert found == []


def test_the_changelog_begins_with_what_is_not_released_yet() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## .*$", text, re.MULTILINE)[0] == "## [Unreleased]"


def test_every_script_can_be_started() -> None:
    not_executable = [path for path in files("scripts", ".ci") if not path.stat().st_mode & 0o111]
    assert [name_of(path) for path in not_executable] == []


def test_a_link_between_the_projects_pages_leads_somewhere() -> None:
    links = [
        (path, target)
        for path in files()
        if path.suffix == ".md"
        for target in re.findall(r"\]\(([^)#\s]+)", path.read_text(encoding="utf-8"))
        if "://" not in target
    ]
    assert links != []
    assert [f"{name_of(p)}: {to}" for p, to in links if not (p.parent / to).exists()] == []
