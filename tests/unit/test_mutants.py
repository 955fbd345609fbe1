"""The mutants as text: each has its place, and the tools that make them do what they say."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.mutants.mutant import Mutant, write_pieces
from tools.mutants.place import PlaceError, replaced
from tools.mutants.table import MUTANTS
from tools.mutants.verdict import Verdict, compared
from tools.mutants.workgroup import filled
from wgpu_q4.kernels import source_folder

# Pieces without a place that could be wrong, those whose mistakes tests/gpu/test_webgpu_backend.py
# has, and those for hardware that no test machine has.
WITHOUT = {
    "linear/common/bias_none",
    "executorch/linear/common/bias_optional",
    "executorch/linear/common/exact_halves",
    "executorch/linear/gemv/gemv_webgpu_backend",
}
ON_OTHER_HARDWARE = "linear/matrix_units/"


def piece(name: str) -> str:
    return (source_folder() / f"{name}.wgsl").read_text(encoding="utf-8")


# The table


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_a_mutant_has_one_place_and_changes_it(mutant: Mutant) -> None:
    text = piece(mutant.piece)
    assert mutant.changed(text) != text


def test_no_mutant_is_listed_twice() -> None:
    texts = [(mutant.piece, mutant.changed(piece(mutant.piece))) for mutant in MUTANTS]
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize("room", ["linear", "reduce"])
def test_every_piece_of_a_room_has_a_mutant(room: str) -> None:
    folder = source_folder()
    names = {
        path.relative_to(folder).with_suffix("").as_posix()
        for path in (folder / room).rglob("*.wgsl")
    }
    names = {name for name in names - WITHOUT if not name.startswith(ON_OTHER_HARDWARE)}
    assert names <= {mutant.piece for mutant in MUTANTS}


# Places


def test_layout_and_comments_do_not_matter() -> None:
    text = "let x = a  // the first\n    + 8u * b;\n"
    assert replaced(text, "a + 8u", "c + 8u") == "let x = c + 8u * b;\n"


def test_a_name_stands_for_any_identifier() -> None:
    text = "let row = min(m, last) + min(n, last);"
    assert replaced(text, "$row = min($m, $end)", "$row = max($m, $end)") == (
        "let row = max(m, last) + min(n, last);"
    )
    assert replaced("f(a, a) + f(a, b)", "f($x, $x)", "g($x)") == "g(a) + f(a, b)"


@pytest.mark.parametrize(
    ("text", "times"),
    [("a + 2u;", 0), ("a + 1u; b + 1u;", 2), ("8 + 1u;", 0), ("a + 1u8;", 0), ("", 0)],
)
def test_a_place_that_is_not_there_once_is_an_error(text: str, times: int) -> None:
    with pytest.raises(PlaceError, match=f"must occur once, and occurs {times} times"):
        replaced(text, "$x + 1u", "$x")


def test_a_piece_that_has_changed_is_named(tmp_path: Path) -> None:
    (tmp_path / "from").mkdir()
    (tmp_path / "from" / "body.wgsl").write_text("a + 1u;")
    mutant = Mutant("body", "a + 2u", "a")
    with pytest.raises(PlaceError, match="body has changed, choose another place"):
        write_pieces(tmp_path / "from", tmp_path / "to", (mutant,))


# Workgroup memory


def test_workgroup_memory_is_filled_before_anything_else() -> None:
    code = """
var<workgroup> slots: array<vec4<f32>, 2u * LANES>;
var<workgroup> words: array<u32, 64>;

@compute @workgroup_size(LANES)
fn main(
    @builtin(local_invocation_index) lane: u32,
) {
    slots[lane] = vec4<f32>(1.0);
}
"""
    text = filled(code, 5)
    main = text.index("fn main")
    assert text[:main] == code[:main]
    start = text.index("slots[at] = bitcast<vec4<f32>>(vec4<u32>(5u));")
    assert text.index("at < u32(2u * LANES)") < start < text.index("words[at] = u32(5u);")
    assert "if lane == 0u {" in text
    assert text.index("workgroupBarrier();") < text.index("slots[lane]")


def test_a_kernel_without_workgroup_memory_stays_as_it_is() -> None:
    assert filled("fn main() {}", 5) == "fn main() {}"


def test_workgroup_memory_of_another_form_is_refused() -> None:
    with pytest.raises(ValueError, match="must be declared as"):
        filled("var<workgroup> total: u32;\nfn main() {}", 5)
    with pytest.raises(ValueError, match="local_invocation_index"):
        filled("var<workgroup> words: array<u32, 64>;\nfn main() {}", 5)


# Verdicts

MUTANT = Mutant("linear/x", "a", "b")


def test_a_verdict_names_the_cases_and_the_test() -> None:
    red = {"wgpu/lavapipe": frozenset({"gemv-3", "gemm-13"})}
    text = str(Verdict(MUTANT, red, "tests/test_x.py::test_x"))
    assert text.startswith("caught    linear/x: a -> b\n")
    assert "tests/test_x.py::test_x: gemm-13, gemv-3 on wgpu/lavapipe" in text


def test_what_stays_green_and_what_is_out_of_reach_is_a_problem() -> None:
    expected = frozenset({"a", "b"})
    assert compared("wgpu", expected, expected) == ()
    problems = compared("wgpu", expected, frozenset({"b", "c"}))
    assert problems == ("stayed green on wgpu: a", "turned red on wgpu, out of its reach: c")
    assert str(Verdict(MUTANT, {}, "", problems)).startswith("SURVIVED  linear/x: a -> b\n")
