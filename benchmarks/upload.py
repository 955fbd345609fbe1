"""From a float32 matrix, and from a saved file, to the device: seconds, and memory at its peak.

    python -m benchmarks.upload

makes Llama 3.2 1B's matrix (128256 × 2048 random floats), quantizes and uploads it, saves it, and
in a process of its own loads and uploads the file.  Memory is the resident set: what was added, and
for the file how much of that belongs to no file.  A software adapter's own memory is in it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import wgpu_q4
from wgpu_q4.device import Context, context_for

VOCAB, EMBED_DIM = 128256, 2048


def main() -> int:
    """Entry point; returns the exit status."""
    if len(sys.argv) == 2:
        from_file(Path(sys.argv[1]))
        return 0
    context = context_for()
    context.round_trip, context.half_support  # noqa: B018  the device has been used before
    print(context.adapter_summary)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tied.safetensors"
        from_floats(context, path)
        subprocess.run([sys.executable, "-m", "benchmarks.upload", str(path)], check=True)
    return 0


def from_floats(context: Context, path: Path) -> None:
    """Quantize, upload, save to ``path``."""
    base = memory("VmRSS")
    matrix = np.random.default_rng(0).standard_normal((VOCAB, EMBED_DIM), np.float32)
    start = time.perf_counter()
    weight = wgpu_q4.quantize(matrix)
    quantized = time.perf_counter()
    upload(context, weight)
    end = time.perf_counter()
    peak = memory("VmHWM") - base
    print(
        f"float32 to the device: {end - start:.2f} s (quantize {quantized - start:.2f}); "
        f"{peak / matrix.nbytes:.2f} × the matrix at the peak, the matrix included"
    )
    wgpu_q4.save_file({"embed_tokens": weight}, path)


def from_file(path: Path) -> None:
    """Load and upload."""
    context = context_for()
    context.round_trip, context.half_support  # noqa: B018
    base = memory("RssAnon")
    start = time.perf_counter()
    upload(context, wgpu_q4.load_file(path)["embed_tokens"])
    end = time.perf_counter()
    added = (memory("RssAnon") - base) / 2**20
    print(f"file to the device: {end - start:.2f} s; {added:.1f} MiB that belong to no file")


def upload(context: Context, weight: wgpu_q4.Q4Weight) -> None:
    """Until a byte of it has been read back."""
    resident = context.weight(weight)
    for part in resident.parts:
        part.bindings(context, weight, "rows")
    last = np.empty(1, np.uint32)
    context.read(context.device.create_command_encoder(), part.scales, last)


def memory(name: str) -> int:
    """A field of this process's ``/proc/self/status``, in bytes."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (line,) = (line for line in status.splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) << 10


if __name__ == "__main__":
    sys.exit(main())
