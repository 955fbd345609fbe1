"""ExecuTorch's side of the shaders: kernel names, template parameters, descriptors, constants.

Everything here is a fact of ExecuTorch's C++ ops, which bind by number and look kernels up by
name.  `shaders` says which WGSL pieces make a kernel; this module says how ExecuTorch's shader
builder declares the bindings of each piece.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Literal

from tools.codegen.shaders import Blocks, BlockStorage, executorch_embedding, executorch_pack
from wgpu_q4.kernels import OutputDtype, Shader, Storage, piece_bindings

Value = str | bool


@dataclass(frozen=True)
class Kernel:
    """One kernel of a family.

    Attributes:
        shader: its name and WGSL pieces.
        parameters: the template parameters that select it.
    """

    shader: Shader
    parameters: Mapping[str, Value]


@dataclass(frozen=True)
class Family:
    """The kernels that one ``.glsl`` and one ``.yaml`` file make.

    Attributes:
        name: the stem of both files.
        summary: what one invocation computes, for the header.
        parameters: template parameters and their defaults; earlier ones are decided on first.
        forall: parameters that the yaml multiplies every named variant with, in the order of their
            suffixes, with their values.
        named: the parameters of each of the yaml's variants, by name.
        kernels: all kernels, in the builder's order.
    """

    name: str
    summary: str
    parameters: Mapping[str, Value]
    forall: Mapping[str, tuple[str, ...]]
    named: Mapping[str, Mapping[str, Value]]
    kernels: tuple[Kernel, ...]


_FORALL = {"STORAGE": ("buffer", "texture3d"), "DTYPE": ("half", "float")}
_GRID = (
    "One invocation writes 32 columns of one id; the grid is (K/32, last dimension of the\n"
    "ids, product of their other dimensions)."
)


def _embedding(
    name: str, defaults: Mapping[str, Value], weights: Mapping[Blocks | None, Mapping[str, Value]]
) -> Family:
    """The shaders of the op for some layouts of the weight, each with its parameters."""
    named: dict[str, Mapping[str, Value]] = {}
    found: list[Kernel] = []
    scales: tuple[Literal["float16", "float32"], ...] = ("float16", "float32")
    storages: tuple[Storage, ...] = ("buffer", "texture3d")
    outputs: tuple[OutputDtype, ...] = ("float16", "float32")
    for (blocks, weight), scale in product(weights.items(), scales):
        chosen: dict[str, Value] = {"SCALES_DTYPE": "float"} if scale == "float32" else {}
        chosen |= weight
        for storage, output in product(storages, outputs):
            shader = executorch_embedding(blocks, scale, output, storage)
            half = "half" if output == "float16" else "float"
            parameters = {**defaults, **chosen, "STORAGE": storage, "DTYPE": half}
            found.append(Kernel(shader, parameters))
            named[shader.name.removesuffix(f"_{storage}_{half}")] = chosen
    return Family(name, _GRID, defaults, _FORALL, named, tuple(found))


_COMMON: dict[str, Value] = {"STORAGE": "buffer", "DTYPE": "half", "SCALES_DTYPE": "half"}


def _upstreams_embedding() -> Family:
    """The 24 that ExecuTorch has itself."""
    return _embedding(
        "embedding_q4gsw",
        _COMMON | {"IS_LINEAR_WEIGHT": False, "WEIGHT_STORAGE": "buffer"},
        {
            None: {},
            "linear_weight_buffer": {"IS_LINEAR_WEIGHT": True, "WEIGHT_STORAGE": "buffer"},
            "linear_weight_texture2d": {"IS_LINEAR_WEIGHT": True, "WEIGHT_STORAGE": "texture2d"},
        },
    )


def _embedding_of_w_4x8() -> Family:
    """Those that read what the weight-only linear op packs, which ExecuTorch does not have."""
    return _embedding("embedding_q4gsw__w_4x8", _COMMON, {"w_4x8_nc_buffer": {}})


def _pack() -> Family:
    targets: tuple[BlockStorage, ...] = ("buffer", "texture2d")
    shaders = {target: executorch_pack(target) for target in targets}
    return Family(
        "pack_q4_linear_weight",
        "One invocation makes two blocks of 8 rows and 4 columns; the grid is (K/8, V/8).",
        {"STORAGE": "buffer"},
        {},
        {shader.name: {"STORAGE": target} for target, shader in shaders.items()},
        tuple(Kernel(shader, {"STORAGE": target}) for target, shader in shaders.items()),
    )


FAMILIES = (_upstreams_embedding(), _embedding_of_w_4x8(), _pack())


@dataclass(frozen=True)
class Tensor:
    """A binding as the builder's ``layout_declare_tensor`` takes it.

    The precision is spelled out: the builder can lower its default to 16 bits where a kernel's
    types are all half, and words that hold two halves need all 32.
    """

    name: str
    dtype: str
    storage: str
    vector: bool = False

    def declaration(self, access: str) -> str:
        """Return the template expression that declares the tensor at the next binding number."""
        scalar = "" if self.storage != "buffer" else f", is_scalar_array={not self.vector}"
        return (
            f'${{layout_declare_tensor(B, "{access}", "{self.name}", "{self.dtype}", '
            f'"{self.storage}"{scalar}, precision="highp")}}'
        )


TENSORS = {
    "weight/rows": Tensor("t_weight", "uint", "buffer"),
    "executorch/weight/rows_embedding_wide": Tensor("t_weight", "uint", "buffer", vector=True),
    "weight/blocks_buffer": Tensor("t_weight", "uint", "buffer", vector=True),
    "executorch/weight/blocks_w_4x8_buffer": Tensor("t_weight", "uint", "buffer", vector=True),
    "weight/blocks_texture2d": Tensor("t_weight", "int", "texture2d"),
    "scales/f16": Tensor("t_scales", "uint", "buffer"),
    "scales/f32": Tensor("t_scales", "float", "buffer"),
    "embedding/indices_buffer": Tensor("t_indices", "int", "buffer"),
    "embedding/indices_texture3d": Tensor("t_indices", "int", "texture3d"),
    "embedding/output_buffer_float": Tensor("t_out", "float", "buffer", vector=True),
    "embedding/output_buffer_half_wide": Tensor("t_out", "uint", "buffer", vector=True),
    "embedding/output_texture3d_float": Tensor("t_out", "float", "texture3d"),
    "embedding/output_texture3d_half": Tensor("t_out", "half", "texture3d"),
    "pack/target_buffer": Tensor("t_out", "uint", "buffer", vector=True),
    "pack/target_texture2d": Tensor("t_out", "int", "texture2d"),
}
"""The tensor that a piece binds."""

UBOS = {"executorch/shape/executorch": {4: ("ivec4", "out_sizes")}}
"""The uniform buffers of a piece: type and name for each WGSL binding number."""

PUSH_CONSTANTS = {
    "executorch/shape/executorch": (("int", "group_size"), ("int", "is_linear_weight")),
    "executorch/shape/executorch_pack": (("ivec4", "packed_sizes"), ("ivec2", "orig_sizes")),
}
"""The members of the block that WGSL declares as a uniform at PUSH_BINDING."""

PUSH_BINDING = 5
PUSH_NAME = "push_constants"
RESULT_BINDING = 0


@dataclass(frozen=True)
class Interface:
    """The declarations of a kernel.

    Attributes:
        names: the name in GLSL for each WGSL binding number.
        descriptors: a template expression for each name, in the order of ExecuTorch's bindings.
        push_constants: the declaration of the push constants.
    """

    names: Mapping[int, str]
    descriptors: Mapping[str, str]
    push_constants: str


def interface(shader: Shader) -> Interface:
    """Return the interface of a kernel, from its pieces."""
    names: dict[int, str] = {PUSH_BINDING: PUSH_NAME}
    declared: dict[int, str] = {}
    members: tuple[tuple[str, str], ...] = ()
    for piece in shader.pieces:
        members = PUSH_CONSTANTS.get(piece, members)
        for number, (kind, name) in UBOS.get(piece, {}).items():
            names[number] = name
            declared[number] = f'${{layout_declare_ubo(B, "{kind}", "{name}", precision="highp")}}'
        if piece in TENSORS:
            (binding,) = piece_bindings(piece)
            access = "w" if binding.number == RESULT_BINDING else "r"
            names[binding.number] = TENSORS[piece].name
            declared[binding.number] = TENSORS[piece].declaration(access)
    lines = "".join(f"  {kind} {name};\n" for kind, name in members)
    return Interface(
        names,
        {names[number]: declared[number] for number in sorted(declared)},
        f"layout(push_constant) uniform PushConstants {{\n{lines}}} {PUSH_NAME};",
    )
