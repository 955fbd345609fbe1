"""The unit tier runs alone where neither torch, nor ExecuTorch, nor a GPU library is installed."""

from __future__ import annotations

from pathlib import Path

from tests.devices import ROOT, run_python
from tests.unit.conftest import OUTSIDE, Guard

IMPORTS = """
import importlib, sys
from tests.unit.conftest import OUTSIDE, Guard

sys.meta_path.insert(0, Guard())
for name in sys.argv[1:]:
    importlib.import_module(name)
print(sorted(OUTSIDE & sys.modules.keys()))
"""


def test_unit_tests_import_nothing_heavy() -> None:
    files = sorted((ROOT / "tests" / "unit").rglob("test_*.py"))
    modules = [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files]
    assert len(modules) > 3
    assert run_python("-c", IMPORTS, *modules, PYTHONPATH=str(ROOT)).strip() == "[]"


def test_the_guard_refuses_what_is_outside(tmp_path: Path) -> None:
    said = run_python("-c", REFUSED, PYTHONPATH=str(ROOT))
    assert "move the test to tests/gpu" in said
    assert Guard().find_spec("numpy", None) is None
    assert "torch" in OUTSIDE


REFUSED = """
import sys
from tests.unit.conftest import Guard

sys.meta_path.insert(0, Guard())
try:
    import torch.nn
except ImportError as error:
    print(error)
"""


def test_each_folder_is_a_tier() -> None:
    from tests.conftest import TIERS

    folders = {path.parent.name for path in (ROOT / "tests").glob("*/test_*.py")}
    assert folders == set(TIERS)
