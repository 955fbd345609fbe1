"""The adapter, the host and the versions of a run."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import wgpu_q4
from wgpu_q4.device import Context

_ROOT = Path(__file__).resolve().parents[2]
_PACKAGES = ("numpy", "torch", "onnxruntime", "onnxruntime-webgpu", "onnxruntime-ep-webgpu")


def adapter(context: Context) -> dict[str, str]:
    """Return the field ``adapter`` of a document."""
    info = context.device.adapter.info
    module = context.implementation
    return {
        "name": str(info["device"]),
        "driver": str(info["description"]),
        "backend": str(info["backend_type"]),
        "kind": str(info["adapter_type"]),
        "implementation": f"{module.__name__} {module.__version__}",
    }


def host() -> dict[str, str | int]:
    """Return the field ``host`` of a document."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count() or 0,
        "system": f"{platform.system()} {platform.machine()}",
    }


def versions() -> dict[str, str]:
    """Return the field ``versions`` of a document."""
    found = {"wgpu_q4": own_version(), "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def own_version() -> str:
    """Return this package's version; a checkout adds its commit, and ``+`` after changes."""
    number = wgpu_q4.__version__
    project = _ROOT / "pyproject.toml"
    if not project.is_file():
        return number
    if number == "0+unknown":  # a checkout that is not installed
        number = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["version"]
    top = _git("rev-parse", "--show-toplevel")
    if top is None or Path(top) != _ROOT:  # a copy inside another repository
        return number
    commit = _git("rev-parse", "--short=10", "HEAD")
    changed = (
        "+"
        if _git("status", "--porcelain", "--untracked-files=no", "--", "wgpu_q4", "wgsl")
        else ""
    )
    return f"{number} ({commit}{changed})"


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(_ROOT), *arguments], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    match = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return match[1] if match else platform.machine()
