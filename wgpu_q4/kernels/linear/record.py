"""What is known of one kernel of ``x · Wᵀ``: a record that composes, checks and plans it.

Whatever is asked of a kernel is asked of its record, so that a combination that does not exist (a
layout that the kernel does not read, a form that it does not have) raises instead of composing
something else.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Literal, get_args

from wgpu_q4.errors import KernelError
from wgpu_q4.format import ScalesDtype
from wgpu_q4.kernels.dispatch import Dispatch, MatrixShape
from wgpu_q4.kernels.linear.job import Job, LinearPlan
from wgpu_q4.kernels.options import Accuracy, Halves, Layout
from wgpu_q4.kernels.pieces import halves_suffix, scales_pieces, ways_to_convert
from wgpu_q4.kernels.traits import MATRIX_UNITS, HalfSupport, MatrixUnits
from wgpu_q4.kernels.wgsl import Shader

XType = Literal["float32", "int16", "int8", "float16"]
"""The numbers that a kernel multiplies the weight with: x as it is, or rounded to something less.

Integers share a scale in each 32 columns of a row; float16 shares one in each row, and the weight
is rounded to it as well."""

_ACCURACIES: dict[XType, tuple[Accuracy, ...]] = {
    "float32": ("exact", "fast", "int8"),
    "int16": ("fast", "int8"),
    "float16": ("fast", "int8"),
    "int8": ("int8",),
}

_FEWEST_LANES = 8
"""Lanes of a subgroup that kernels count on at least: as many as a team has rows."""

_INTEGER_BITS: dict[XType, int] = {"int16": 16, "int8": 8}


@dataclass(frozen=True)
class Reading:
    """How a kernel reads the weight in one layout.

    Attributes:
        weight: the pieces that load the packed weight.
        bodies: the pieces that compute, by form; a kernel with one form calls it ``""``.
        is_unchecked: True if the kernel gains by running without bounds checks. Each dispatch then
            says what its buffers must hold (`Dispatch.needs`).
    """

    weight: tuple[str, ...]
    bodies: Mapping[str, tuple[str, ...]]
    is_unchecked: bool = False


@dataclass(frozen=True)
class Measured:
    """A measurement that says for which rows of x a kernel is the right one.

    Attributes:
        layouts: the layouts of the weight for which it holds.
        first_rows, last_rows: rows of x; None for no end.
        because: what was measured: an H200, V = 128256, K = 2048, G = 32, weights not in cache,
            unless it names another device.
        accuracies: the accuracies for which the kernel is chosen; None for all that it reaches.
        software: True if the measurement holds only for devices that run on the processor.
    """

    layouts: tuple[Layout, ...]
    first_rows: int
    last_rows: int | None
    because: str
    accuracies: tuple[Accuracy, ...] | None = None
    software: bool = False


@dataclass(frozen=True, eq=False, kw_only=True)
class LinearKernel(ABC):
    """One kernel of ``x · Wᵀ``.

    Attributes:
        name: what callers ask for; unique.
        summary: one line on what sets the kernel apart.
        layouts: the layouts of the weight that it reads.
        scales: the dtypes of scales that it reads.
        x_type: what x is rounded to.
        multiple: K and G must be multiples of it.
        most_rows: rows of x that it can take; None for any number.
        needs_subnormals: True if the device must keep half-precision subnormals.
        needs_arithmetic: True if its half-precision arithmetic must keep them too.
        needs_subgroups: True if kernels must be able to count on the device's subgroups.
        needs_matrix_units: True if the device must have `MATRIX_UNITS`.
        first: pieces that must stand at the start of the module.
        measured: the measurements that say when the kernel is chosen.
    """

    name: str
    summary: str
    layouts: Mapping[Layout, Reading]
    measured: tuple[Measured, ...]
    scales: tuple[ScalesDtype, ...] = get_args(ScalesDtype)
    x_type: XType = "float32"
    multiple: int = 32
    most_rows: int | None = None
    needs_subnormals: bool = False
    needs_arithmetic: bool = False
    needs_subgroups: bool = False
    needs_matrix_units: bool = False
    first: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for measured in self.measured:
            for layout in measured.layouts:
                self.reading(layout)
            if not set(measured.accuracies or ()) <= set(self.accuracies):
                raise KernelError(
                    f"{self.name} rounds x to {self.x_type}: {measured} asks for more"
                )

    @property
    def accuracies(self) -> tuple[Accuracy, ...]:
        """The accuracies that the kernel reaches."""
        return _ACCURACIES[self.x_type]

    @property
    def integer_bits(self) -> int | None:
        """The bits of the integers to which x is rounded; None where it is not."""
        return _INTEGER_BITS.get(self.x_type)

    @property
    def rounds_x(self) -> bool:
        """True if x is rounded to anything less than float32."""
        return self.x_type != "float32"

    @property
    def forms(self) -> tuple[str, ...]:
        """The names of the forms in which the kernel is composed."""
        return tuple(dict.fromkeys(form for r in self.layouts.values() for form in r.bodies))

    def takes(self, shape: MatrixShape) -> bool:
        """Tell if K and G of ``shape`` are multiples of what the kernel reads at a time."""
        return shape.embed_dim % self.multiple == 0 and shape.group_size % self.multiple == 0

    def runs_on(
        self,
        half_support: HalfSupport,
        matrix_units: Collection[MatrixUnits],
        subgroup: int = 0,
    ) -> bool:
        """Tell if a device with these traits can run the kernel."""
        return (
            (half_support.subnormals or not self.needs_subnormals)
            and (half_support.nibbles == "f16" or not self.needs_arithmetic)
            and (subgroup >= _FEWEST_LANES or not self.needs_subgroups)
            and (MATRIX_UNITS in matrix_units or not self.needs_matrix_units)
        )

    def reading(self, layout: Layout) -> Reading:
        """Return how the kernel reads ``layout``.

        Raises:
            KernelError: it does not read that layout; names those that it reads.
        """
        if layout not in self.layouts:
            others = " or ".join(repr(name) for name in get_args(Layout) if name in self.layouts)
            raise KernelError(f"{self.name} needs the layout {others}")
        return self.layouts[layout]

    def check(
        self,
        shape: MatrixShape,
        rows: int,
        layout: Layout,
        half_support: HalfSupport,
        matrix_units: Collection[MatrixUnits],
        subgroup: int,
    ) -> None:
        """Raise unless the kernel can multiply ``rows`` rows of x with such a weight on a device.

        Raises:
            KernelError: says what the kernel needs.
        """
        self.reading(layout)
        if not self.takes(shape):
            raise KernelError(
                f"{self.name} needs K and G multiples of {self.multiple}, not {shape.embed_dim} "
                f"and {shape.group_size}"
            )
        if self.most_rows is not None and rows > self.most_rows:
            raise KernelError(f"{self.name} takes {self.most_rows} row of x, not {rows}")
        if not self.runs_on(half_support, matrix_units, subgroup):
            raise KernelError(f"{self.name} needs {self.device_needed()}")

    def device_needed(self) -> str:
        """Return what a device must have to run the kernel, as the end of a sentence."""
        needed = []
        if self.needs_arithmetic:
            needed.append("half-precision arithmetic that keeps subnormals")
        if self.needs_subgroups:
            needed.append(f"subgroups of {_FEWEST_LANES} lanes or more, in order")
        if needed:
            return f"a device with {' and '.join(needed)}"
        return "a device that keeps half-precision subnormals" if self.needs_subnormals else ""

    def shader(
        self,
        layout: Layout,
        scales: ScalesDtype,
        bias: bool,
        halves: Halves = "native",
        form: str = "",
    ) -> Shader:
        """Return the composed kernel.

        Raises:
            KernelError: there is no such layout, dtype of scales or form of this kernel.
        """
        reading = self.reading(layout)
        if scales not in self.scales:
            raise KernelError(f"{self.name} needs scales of {' or '.join(self.scales)}")
        if form not in reading.bodies:
            known = " or ".join(map(repr, reading.bodies))
            raise KernelError(f"{self.name} on {layout} has the form {known}, not {form!r}")
        pieces = (
            *self.first,
            "shape/overrides",
            *reading.weight,
            *scales_pieces(scales, halves),
            "linear/common/bias_buffer" if bias else "linear/common/bias_none",
            "linear/common/result",
            *reading.bodies[form],
        )
        suffixes = "_bias" if bias else "", f"_{form}" if form else "", halves_suffix(pieces)
        name = f"linear_q4gsw_{self.name}_{layout}_{scales}_scales{''.join(suffixes)}"
        return Shader(name, pieces, f"x · Wᵀ{' + bias' if bias else ''}: {self.summary}")

    def shaders(self) -> Iterator[Shader]:
        """Yield every shader of the kernel, and those that prepare x for it."""
        for (layout, reading), scales, bias in product(
            self.layouts.items(), self.scales, (False, True)
        ):
            for halves, form in product(ways_to_convert(scales == "float16"), reading.bodies):
                yield self.shader(layout, scales, bias, halves, form)
        yield from self.preparations()

    def preparations(self) -> Iterator[Shader]:
        """Yield the shaders that prepare x."""
        return iter(())

    @abstractmethod
    def plan(self, job: Job) -> LinearPlan:
        """Return the dispatches of ``job``, which `check` has allowed."""

    def product(
        self,
        job: Job,
        constants: Mapping[str, int],
        workgroups: int,
        *,
        form: str = "",
        x_bytes: int = 0,
        x_scale_bytes: int = 0,
    ) -> Dispatch:
        """Return the dispatch of the matrix product.

        Args:
            job: what is multiplied.
            constants: the pipeline constants beyond those of the shape.
            workgroups: how many the grid needs.
            form: the form of the kernel.
            x_bytes: bytes of x as a preparation left it; 0 for x as it is.
            x_scale_bytes: bytes of its scales; 0 for none.
        """
        shader = self.shader(job.layout, job.shape.scales, job.bias, job.halves, form)
        if job.result_row != job.shape.vocab:
            constants = {**constants, "RESULT_ROW": job.result_row}
        is_unchecked = self.reading(job.layout).is_unchecked
        needs = None
        if is_unchecked:
            bound = {binding.name for binding in shader.bindings}
            all_needs = job.needs(x_bytes, x_scale_bytes)
            needs = {name: nbytes for name, nbytes in all_needs.items() if name in bound}
        return job.dispatch(shader, constants, workgroups, needs)
