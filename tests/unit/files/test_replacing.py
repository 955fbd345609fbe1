"""A save puts a whole file in place, or leaves everything as it was."""

from __future__ import annotations

import errno
import json
import os
import signal
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.weight_files import (
    assert_equal,
    names_in,
    random_floats,
    run_python,
)
from wgpu_q4.files import load_file, replacing, save_file
from wgpu_q4.weight import Q4Weight


@pytest.fixture
def old_file(tmp_path: Path) -> Iterator[Path]:
    """A saved file; afterwards it must be whole, and nothing may lie beside it."""
    path = tmp_path / "weights.safetensors"
    weight = Q4Weight.quantize(random_floats())
    save_file({"old": weight}, path)
    content = path.read_bytes()
    yield path
    assert path.read_bytes() == content
    assert_equal(load_file(path)["old"], weight)
    assert names_in(tmp_path) == [path.name]


@pytest.fixture(params=["nameless", "named"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Write the new file without a name, as on Linux, and under a temporary one, as elsewhere."""
    if request.param == "named":
        monkeypatch.setattr(replacing, "_nameless", lambda directory: None)
    return str(request.param)


def temporary_names(directory: Path) -> list[str]:
    return [name for name in names_in(directory) if name.startswith(".wgpu-q4-")]


@pytest.mark.parametrize("step", ["open", "os.fsync", "os.fchmod", "os.replace"])
@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "disk full"), KeyboardInterrupt()])
@pytest.mark.usefixtures("way")
def test_a_save_that_fails_leaves_the_old_file(
    old_file: Path, step: str, failure: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise failure

    monkeypatch.setattr(f"wgpu_q4.files.replacing.{step}", fail, raising=False)
    with pytest.raises(type(failure)):
        save_file({"new": Q4Weight.quantize(random_floats(seed=1))}, old_file)
    monkeypatch.undo()


def test_a_full_disk_is_told_by_its_errno(old_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = Path("/dev/full")  # every write to this device fails as on a full disk
    monkeypatch.setattr(replacing, "_nameless", lambda directory: os.open(full, os.O_RDWR))
    with pytest.raises(OSError, match=r"weights\.safetensors") as caught:
        save_file({"new": Q4Weight.quantize(random_floats(seed=1))}, old_file)
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(old_file)


def test_a_save_that_fails_halfway_through_its_bytes_leaves_the_old_file(old_file: Path) -> None:
    code = """
        import errno, resource, sys
        import numpy as np
        from wgpu_q4.files import save_file
        from wgpu_q4.weight import Q4Weight
        weight = Q4Weight(np.zeros((1024, 4096), np.uint8), np.ones((1024, 8), np.float32))
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        try:
            save_file({"new": weight}, sys.argv[1])
        except OSError as error:
            print(errno.errorcode[error.errno], error)
    """
    done = run_python(code, old_file)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("EFBIG")
    assert "weights.safetensors" in done.stdout


DIE = """
    import os, signal, sys
    from wgpu_q4.files import load_file, replacing, save_file
    path, step, moment, way = sys.argv[1:]
    if way == "named":
        replacing._nameless = lambda directory: None
    call = getattr(os, step)
    def die(*args, **options):
        if moment == "after":
            call(*args, **options)
        os.kill(os.getpid(), signal.SIGKILL)
    setattr(os, step, die)
    save_file({"new": load_file(path)["old"]}, path)
"""


@pytest.mark.parametrize(
    ("way", "step", "moment", "left"),
    [
        ("nameless", "fsync", "before", 0),
        ("nameless", "link", "before", 0),
        ("nameless", "link", "after", 1),
        ("nameless", "replace", "before", 1),
        ("named", "fsync", "before", 1),
        ("named", "replace", "before", 1),
    ],
)
def test_what_a_killed_save_leaves_is_swept_by_the_next(
    tmp_path: Path, way: str, step: str, moment: str, left: int
) -> None:
    path = tmp_path / "weights.safetensors"
    weight = Q4Weight.quantize(random_floats())
    save_file({"old": weight}, path)
    content = path.read_bytes()
    assert run_python(DIE, path, step, moment, way).returncode == -signal.SIGKILL
    assert path.read_bytes() == content
    assert len(temporary_names(tmp_path)) == left
    assert len(names_in(tmp_path)) == left + 1
    save_file({"other": weight}, tmp_path / "other")
    assert len(temporary_names(tmp_path)) == left, "another target's file was swept"
    save_file({"next": weight}, path)
    assert names_in(tmp_path) == ["other", path.name]


@pytest.mark.usefixtures("way")
def test_a_save_never_sweeps_the_file_of_a_save_that_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "w"
    with replacing.replacing(str(path)) as file:
        file.write(b"first")
        save_file({"second": Q4Weight.quantize(random_floats())}, path)
        assert list(load_file(path)) == ["second"]
    assert path.read_bytes() == b"first"
    assert names_in(tmp_path) == ["w"]


def test_a_save_reaches_the_disk_before_its_name_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    sync, link = os.fsync, os.link

    def note_sync(descriptor: int) -> None:
        sync(descriptor)
        done.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")

    def note_link(*args: Any, **options: Any) -> None:
        link(*args, **options)
        done.append("name")

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "link", note_link)
    save_file({"w": Q4Weight.quantize(random_floats())}, tmp_path / "w")
    assert done == ["file", "name", "folder"]


KILLS = """
    import json, os, signal, sys
    import numpy as np
    from wgpu_q4.files import load_file, replacing, save_file
    from wgpu_q4.weight import Q4Weight

    path, way = sys.argv[1:]
    if way == "named":
        replacing._nameless = lambda directory: None
    # A killed process, unlike a power cut, loses nothing that it has written.
    os.fsync = lambda descriptor: None
    package = os.path.dirname(replacing.__file__)

    def save(number):
        packed = np.full((8, 32), number, np.uint8)
        save_file({str(i): Q4Weight(packed, np.full((8, 1), i, "f4")) for i in range(8)}, path)

    def die_at(step):
        seen = 0
        def trace(frame, event, _):
            nonlocal seen
            if not frame.f_code.co_filename.startswith(package):
                return None
            if event == "line":
                seen += 1
                if seen == step:
                    os.kill(os.getpid(), signal.SIGKILL)
            return trace
        sys.settrace(trace)

    def read():
        weights = load_file(path, verify=True)
        (number,) = {int(weight.packed[0, 0]) for weight in weights.values()}
        assert len(weights) == 8 and all((w.packed == number).all() for w in weights.values())
        return number

    save(0)
    found = {"old": 0, "new": 0, "left": []}
    now = number = 0
    while True:
        number += 1
        child = os.fork()
        if not child:
            die_at(step=4 * number - 3)
            save(number % 256)
            sys.settrace(None)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        last, now = now, read()
        if status == 0:
            break
        assert status == -signal.SIGKILL, status
        assert now in (last, number % 256)
        found["new" if now == number % 256 else "old"] += 1
        found["left"].append(len(os.listdir(os.path.dirname(path))) - 1)
    found["end"] = os.listdir(os.path.dirname(path))
    print(json.dumps(found))
"""


@pytest.mark.parametrize("way", ["nameless", "named"])
def test_a_save_killed_at_any_line_leaves_one_whole_file(tmp_path: Path, way: str) -> None:
    """At every fourth line of ``wgpu_q4.files``."""
    path = tmp_path / "w"
    done = run_python(KILLS, path, way)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["old"] > 30
    assert found["end"] == ["w"]
    assert max(found["left"]) <= 1
    if way == "named":
        assert 1 in found["left"], "no kill came while the new file had a temporary name"


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_a_new_file_has_the_permissions_that_the_umask_allows(
    tmp_path: Path, umask: int, mode: int
) -> None:
    before = os.umask(umask)
    try:
        save_file({"w": Q4Weight.quantize(random_floats())}, tmp_path / "w")
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(tmp_path / "w").st_mode) == mode


def test_a_replaced_file_keeps_its_permissions_and_a_link_its_target(tmp_path: Path) -> None:
    weight = Q4Weight.quantize(random_floats())
    (tmp_path / "elsewhere").mkdir()
    target, link = tmp_path / "elsewhere" / "w", tmp_path / "link"
    target.write_bytes(b"old")
    target.chmod(0o600)
    link.symlink_to(target)
    save_file({"w": weight}, link)
    assert link.is_symlink()
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert_equal(load_file(link)["w"], weight)


def test_a_link_that_leads_to_itself_is_not_replaced(tmp_path: Path) -> None:
    link = tmp_path / "loop"
    link.symlink_to(link)
    for use in (
        lambda: save_file({"w": Q4Weight.quantize(random_floats())}, link),
        lambda: load_file(link),
    ):
        with pytest.raises(OSError, match="loop") as caught:
            use()
        assert caught.value.errno == errno.ELOOP
    assert names_in(tmp_path) == ["loop"]
    assert link.is_symlink()
