"""What is shipped says one thing of itself in all places."""

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import fer_features

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def pins(name: str) -> dict[str, str]:
    """Return the version of each package that a file of constraints names."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(package): version for package, version in pairs}


def requirements() -> list[Requirement]:
    """Return what pyproject.toml asks for, extras too, this package's own ones aside."""
    groups = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    found = [Requirement(each) for group in groups for each in group]
    return [each for each in found if each.name != PROJECT["name"]]


def test_the_version_is_the_same_in_all_places() -> None:
    version = PROJECT["version"]
    assert fer_features.__version__ == version
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(rf"^version: {re.escape(version)}$", citation, re.MULTILINE)
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## (\d\S*)", changes, re.MULTILINE)
    assert newest
    assert newest[1] == version


def test_the_tested_versions_are_allowed_and_the_oldest_ones_are_the_lowest_bounds() -> None:
    tested, lowest = pins("constraints.txt"), pins("constraints-lowest.txt")
    for each in requirements():
        name = canonicalize_name(each.name)
        assert each.specifier.contains(tested[name], prereleases=True), each
        bounds = [bound.version for bound in each.specifier if bound.operator == ">="]
        assert bounds, f"{each} has no lowest version"
        assert f"{lowest[name]}.".startswith(f"{bounds[0]}."), f"{each}, pinned to {lowest[name]}"


def test_the_pythons_that_are_claimed_are_those_that_are_tried() -> None:
    claimed = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    matrix = re.search(r"python: \[(.+)\]", workflow)
    assert matrix
    assert re.findall(r"3\.\d+", matrix[1]) == claimed
    assert PROJECT["requires-python"] == f">={claimed[0]}"
    assert "bash .ci/run" in workflow


def test_every_extra_is_told_to_those_who_install() -> None:
    page = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    for extra in set(PROJECT["optional-dependencies"]) - {"dev", "docs"}:
        assert f"`{extra}`" in page, extra
