"""A process that runs cases on one driver with whatever pieces of WGSL it is given.

Reads requests from standard input, one JSON object a line: ``folder`` with the pieces, and
``cases`` by name.  Answers each with one line: ``ran``, an object for each case that the device can
run, with its name, whether its result is wrong, whether its result has the same bits for each
filling of workgroup memory, and the names of the pieces that were compiled; or ``error``, a text.
"""

from __future__ import annotations

import json
import os
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.devices import default_device, leave_workgroup_memory_as_it_is
from tools.mutants.cases import BY_NAME, Case
from tools.mutants.workgroup import FILLS, filled
from wgpu_q4 import kernels
from wgpu_q4.device import request_device
from wgpu_q4.device.implementation import load_implementation


def new_device(word: int, pieces: set[str]) -> Any:
    """Return a device whose kernels find ``word`` in workgroup memory.

    Args:
        word: see `filled`.
        pieces: takes the names of the pieces of each kernel that the device compiles.
    """
    implementation = load_implementation().__name__
    device = request_device() if implementation == "wgpu" else default_device(implementation)
    create = device.create_shader_module

    def create_filled(*, label: str, code: str) -> Any:
        pieces.update(re.findall(r"^// ---- (\S+)\.wgsl$", code, re.MULTILINE))
        return create(label=label, code=filled(code, word))

    device.create_shader_module = create_filled
    return device


def judge(case: Case) -> dict[str, Any] | None:
    """Run a case with each filling, on a new device each; None if the device cannot run it."""
    results: list[NDArray[Any]] = []
    pieces: set[str] = set()
    for word in FILLS:
        device = new_device(word, pieces)
        if not case.runs_on(device):
            return None
        results.append(case.run(device))
    return {
        "case": str(case),
        "red": not all(np.array_equal(result, case.exact()) for result in results),
        "defined": len({result.tobytes() for result in results}) == 1,
        "pieces": sorted(pieces),
    }


def answer(folder: Path, names: list[str]) -> dict[str, Any]:
    """Run the cases of these names with the pieces in ``folder``."""
    os.environ[kernels.SOURCE_VARIABLE] = str(folder)
    kernels.read_piece.cache_clear()
    try:
        judged = [judge(BY_NAME[name]) for name in names]
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}
    return {"ran": [one for one in judged if one is not None]}


def main() -> None:
    """Serve requests until standard input ends."""
    # Libraries print to standard output; the answers go where they cannot.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    os.environ["WGPU_Q4_SHADER_CHECKS"] = "1"  # a wrong index is clamped, it crashes nothing
    if load_implementation().__name__ == "wgpudawn":
        leave_workgroup_memory_as_it_is()
    for line in sys.stdin:
        request = json.loads(line)
        answers.write(json.dumps(answer(Path(request["folder"]), request["cases"])) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
