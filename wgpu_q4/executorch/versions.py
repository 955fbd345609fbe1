"""The wheels that this package was tested with, checked when it is imported.

The pass rewrites graphs that torch and torchao make into ops that ExecuTorch's Vulkan backend
names; none of the three is a stable interface, and another version may lower to something else
without a word.  So another version is refused with the command that installs the right ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

TESTED: Mapping[str, str] = {"executorch": "1.5.1", "torch": "2.13", "torchao": "0.18"}
"""Each distribution with the release that works: ``"2.13"`` stands for every 2.13.x."""


def check_versions(tested: Mapping[str, str] = TESTED) -> None:
    """Raise unless every distribution in ``tested`` is installed in that release.

    Raises:
        ImportError: names each wrong or missing one, what was found, and the fix.
    """
    wrong = []
    for name, release in tested.items():
        try:
            found = version(name)
        except PackageNotFoundError:
            wrong.append(f"{name} {release} (not installed)")
            continue
        public = found.partition("+")[0]  # a local part names a build of the same version
        if public != release and not public.startswith(f"{release}."):
            wrong.append(f"{name} {release} (found {found})")
    if wrong:
        pins = " ".join(f"'{name}=={release}.*'" for name, release in tested.items())
        raise ImportError(
            f"wgpu_q4.executorch needs {', '.join(wrong)}. Install with: pip install {pins}"
        )
