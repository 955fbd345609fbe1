"""What objects show in a notebook: tables that are escaped, and bars that are to scale."""

from __future__ import annotations

from tests.rich_tables import read
from wgpu_q4 import rich
from wgpu_q4.check.finding import Finding
from wgpu_q4.check.report import Report
from wgpu_q4.pte.device_bytes import DeviceMemory
from wgpu_q4.pte.report import Blob, BlobUser, DelegateReport, PteReport


def test_text_is_escaped() -> None:
    html = rich.table("<b>", [("a&b", "<script>"), ("many", ["1 < 2", '"'])])
    assert "<script>" not in html
    assert read(html) == {"": ["<b>"], "a&b": ["<script>"], "many": ["1 < 2", '"']}


def test_a_bar_is_as_long_as_its_share_of_the_largest() -> None:
    rows: list[rich.Row] = [("one", 4000), ("two", [1000, "a note"]), ("none", 0)]
    assert read(rich.table("", rows)) == {
        "": [""],
        "one": ["4,000 bytes", "16.00em"],
        "two": ["1,000 bytes", "4.00em", "a note"],
        "none": ["0 bytes", "0.00em"],
    }
    assert read(rich.table("", [("none", 0)]))["none"] == ["0 bytes", "0.00em"]


def test_a_row_without_lines_is_left_out() -> None:
    assert read(rich.table("", [("empty", ()), ("text", "")])) == {"": [""], "text": [""]}


def test_a_check_shows_its_verdict_and_what_is_wrong() -> None:
    agree = Finding("embedding", "embedding, rows: one", "agrees")
    absent = Finding("linear", "linear, matrix units", "not here", "no matrix units")
    wrong = Finding("linear", "linear, <gemv>", "differs", "2 of 3 values")
    shown = read(Report("GPU", "wgpu 1", [agree, absent, *[wrong] * 21]))
    assert shown[""] == ["something is wrong: 21 of 22 checks"]
    assert shown["adapter"] == ["GPU", "wgpu 1"]
    assert (shown["embedding"], shown["linear"]) == (["1 agree"], ["21 DIFFER, 1 not here"])
    assert shown["notes"] == ["1 not here: no matrix units"]
    assert shown["DIFFERS"] == ["linear, <gemv>", "2 of 3 values"] * 20
    assert read(Report("GPU", "wgpu 1", [agree])).keys() == {"", "adapter", "embedding"}


def test_a_program_shows_its_file_and_its_runtimes() -> None:
    user = BlobUser(0, "et_vk.linear_q4gsw.default", "uint8", (4, 8))
    report = PteReport(
        path="folder/model.pte",
        nbytes=1000,
        methods=("forward",),
        operators=(),
        delegates=(DelegateReport("VulkanBackend", 100, {"et_vk.linear_q4gsw.default": 1}),),
        blobs=(Blob(("w",), 500, "a" * 64, (user,)), Blob(("x",), 8, "b" * 64, ())),
        constant_bytes=0,
        device=(DeviceMemory("webgpu", (), 150, 50),),
    )
    assert read(report) == {
        "": ["model.pte"],
        "file": ["1,000 bytes", "16.00em"],
        "methods": ["forward"],
        "delegate 0": ["VulkanBackend", "100 bytes", "1.60em", "1 × et_vk.linear_q4gsw.default"],
        "blob aaaaaaaaaaaa": ["500 bytes", "8.00em", "et_vk.linear_q4gsw.default, uint8 [4, 8]"],
        "blob bbbbbbbbbbbb": ["8 bytes", "0.13em", "read by none"],
        "device, webgpu": ["200 bytes", "3.20em"],
    }
