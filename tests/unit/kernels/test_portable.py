"""The text of the kernels: what every browser and every driver has, within the default limits."""

from __future__ import annotations

import re

from tests.unit.kernels.every_shader import distinct_plans
from wgpu_q4.kernels import matrix_shaders, piece_names, portable_shaders, read_piece
from wgpu_q4.kernels.text import code_of, workgroup_bytes, workgroup_size

DIRECTIVE = re.compile(r"^\s*(enable|requires|diagnostic)\b", re.MULTILINE)
BUILTINS = {
    "global_invocation_id",
    "workgroup_id",
    "num_workgroups",
    "local_invocation_index",
}


def test_core_wgsl_only() -> None:
    for piece in sorted({piece for shader in portable_shaders() for piece in shader.pieces}):
        code = code_of(read_piece(piece))
        assert not DIRECTIVE.search(code), piece
        half = r"\bf16\b|\bvec\dh\b|\bmat\dx\dh\b|\d+(\.\d*)?h\b"
        assert not re.search(half, code), f"{piece} has a half type"
        assert not re.search(r"\bsubgroup|\bquad(Broadcast|Swap)", code), f"{piece} uses subgroups"
        assert set(re.findall(r"@builtin\((\w+)\)", code)) <= BUILTINS, piece


def test_only_matrix_units_need_more_than_the_core() -> None:
    """Directives come first in a module, so they stand in its first piece and nowhere else."""
    core = {piece for shader in portable_shaders() for piece in shader.pieces}
    assert {piece for piece in core if piece.startswith("linear/matrix_units/")} == set()
    for shader in matrix_shaders():
        asking = [piece for piece in shader.pieces if DIRECTIVE.search(code_of(read_piece(piece)))]
        is_pass = shader.name.startswith("halve_x")
        assert asking == ([] if is_pass else ["linear/matrix_units/extensions"])
        assert asking == [*shader.pieces[: len(asking)]]


def test_every_piece_opens_by_saying_what_it_is() -> None:
    for piece in piece_names():
        first = read_piece(piece).splitlines()[0]
        assert re.match(r"// \w.{5}", first), f"{piece}.wgsl begins with {first!r}"


def test_every_plan_stays_within_the_default_limits() -> None:
    """Where a device has WebGPU's default limits, and nothing more."""
    sizes = set()
    for plan in distinct_plans():
        source = plan.shader.source
        used = workgroup_bytes(source, plan.constants)
        assert used <= 16384, f"{plan.shader.name} with {dict(plan.constants)}: {used} bytes"
        assert 1 <= workgroup_size(source, plan.constants) <= 256, plan.shader.name
        sizes.add(used)
    assert len(sizes) > 3  # not all zero


def test_a_product_on_matrix_units_takes_the_memory_that_it_asks_for() -> None:
    used = {
        workgroup_bytes(shader.source, {"SUBGROUPS_M": 4})
        for shader in matrix_shaders()
        if not shader.name.startswith("halve_x")
    }
    assert used == {24064}
