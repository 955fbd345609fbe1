"""The generated GLSL beside a plain scalar version of the same contract, on raw Vulkan.

    python -m benchmarks.shaders --driver nvidia

Same runner, same grid, same buffers; time on the device from timestamps around each dispatch.
Where there is no compiler for shaders, build them elsewhere (``--build DIR``, which measures
nothing) and bring the folder (``--built DIR``).
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np

from tools.parity import contract
from tools.parity.harness import generated_folder
from tools.vulkan import Device
from wgpu_q4.bench.timing import Timing
from wgpu_q4.check import oracle
from wgpu_q4.check.cases import Case, WeightKind
from wgpu_q4.errors import DeviceLimitError
from wgpu_q4.kernels import OutputDtype

SCALAR = Path(__file__).parent / "glsl"


def cases(vocab: int, embed_dim: int, ids: int) -> list[Case]:
    """One for each kind of weight and output that both versions have."""
    weights: tuple[WeightKind, ...] = ("flat", "linear_buffer", "linear_texture2d")
    outputs: tuple[OutputDtype, ...] = ("float32", "float16")
    return [
        Case("benchmark", vocab, embed_dim, 32, (1, ids), output=output, weight=weight)
        for weight in weights
        for output in outputs
    ]


def build_both(out: Path) -> None:
    """Build the generated and the scalar shaders into two folders of ``out``."""
    from tools.codegen import build

    build(generated_folder(), out / "generated")
    build(SCALAR, out / "scalar")


def measure(device: Device, case: Case, spirv: Path, repeats: int) -> Timing:
    """Seconds of one dispatch, warmed up; raises AssertionError for a wrong result."""
    dispatch = contract.dispatch(case, spirv.read_bytes())
    outcome = device.run(replace(dispatch, timed_runs=repeats))
    found = contract.result(case, outcome.results[0])
    distance = oracle.distance(found, oracle.expected(case))
    # A compiler may round a half one way or the other where a shader leaves it the choice.
    assert distance.ulp <= (1 if case.output == "float16" else 0), f"{spirv}: {distance}"
    return Timing.of(outcome.seconds[repeats // 4 :])


def main() -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.shaders")
    parser.add_argument("--driver", default="lavapipe", help="its name or its manifest's path")
    parser.add_argument("--vocab", type=int, default=128256)
    parser.add_argument("--embed-dim", type=int, default=2048)
    parser.add_argument("--ids", type=int, default=16384)
    parser.add_argument("--repeats", type=int, default=64)
    parser.add_argument("--build", type=Path, metavar="DIR", help="only build the shaders there")
    parser.add_argument("--built", type=Path, metavar="DIR", help="shaders built there before")
    options = parser.parse_args()
    if options.build is not None:
        build_both(options.build)
        return 0
    with TemporaryDirectory() as scratch, Device(options.driver) as device:
        folder = options.built or Path(scratch)
        if options.built is None:
            build_both(folder)
        print(f"{device.summary}; {options.ids} ids of [{options.vocab}, {options.embed_dim}], g32")
        print(f"{'kernel':<52} {'generated':>12} {'scalar':>12}  times faster")
        ratios = []
        for case in cases(options.vocab, options.embed_dim, options.ids):
            try:
                ours, scalar = (
                    measure(device, case, folder / which / f"{case.kernel}.spv", options.repeats)
                    for which in ("generated", "scalar")
                )
            except DeviceLimitError as error:
                print(f"{case.kernel:<52} {error}")
                continue
            ratios.append(scalar.median / ours.median)
            print(
                f"{case.kernel:<52} {ours.median * 1e6:>9.1f} µs {scalar.median * 1e6:>9.1f} µs"
                f"  {ratios[-1]:.2f}   (quartiles {ours.low * 1e6:.1f}-{ours.high * 1e6:.1f}, "
                f"{scalar.low * 1e6:.1f}-{scalar.high * 1e6:.1f})"
            )
        print(f"median: {np.round(median(ratios), 2)} times faster")
    return 0


if __name__ == "__main__":
    sys.exit(main())
