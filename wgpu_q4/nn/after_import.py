"""Run code after another package has been imported, whenever that may be."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


def after_import(name: str, run: Callable[[], object]) -> None:
    """Call ``run`` once the module ``name`` has been imported: now, if it has been.

    Nothing is imported here.
    """
    if name in sys.modules:
        run()
    else:
        sys.meta_path.insert(0, _Finder(name, run))


class _Finder(MetaPathFinder):
    """Finds nothing itself, but has a module's loader call back."""

    def __init__(self, name: str, run: Callable[[], object]) -> None:
        self._name, self._run = name, run

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != self._name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_and_run(module: ModuleType) -> None:
            execute(module)
            self._run()

        spec.loader.exec_module = execute_and_run  # type: ignore[method-assign]
        return spec
