"""All shaders of this package, each with a name of its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from itertools import product
from typing import get_args

from wgpu_q4.format import ScalesDtype
from wgpu_q4.kernels.convert import convert_shader
from wgpu_q4.kernels.decoder.catalogue import decoder_shaders
from wgpu_q4.kernels.decoder.sampling import sampling_shaders
from wgpu_q4.kernels.embedding import embedding_shader
from wgpu_q4.kernels.linear import LINEAR_KERNELS
from wgpu_q4.kernels.options import BLOCKS, Layout, OutputDtype, Storage
from wgpu_q4.kernels.pack import pack_shader
from wgpu_q4.kernels.pieces import ways_to_convert
from wgpu_q4.kernels.probe import PROBE_HALF_ARITHMETIC, PROBE_HALVES, PROBE_SUBGROUPS
from wgpu_q4.kernels.reduction import Entries, Reduce, reduction_shader
from wgpu_q4.kernels.transposed import ADD_SECTIONS, transposed_shader
from wgpu_q4.kernels.wgsl import Shader


def all_shaders() -> tuple[Shader, ...]:
    """Return every shader."""
    return (*portable_shaders(), *matrix_shaders(), *optional_shaders())


def portable_shaders() -> tuple[Shader, ...]:
    """Return the shaders that need no optional feature of a device."""
    return tuple(shader for shader in _without_matrices() if not shader.features)


def optional_shaders() -> tuple[Shader, ...]:
    """Return the shaders that need half-precision arithmetic or subgroups."""
    return tuple(shader for shader in _without_matrices() if shader.features)


def matrix_shaders() -> tuple[Shader, ...]:
    """Return the shaders for devices with matrix units, and those that prepare x for them."""
    return _distinct(_linear_shaders(matrix_units=True))


@cache
def _without_matrices() -> tuple[Shader, ...]:
    return _distinct((*_others(), *_linear_shaders(matrix_units=False)))


def _linear_shaders(*, matrix_units: bool) -> Iterator[Shader]:
    for kernel in LINEAR_KERNELS.values():
        if kernel.needs_matrix_units == matrix_units:
            yield from kernel.shaders()


def _others() -> Iterator[Shader]:
    layouts: tuple[Layout, ...] = get_args(Layout)
    dtypes: tuple[ScalesDtype, ...] = get_args(ScalesDtype)
    outputs: tuple[OutputDtype, ...] = get_args(OutputDtype)
    storages: tuple[Storage, ...] = get_args(Storage)
    for layout, scales, output, storage in product(layouts, dtypes, outputs, storages):
        for halves in ways_to_convert("float16" in (scales, output)):
            yield embedding_shader(layout, scales, output, storage, halves)
            if storage == "buffer":
                yield embedding_shader(layout, scales, output, storage, halves, of_part=True)
    yield from map(pack_shader, BLOCKS)
    yield from (PROBE_HALVES, PROBE_HALF_ARITHMETIC, PROBE_SUBGROUPS)
    reduces: tuple[Reduce, ...] = get_args(Reduce)
    entries: tuple[Entries, ...] = get_args(Entries)
    for reduce, entry in product(reduces, entries):
        yield reduction_shader(reduce, entry)
        yield reduction_shader(reduce, entry, "ids" if reduce == "argmax" else "values_and_ids")
    for output, halves in product(outputs, ways_to_convert(True)):
        yield convert_shader(output, halves)
    for scales in dtypes:
        for halves in ways_to_convert(scales == "float16"):
            yield transposed_shader(scales, halves)
    yield ADD_SECTIONS
    yield from decoder_shaders()
    yield from sampling_shaders()


def _distinct(shaders: Iterable[Shader]) -> tuple[Shader, ...]:
    """Return ``shaders``, each once: kernels may share what prepares x for them."""
    return tuple(dict.fromkeys(shaders))
