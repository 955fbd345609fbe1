"""The kernels as text: two WGSL compilers take every variant, and the table says what they hold.

naga compiles through wgpu, on the adapter that is there; Tint, Chrome's compiler, through wgpudawn
on SwiftShader.  Both get a device with WebGPU's default limits and no feature, which is what every
browser has.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any, get_args

import pytest

from tests.devices import (
    WEBGPU_DEFAULTS,
    default_device,
    leave_workgroup_memory_as_it_is,
    run_on_swiftshader,
)
from tools.codegen.shaders import executorch_shaders
from wgpu_q4 import kernels
from wgpu_q4.format import ScalesDtype
from wgpu_q4.kernels import (
    PROBE_HALVES,
    Dispatch,
    HalfSupport,
    Layout,
    LinearKernel,
    MatrixShape,
    OutputDtype,
    Storage,
    all_shaders,
    matrix_shaders,
    parse_bindings,
    plan_embedding,
    plan_linear,
    plan_pack,
    plan_reduce,
    source_folder,
)

LAYOUTS: tuple[Layout, ...] = get_args(Layout)
SCALES: tuple[ScalesDtype, ...] = get_args(ScalesDtype)
NATIVE = HalfSupport(subnormals=True, rounding=True)
SUPPORTS = (NATIVE, HalfSupport(subnormals=True), HalfSupport())
VARIANTS = {variant.name: variant for variant in all_shaders()}
PIECES = {
    path.relative_to(source_folder()).with_suffix("").as_posix(): path.read_text(encoding="utf-8")
    for path in source_folder().rglob("*.wgsl")
}

MATRIX_VARIANTS = {variant.name: variant for variant in matrix_shaders()}
MATRIX_PIECES = {piece for piece in PIECES if "matrix" in piece}
"""No compiler here takes them; test_matrix_units.py runs them emulated."""

every_piece = pytest.mark.parametrize("piece", sorted(PIECES))


def code_of(wgsl: str) -> str:
    """WGSL without its comments, which may speak of what the code may not hold."""
    return re.sub(r"//[^\n]*|/\*.*?\*/", "", wgsl, flags=re.DOTALL)


# Constants: every variant as some plan runs it


def plans(limits: Mapping[str, int]) -> Iterator[Dispatch]:
    """Dispatches of every variant: few rows and many, K and G wide, odd and as small as can be.

    1, 2, 3 and 8 rows of x are what kernels for few of them take at once; a row of K = 16384 is too
    long to be quantized in a workgroup.
    """
    sizes = [
        (50, 64, 32),
        (1, 8, 8),
        (257, 72, 24),
        (128256, 2048, 32),
        (3, 2080, 32),
        (7, 16384, 128),
    ]
    for (vocab, embed_dim, group), scales, support in product(sizes, SCALES, SUPPORTS):
        shape = MatrixShape(vocab, embed_dim, group, scales)
        storages: tuple[Storage, ...] = get_args(Storage)
        outputs: tuple[OutputDtype, ...] = get_args(OutputDtype)
        for layout, storage, output in product(LAYOUTS, storages, outputs):
            yield plan_embedding(shape, 7, layout, output, storage, limits, support)
        for reduce, kept in (("argmax", 1), ("top_k", 1), ("top_k", 40), ("top_k", 1024)):
            yield from plan_reduce(100 * vocab, 3, reduce, kept, limits).stages  # type: ignore[arg-type]
        yield plan_pack(shape, "blocks_buffer", limits)
        yield plan_pack(shape, "blocks_texture2d", limits)
        for layout, bias, rows in product(LAYOUTS, (False, True), (1, 2, 3, 8, 40, 500)):
            for kernel in applicable(shape, layout, support):
                linear = plan_linear(shape, rows, layout, bias, limits, support, kernel)
                yield linear.product
                if linear.preparation is not None:
                    yield linear.preparation
    yield Dispatch(PROBE_HALVES, {}, (1, 1, 1))


@cache
def distinct_plans() -> list[Dispatch]:
    """Those of `plans` that differ in more than their grid."""
    return list({plan.key: plan for plan in plans(WEBGPU_DEFAULTS)}.values())


def applicable(shape: MatrixShape, layout: Layout, support: HalfSupport) -> list[LinearKernel]:
    """Those of a layout that do the shape on a device without matrix units."""
    found: list[LinearKernel] = []
    for kernel in kernels.linear_kernels(layout):
        wide = shape.embed_dim % 32 == 0 and shape.group_size % 32 == 0
        if kernel == "gemm_matrix" or (kernel.endswith("subnormal") and not support.subnormals):
            continue
        if wide or kernel in ("gemv", "gemm"):
            found.append(kernel)
    return found


CODE_OF_CONSTANTS = ("X_ROWS", "PLANES", "TILE_M", "LANE_BLOCKS")
"""Constants that decide which statements there are, beside those that are sizes and counts."""


@cache
def forms() -> dict[str, Dispatch]:
    """Each variant as the first plan runs it, and those without a bias and with scales in float32,
    which differ from the others in nothing else, with every value of `CODE_OF_CONSTANTS`."""
    found: dict[str, Dispatch] = {}
    for plan in distinct_plans():
        name = plan.shader.name
        deciding = [f"{k}={plan.constants[k]}" for k in CODE_OF_CONSTANTS if k in plan.constants]
        if name not in found:
            found[name] = plan
        elif deciding and not {"scales/f16", "linear/common/bias_buffer"} & set(plan.shader.pieces):
            found.setdefault(" ".join([name, *deciding]), plan)
    return found


def test_every_variant_is_one_that_a_plan_runs() -> None:
    assert {plan.shader.name for plan in forms().values()} == set(VARIANTS)
    assert len(VARIANTS) == len(list(all_shaders())), "two variants have one name"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_form_of_a_kernel_is_one_that_a_plan_runs(layout: Layout) -> None:
    """Rows of x at once, tiles, and x quantized here or before, for each layout."""
    seen: dict[str, set[Any]] = {}
    for plan in distinct_plans():
        for kernel in kernels.linear_kernels(layout):
            if f"linear_q4gsw_{kernel}_{layout}_f" in plan.shader.name:
                form = plan.constants.get("X_ROWS", plan.constants.get("TILE_M"))
                prepared = "linear/gemv_integers/integers_before" in plan.shader.pieces
                seen.setdefault(kernel, set()).add((form, prepared))
    few = {(rows, False) for rows in (1, 2, 4, 8)}
    here_and_before = {(1, False)} | {(rows, True) for rows in (1, 2, 4, 8)}
    integers = here_and_before if layout == "rows" else {(None, False), (None, True)}
    expected = {
        "gemv": {(None, False)},
        "gemv_wide": few,
        "gemv_wide_subnormal": few,
        "gemv_int16": integers,
        "gemv_int8": integers,
        "gemm": {(32, False), (64, False), (128, False)},
        "gemm_int8": {(64, False), (128, False)},
    }
    names = [k for k in kernels.linear_kernels(layout) if k != "gemm_matrix"]
    assert seen == {kernel: expected[kernel] for kernel in names}


# Compilers


@dataclass(frozen=True)
class Shader:
    """Something to compile."""

    source: str
    constants: Mapping[str, int]


SHAPE = {"EMBED_DIM": 64, "GROUP_SIZE": 32, "VOCAB": 50}
BROKEN = {
    "syntax": Shader("@compute @workgroup_size(1) fn main( {}", {}),
    "type": Shader("@compute @workgroup_size(1) fn main() { let x: u32 = 1.5; }", {}),
    "missing function": Shader(
        kernels.embedding_shader("rows", "float32").source.replace("fn load_scale(", "fn load("),
        SHAPE,
    ),
    "f16 without its feature": Shader(
        "@compute @workgroup_size(1) fn main() { let x = f16(1.0); }", {}
    ),
    "constant without value": Shader(
        "override N: u32; @group(0) @binding(0) var<storage, read_write> out: array<u32>;"
        "@compute @workgroup_size(1) fn main() { out[0] = N; }",
        {},
    ),
    "unknown constant": Shader("@compute @workgroup_size(1) fn main() {}", {"N": 1}),
}
"""Each must be refused, or a compiler's silence would mean nothing."""

TOO_MUCH = {
    "workgroup memory": Shader(
        kernels.linear_shader("gemm", "rows", "float16", False).source,
        {**SHAPE, "TILE_M": 256},
    ),
    "invocations": Shader("@compute @workgroup_size(257) fn main() {}", {}),
}
"""Beyond the default limits.  Only Dawn checks them where the adapter itself has more."""


@cache
def shaders() -> dict[str, Shader]:
    return {name: Shader(plan.shader.source, plan.constants) for name, plan in forms().items()}


def compile_with(device: Any, shader: Shader) -> str | None:
    """Why ``device`` refuses the shader or a pipeline of it; None if it takes both."""
    try:
        module = device.create_shader_module(code=shader.source)
        device.create_compute_pipeline(
            layout="auto",
            compute={
                "module": module,
                "entry_point": "main",
                "constants": dict(shader.constants),
            },
        )
    except Exception as error:  # each implementation has its own, not all of one class
        return f"{type(error).__name__}: {error}"
    return None


every_form = pytest.mark.parametrize("name", forms())


@pytest.fixture(scope="module")
def naga() -> Any:
    return default_device("wgpu")


@pytest.fixture(scope="module")
def tint() -> dict[str, Any]:
    """What Tint says of every shader, and who speaks."""
    work = {
        name: {"source": shader.source, "constants": dict(shader.constants)}
        for name, shader in (shaders() | BROKEN | TOO_MUCH).items()
    }
    said = run_on_swiftshader("tests.gpu.test_kernels", "wgpudawn", json.dumps(work))
    answer: dict[str, Any] = json.loads(said)
    assert answer["module"] == "wgpudawn"
    assert "SwiftShader" in answer["adapter"]
    return answer


def compile_with_tint() -> None:
    """The process of `tint`: shaders from standard input, errors to standard output, as JSON."""
    leave_workgroup_memory_as_it_is()
    work = json.load(sys.stdin)
    device = default_device("wgpudawn")
    errors = {name: compile_with(device, Shader(**shader)) for name, shader in work.items()}
    module = type(device).__module__.partition(".")[0]
    json.dump(
        {"module": module, "adapter": device.adapter.info["device"], "errors": errors}, sys.stdout
    )


@every_form
def test_naga_compiles(naga: Any, name: str) -> None:
    assert compile_with(naga, shaders()[name]) is None


@every_form
def test_tint_compiles(tint: dict[str, Any], name: str) -> None:
    assert tint["errors"][name] is None


@pytest.mark.parametrize("name", BROKEN)
def test_naga_refuses_what_is_broken(naga: Any, name: str) -> None:
    assert compile_with(naga, BROKEN[name]) is not None


@pytest.mark.parametrize("name", [*BROKEN, *TOO_MUCH])
def test_tint_refuses_what_is_broken(tint: dict[str, Any], name: str) -> None:
    assert tint["errors"][name] is not None


def test_no_driver_is_a_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """Not a skip: `pytest.fail` says what to do."""
    monkeypatch.setenv("WGPU_Q4_SWIFTSHADER_ICD", str(tmp_path / "absent.json"))
    with pytest.raises(pytest.fail.Exception, match=r"absent\.json, which is not a file"):
        run_on_swiftshader("tests.gpu.test_kernels", "wgpudawn")
    monkeypatch.delenv("WGPU_Q4_SWIFTSHADER_ICD")
    with pytest.raises(pytest.fail.Exception, match="WGPU_Q4_SWIFTSHADER_ICD is not set"):
        run_on_swiftshader("tests.gpu.test_kernels", "wgpudawn")


# The table


@pytest.mark.parametrize("name", [*VARIANTS, *MATRIX_VARIANTS])
def test_a_variant_binds_what_its_pieces_declare(name: str) -> None:
    variant = (VARIANTS | MATRIX_VARIANTS)[name]
    bound = variant.bindings
    numbers = [binding.number for binding in bound]
    assert numbers == sorted(set(numbers)), "a binding number is used twice, or out of order"
    assert sorted(parse_bindings(variant.source), key=lambda binding: binding.number) == list(bound)
    assert code_of(variant.source).count("@compute") == 1


def test_every_file_is_part_of_a_variant() -> None:
    variants = (*VARIANTS.values(), *MATRIX_VARIANTS.values(), *executorch_shaders())
    assert {piece for variant in variants for piece in variant.pieces} == set(PIECES)


def test_a_variant_is_its_files_one_after_the_other() -> None:
    for variant in (*VARIANTS.values(), *MATRIX_VARIANTS.values()):
        places = [variant.source.index(PIECES[piece]) for piece in variant.pieces]
        assert places == sorted(places)
        lines = sum(len(PIECES[piece].splitlines()) for piece in variant.pieces)
        assert len(variant.source.splitlines()) <= lines + 3 * len(variant.pieces)


# What every browser and driver has


@every_piece
def test_a_file_opens_by_saying_what_it_is(piece: str) -> None:
    first = PIECES[piece].splitlines()[0]
    assert re.match(r"// \w.{5}", first), f"{piece}.wgsl begins with {first!r}"


@pytest.mark.parametrize("piece", sorted(set(PIECES) - MATRIX_PIECES))
def test_core_wgsl_only(piece: str) -> None:
    code = code_of(PIECES[piece])
    assert not re.search(r"^\s*(enable|requires|diagnostic)\b", code, re.MULTILINE)
    assert not re.search(r"\bf16\b|\bvec\dh\b|\bmat\dx\dh\b|\d+(\.\d*)?h\b", code), "half type"
    assert not re.search(r"\bsubgroup|\bquad(Broadcast|Swap)", code), "subgroups"
    builtins = {
        "global_invocation_id",
        "workgroup_id",
        "num_workgroups",
        "local_invocation_index",
    }
    assert set(re.findall(r"@builtin\((\w+)\)", code)) <= builtins


def test_only_matrix_units_need_more_than_the_core() -> None:
    """Directives come first in a module, so they stand in its first piece and nowhere else."""
    core = {piece for variant in VARIANTS.values() for piece in variant.pieces}
    assert not core & MATRIX_PIECES
    directive = re.compile(r"^\s*(enable|requires|diagnostic)\b", re.MULTILINE)
    for name, variant in MATRIX_VARIANTS.items():
        asking = [piece for piece in variant.pieces if directive.search(code_of(PIECES[piece]))]
        assert asking == ([] if name.startswith("halve_x") else ["linear/matrix_units/extensions"])
        assert asking == [*variant.pieces[: len(asking)]]


# Workgroups


def workgroup_size(code: str, values: Mapping[str, int]) -> int:
    """Invocations of a workgroup."""
    sizes = re.findall(r"@workgroup_size\(([^)]*)\)", code)
    assert len(sizes) == 1
    result = 1
    for size in sizes[0].split(","):
        result *= evaluate(size, values)
    return result


def workgroup_bytes(code: str, values: Mapping[str, int]) -> int:
    """Bytes of all ``var<workgroup>``."""
    types = re.findall(r"var<workgroup>\s+\w+\s*:\s*([^;]+);", code)
    assert len(types) == code.count("var<workgroup>")
    for alias, meant in re.findall(r"\balias (\w+) = ([^;]+);", code):
        types = [re.sub(rf"\b{alias}\b", meant, type_) for type_ in types]
    return sum(bytes_of(type_.strip(), values) for type_ in types)


def bytes_of(type_: str, values: Mapping[str, int]) -> int:
    scalars = {"u32": 4, "i32": 4, "f32": 4}
    if array := re.fullmatch(r"array<(.+),([^,<>]+)>", type_):
        return bytes_of(array[1].strip(), values) * evaluate(array[2], values)
    if vector := re.fullmatch(r"vec([24])<(\w+)>", type_):
        return int(vector[1]) * scalars[vector[2]]
    return scalars[type_]


def evaluate(expression: str, values: Mapping[str, int]) -> int:
    """An expression of WGSL's unsigned integers."""
    python = re.sub(r"(\d)u\b", r"\1", expression).replace("/", "//")
    return int(eval(python, {"__builtins__": {}}, dict(values)))


def values_of(plan: Dispatch | Shader) -> dict[str, int]:
    """The integers that a kernel's types may use: its constants, and overrides as they are set."""
    source = plan.shader.source if isinstance(plan, Dispatch) else plan.source
    pattern = r"(?:const|override) (\w+)(?:\s*:\s*u32)?\s*=\s*(\d+)u?;"
    written = {name: int(value) for name, value in re.findall(pattern, code_of(source))}
    return written | dict(plan.constants)


def test_every_plan_stays_within_the_default_limits() -> None:
    """Where a device has WebGPU's default limits, and nothing more."""
    sizes = set()
    for plan in distinct_plans():
        code, values = code_of(plan.shader.source), values_of(plan)
        used = workgroup_bytes(code, values)
        assert workgroup_size(code, values) <= WEBGPU_DEFAULTS["max-compute-workgroup-size-x"]
        assert used <= 16384, f"{plan.shader.name} with {dict(plan.constants)}: {used} bytes"
        assert 1 <= workgroup_size(code, values) <= 256, plan.shader.name
        sizes.add(used)
    assert len(sizes) > 3  # not all zero


def test_workgroup_bytes_are_what_dawn_counts(tint: dict[str, Any]) -> None:
    """The count above, against Dawn's in the message with which it refuses a tile too large."""
    shader = TOO_MUCH["workgroup memory"]
    counted = workgroup_bytes(code_of(shader.source), values_of(shader))
    assert counted > 16384
    assert f"({counted} bytes)" in tint["errors"]["workgroup memory"]


# What runs unchecked


def unchecked() -> Iterator[Dispatch]:
    """Plans of kernels that run without wgpu's checks of addresses."""
    return (plan for plan in distinct_plans() if plan.needs is not None)


def arrays_of(code: str) -> set[str]:
    """The variables of a module that are indexed by address."""
    pattern = r"var<(?:storage|workgroup)[^>]*>\s+(\w+)\s*:\s*array<"
    return set(re.findall(pattern, code))


def header_of(wgsl: str) -> str:
    """The comment with which a file opens, on one line."""
    lines = []
    for line in wgsl.splitlines():
        if not line.startswith("//"):
            break
        lines.append(line.removeprefix("//").strip())
    return " ".join(lines)


def indexing(variant: kernels.Shader) -> set[str]:
    """The pieces of a variant that index a buffer or workgroup memory."""
    arrays = arrays_of(code_of(variant.source))
    indexed = re.compile(rf"\b(?:{'|'.join(arrays)})\s*\[")
    return {piece for piece in variant.pieces if indexed.search(code_of(PIECES[piece]))}


def test_what_runs_unchecked_says_why_it_stays_in_range() -> None:
    variants = {plan.shader for plan in unchecked()}
    assert len(variants) > 20
    pieces = set().union(*map(indexing, variants))
    assert pieces >= {
        "linear/gemv/team",
        "linear/gemv/gemv_blocks",
        "linear/common/quantize",
        "scales/f16",
    }
    silent = [piece for piece in sorted(pieces) if "In range:" not in header_of(PIECES[piece])]
    assert silent == []


def test_what_runs_unchecked_reads_buffers_only() -> None:
    """A texture has its own bounds, and addresses may not come from data."""
    for variant in {plan.shader for plan in unchecked()}:
        assert {binding.kind for binding in variant.bindings} == {"buffer"}
        code, arrays = code_of(variant.source), arrays_of(code_of(variant.source))
        for index in indices_of(code, arrays):
            inner = re.search(rf"\b(?:{'|'.join(arrays)})\b", index)
            assert inner is None, f"{variant.name} takes an address from data: {index}"


def indices_of(code: str, arrays: set[str]) -> Iterator[str]:
    """What stands between the brackets after an array's name."""
    for match in re.finditer(rf"\b(?:{'|'.join(arrays)})\s*\[", code):
        yield balanced(code, match.end(), "[", "]")


def balanced(code: str, start: int, opening: str, closing: str) -> str:
    """The text from ``start`` to the bracket that closes the one before it."""
    depth = 1
    for end in range(start, len(code)):
        depth += (code[end] == opening) - (code[end] == closing)
        if depth == 0:
            return code[start:end]
    raise AssertionError("a bracket is not closed")


def test_loops_of_what_runs_unchecked_end() -> None:
    """wgpu counts the turns of others: a variable grows by a constant of one or more, below a bound
    that is no data, and nothing else changes it."""
    seen = 0
    for variant, plan in {plan.shader: plan for plan in unchecked()}.items():
        code, values = code_of(variant.source), values_of(plan)
        data = re.compile(rf"\b(?:{'|'.join(arrays_of(code))})\b")
        loops = list(loops_of(code))
        assert len(loops) == len(re.findall(r"\b(?:for|while|loop)\b", code))
        for name, bound, step, body in loops:
            assert not data.search(bound), f"{variant.name}: {bound}"
            assert evaluate(step, values) >= 1
            changes = rf"\b{name}\s*(?:[-+*/%&|^]|<<|>>)?=[^=]|\b{name}(?:\+\+|--)|&{name}\b"
            assert not re.search(changes, body), f"{variant.name} changes {name} within its loop"
            seen += 1
    assert seen > 40


def loops_of(code: str) -> Iterator[tuple[str, str, str, str]]:
    """Variable, bound, step and body of each loop of one of the two forms that are allowed."""
    head = r"for \(var (\w+) = [^;]+; \1 < ([^;]+); \1(?:(\+\+)| \+= ([^;{]+))\) \{"
    for match in re.finditer(head, code):
        body = balanced(code, match.end(), "{", "}")
        yield match[1], match[2], "1" if match[3] else match[4], body
    for match in re.finditer(r"while (\w+) < ([^{]+)\{", code):
        body = balanced(code, match.end(), "{", "}")
        last = re.search(rf"\b{match[1]} \+= ([^;]+);\s*$", body)
        assert last is not None, f"{match[0]} does not end by adding to {match[1]}"
        yield match[1], match[2], last[1], body[: last.start()]


@pytest.mark.parametrize(
    ("code", "ends"),
    [
        ("for (var i = 0u; i < N; i++) { f(i); }", True),
        ("for (var i = lane; i < N; i += TEAM) { f(i); }", True),
        ("while k < n && m < n { f(k); k += 2u; }", True),
        ("for (var i = 0u; i != N; i++) { f(i); }", False),
        ("for (var i = N; i > 0u; i--) { f(i); }", False),
        ("loop { f(i); }", False),
    ],
)
def test_loops_of_other_forms_are_not_taken_for_these(code: str, ends: bool) -> None:
    assert len(list(loops_of(code))) == ends


if __name__ == "__main__":
    compile_with_tint()
