"""The two files that are published, and what they require."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import tarfile
import zipfile
from dataclasses import dataclass
from email.message import Message
from email.parser import BytesParser
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent


@dataclass
class Built:
    """The two files that are published."""

    wheel: Path
    sdist: Path

    def wheel_names(self) -> set[str]:
        with zipfile.ZipFile(self.wheel) as archive:
            return set(archive.namelist())

    def dist_info(self, name: str) -> bytes:
        with zipfile.ZipFile(self.wheel) as archive:
            (path,) = (n for n in archive.namelist() if n.endswith(f".dist-info/{name}"))
            return archive.read(path)

    def metadata(self) -> Message:
        return BytesParser().parsebytes(self.dist_info("METADATA"))

    def sdist_names(self) -> set[str]:
        with tarfile.open(self.sdist) as archive:
            return {name.partition("/")[2] for name in archive.getnames()}


def run(*command: str | Path, cwd: Path) -> str:
    """Return the standard output of a command that must succeed; a failure shows what it printed.

    The command runs without ``PYTHONPATH``: outside the checkout, it finds what is installed.
    """
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{command} exited {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def runtime_requirements(metadata: Message) -> list[Requirement]:
    """Return the requirements that no extra asks for."""
    requirements = map(Requirement, metadata.get_all("Requires-Dist", []))
    return [r for r in requirements if "extra" not in str(r.marker)]


def closure(requirements: list[Requirement]) -> set[str]:
    """Return the names of the distributions that pip would install for these requirements."""
    found: set[str] = set()
    waiting = list(requirements)
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if name not in found and applies:
            found.add(name)
            waiting.extend(map(Requirement, importlib.metadata.requires(name) or []))
    return found


def link_distribution(name: str, site: Path) -> None:
    """Make an installed distribution visible in another environment's ``site-packages``."""
    distribution = importlib.metadata.distribution(name)
    files = distribution.files or []
    tops = {file.parts[0] for file in files} - {"..", "__pycache__"}
    assert tops, f"{name} records no files"
    for top in tops:
        (site / top).symlink_to(Path(str(distribution.locate_file(top))))
