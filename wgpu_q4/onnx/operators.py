"""The two operators of ONNX Runtime, as onnxscript calls them, and the matrices that they take."""

from __future__ import annotations

from typing import Any

import onnx
from onnx.defs import OpSchema
from onnxscript.values import Op, Opset

from wgpu_q4.errors import FormatError

DOMAIN = "com.microsoft"
_MICROSOFT = Opset(DOMAIN, 1)
_FLOAT, _BYTES, _IDS = "TFloat", "TBytes", "TIds"
_TYPES = [
    (_FLOAT, ["tensor(float)", "tensor(float16)"], ""),
    (_BYTES, ["tensor(uint8)"], ""),
    (_IDS, ["tensor(int32)", "tensor(int64)"], ""),
]


def _operator(name: str, inputs: dict[str, str], attributes: list[str]) -> Op:
    """Return an operator that the onnx package does not know.

    Args:
        inputs: name to type; a name that ends in "?" may be left out.
        attributes: names of integers.
    """
    option = OpSchema.FormalParameterOption
    schema = OpSchema(
        name,
        DOMAIN,
        1,
        inputs=[
            OpSchema.FormalParameter(
                key.rstrip("?"),
                kind,
                param_option=option.Optional if key.endswith("?") else option.Single,
            )
            for key, kind in inputs.items()
        ],
        outputs=[OpSchema.FormalParameter("out", _FLOAT)],
        type_constraints=_TYPES,
        attributes=[OpSchema.Attribute(a, OpSchema.AttrType.INT) for a in attributes],
    )
    return Op(_MICROSOFT, name, schema)


gather_block_quantized: Any = _operator(
    "GatherBlockQuantized",
    {"data": _BYTES, "indices": _IDS, "scales": _FLOAT},
    ["bits", "block_size", "gather_axis", "quantize_axis"],
)
matmul_nbits: Any = _operator(
    "MatMulNBits",
    {
        "A": _FLOAT,
        "B": _BYTES,
        "scales": _FLOAT,
        "zero_points?": _BYTES,
        "g_idx?": _IDS,
        "bias?": _FLOAT,
    },
    ["K", "N", "accuracy_level", "bits", "block_size"],
)

FLOAT32, FLOAT16, INT32, INT64 = (
    onnx.TensorProto.FLOAT,
    onnx.TensorProto.FLOAT16,
    onnx.TensorProto.INT32,
    onnx.TensorProto.INT64,
)


def check_group_size(group_size: int) -> None:
    """Raise `FormatError` unless ONNX Runtime has groups of this size."""
    if group_size < 16 or group_size & (group_size - 1):
        raise FormatError(
            f"ONNX Runtime takes groups of 16, 32, 64 and further powers of two, not of "
            f"{group_size}: quantize with one of these (tie(model, group_size=32))"
        )
