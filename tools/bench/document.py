"""The figures of one run, and their form in JSON.

One object, schema ``wgpu_q4.bench/1``:

* ``schema``, ``complete`` (false if the run was interrupted), ``measured`` (a date), ``command``
* ``adapter``: ``name``, ``driver``, ``backend``, ``kind``, and ``implementation`` (of WebGPU)
* ``host``: ``processor``, ``cores``, ``system``
* ``versions``: of wgpu_q4 (with its commit, in a checkout), python, and each package that was there
* ``shape``: ``vocab``, ``embed_dim``, ``group_size``, ``scales`` of the matrix
* ``clock``: ``kind`` of the device's times (see `wgpu_q4.bench.timing.Clock`) and ``why``, if they
  are not timestamps
* ``ceilings``: ``copy_bytes_per_second`` (read plus written), ``read_bytes_per_second``,
  ``arithmetic_flops_per_second`` (float32)
* ``drift``: time after over time before of ``copy``, ``read`` and ``arithmetic``, or null
* ``results``: a list; of each
  * ``who``, ``op``, ``size`` (ids, rows of x, or bytes), ``shape`` (or null), ``detail`` (what else
    tells it from others: ``layout``, ``dtype``, ``accuracy``, ``kernel``, ``device``,
    ``reduce``)
  * ``clock``, ``seconds`` (the median), ``quartiles`` (two), ``samples``
  * ``moved_bytes`` (what it cannot avoid to read and write, each byte once; 0 if that does not
    bound it), ``flops``
  * ``limit_seconds``: ``moved_bytes`` over ``copy_bytes_per_second``; ``share_of_limit``: that over
    ``seconds``
* ``left_out``: a list of ``what`` and ``why``
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from wgpu_q4.bench.ceilings import Ceilings
from wgpu_q4.bench.result import Result
from wgpu_q4.bench.timing import Timing
from wgpu_q4.kernels import MatrixShape

SCHEMA = "wgpu_q4.bench/1"


@dataclass
class Document:
    """The figures of one run; the fields are those of the JSON object."""

    measured: str
    command: str
    adapter: Mapping[str, str]
    host: Mapping[str, Any]
    versions: Mapping[str, str]
    shape: MatrixShape
    clock: Mapping[str, str]
    ceilings: Mapping[str, float]
    drift: Mapping[str, float] | None = None
    complete: bool = False
    results: list[Result] = field(default_factory=list)
    left_out: list[dict[str, str]] = field(default_factory=list)

    @property
    def copy_bandwidth(self) -> float:
        """Return bytes per second, read plus written."""
        return self.ceilings["copy_bytes_per_second"]

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object."""
        return {
            "schema": SCHEMA,
            "complete": self.complete,
            "measured": self.measured,
            "command": self.command,
            "adapter": dict(self.adapter),
            "host": dict(self.host),
            "versions": dict(self.versions),
            "shape": asdict(self.shape),
            "clock": dict(self.clock),
            "ceilings": dict(self.ceilings),
            "drift": None if self.drift is None else dict(self.drift),
            "results": [result.as_json(self.copy_bandwidth) for result in self.results],
            "left_out": list(self.left_out),
        }

    def write(self, path: Path) -> None:
        """Write the JSON object; after a failure the file is as it was."""
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.to_json(), indent=1, ensure_ascii=False) + "\n"
        with NamedTemporaryFile(
            "w", encoding="utf-8", dir=path.parent, prefix=path.name, delete=False
        ) as file:
            file.write(text)
        os.chmod(file.name, 0o644)
        os.replace(file.name, path)

    @classmethod
    def read(cls, path: Path) -> Document:
        """Return the document in a file.

        Raises:
            ValueError: it is not one of this schema.
        """
        try:
            return cls.from_json(json.loads(path.read_text(encoding="utf-8")))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(
                f"{path} holds no measurements of the form {SCHEMA}: "
                f"{type(error).__name__}: {error}"
            ) from error

    @classmethod
    def from_json(cls, found: Any) -> Document:
        """Return the document of a JSON object.

        Raises:
            KeyError, TypeError, ValueError: the object is not one of this schema.
        """
        if found["schema"] != SCHEMA:
            raise ValueError(f"its schema is {found['schema']!r}")
        return cls(
            measured=found["measured"],
            command=found["command"],
            adapter=found["adapter"],
            host=found["host"],
            versions=found["versions"],
            shape=MatrixShape(**found["shape"]),
            clock=found["clock"],
            ceilings=found["ceilings"],
            drift=found["drift"],
            complete=found["complete"],
            results=[_result(each) for each in found["results"]],
            left_out=found["left_out"],
        )


def rates(ceilings: Ceilings) -> dict[str, float]:
    """Return the field ``ceilings``."""
    read, arithmetic = ceilings.read, ceilings.arithmetic
    return {
        "copy_bytes_per_second": ceilings.copy_bandwidth,
        "read_bytes_per_second": read.moved / read.timing.median,
        "arithmetic_flops_per_second": arithmetic.flops / arithmetic.timing.median,
    }


def _result(found: Any) -> Result:
    low, high = found["quartiles"]
    return Result(
        who=found["who"],
        op=found["op"],
        size=found["size"],
        timing=Timing(found["seconds"], low, high, found["samples"]),
        clock=found["clock"],
        shape=None if found["shape"] is None else MatrixShape(**found["shape"]),
        detail=found["detail"],
        moved=found["moved_bytes"],
        flops=found["flops"],
    )
