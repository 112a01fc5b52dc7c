"""What is installed is what is in the tree: an editable install does not notice a difference."""

import re
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.house.tree import ROOT, SIDES, files, name_of, pyproject

PIN = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*==[0-9][0-9a-z.]*(; .+)?")


def folders() -> dict[str, str]:
    """The tree's packages: the name on the import path to the folder."""
    found = [path.parent for path in files(*SIDES) if path.name == "__init__.py"]
    return {"rejoin." + name_of(folder).replace("/", "."): name_of(folder) for folder in found}


def pins() -> list[Requirement]:
    """The lines of constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if not line.startswith("#")]


def requirements() -> list[Requirement]:
    """What pyproject.toml asks for, the tests' extra and the build's included."""
    project = pyproject()
    texts = project["project"]["dependencies"] + project["build-system"]["requires"]
    for extra in project["project"]["optional-dependencies"].values():
        texts += extra
    return [Requirement(text) for text in texts]


def test_every_package_in_the_tree_is_installed_and_no_other() -> None:
    assert sorted(pyproject()["tool"]["setuptools"]["packages"]) == sorted(folders())


def test_every_package_is_installed_from_its_folder() -> None:
    assert pyproject()["tool"]["setuptools"]["package-dir"] == folders()


def test_every_folder_with_python_in_it_is_a_package() -> None:
    with_python = {name_of(path.parent) for path in files(*SIDES) if path.suffix == ".py"}
    assert with_python == set(folders().values())


def test_everything_that_is_not_python_is_package_data() -> None:
    installed: set[Path] = set()
    for package, patterns in pyproject()["tool"]["setuptools"]["package-data"].items():
        for pattern in patterns:
            installed |= set((ROOT / folders()[package]).glob(pattern))
    others = [path for path in files(*SIDES) if path.suffix != ".py"]
    assert [name_of(path) for path in others if path not in installed] == []


def test_type_checkers_see_the_types_of_all_four() -> None:
    assert [side for side in SIDES if not (ROOT / side / "py.typed").is_file()] == []


def test_a_constraint_is_an_exact_version_and_nothing_else() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert [x for x in lines if not x.startswith("#") and not PIN.fullmatch(x)] == []


def test_every_dependency_has_one_constraint_within_its_bounds() -> None:
    pinned = {canonicalize_name(pin.name): pin for pin in pins()}
    assert len(pinned) == len(pins())
    for requirement in requirements():
        pin = pinned[canonicalize_name(requirement.name)]
        (version,) = [specifier.version for specifier in pin.specifier]
        assert requirement.specifier.contains(version), str(requirement)


def test_a_constraint_holds_wherever_its_dependency_does() -> None:
    pinned = {canonicalize_name(pin.name): pin for pin in pins()}
    for requirement in requirements():
        pin = pinned[canonicalize_name(requirement.name)]
        assert pin.marker in (None, requirement.marker), str(requirement)
