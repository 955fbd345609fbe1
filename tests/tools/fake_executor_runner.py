"""A stand-in for ExecuTorch's ``executor_runner``: it runs a Vulkan delegate with torch.

    python fake_executor_runner.py --model_path=FILE --inputs=FILE[,FILE] --output_file=BASE

It reads the delegate's graph with ExecuTorch's own schema, and runs each call with the op of that
name, or with ExecuTorch's reference implementation.  It knows the ops that this package's programs
have, and fails on others.
"""

from __future__ import annotations

import argparse
import math
import operator
import sys
from pathlib import Path
from typing import Any

import executorch.backends.vulkan.custom_ops_lib  # noqa: F401  registers et_vk
import torch
import torchao  # noqa: F401  registers torchao's ops
from executorch.backends.vulkan.serialization.vulkan_graph_schema import (
    IntList,
    Null,
    ValueList,
    VkTensor,
)
from executorch.backends.vulkan.serialization.vulkan_graph_serialize import (
    extract_vk_flatbuffer,
    flatbuffer_to_vk_graph,
)
from executorch.exir._serialize._program import deserialize_pte_binary
from torch import Tensor

DTYPES = {
    0: torch.bool,
    1: torch.uint8,
    2: torch.int8,
    3: torch.int32,
    4: torch.float16,
    5: torch.float32,
}
SCALAR_TYPES = {3: torch.int32, 4: torch.int64}  # of ExecuTorch's schema, for the inputs


class Delegate:
    """A delegate of a program, run call by call."""

    def __init__(self, data: bytes, named: Any) -> None:
        self.graph = flatbuffer_to_vk_graph(extract_vk_flatbuffer(data))
        self.named = named
        self.values: dict[int, Any] = {}
        for number, held in enumerate(self.graph.values):
            value = held.value
            if isinstance(value, VkTensor) and value.constant_id >= 0:
                self.values[number] = self.constant(value)

    def constant(self, tensor: VkTensor) -> Tensor:
        entry = self.named.pte_data[self.graph.constants[tensor.constant_id].named_key]
        data = bytearray(self.named.buffers[entry.buffer_index])
        flat = torch.frombuffer(data, dtype=DTYPES[int(tensor.datatype)])
        return flat[: math.prod(tensor.dims)].reshape(tensor.dims)

    def value(self, number: int) -> Any:
        if number in self.values:
            return self.values[number]
        held = self.graph.values[number].value
        if isinstance(held, Null):
            return None
        if isinstance(held, ValueList):
            return [self.value(item) for item in held.items]
        if isinstance(held, IntList):
            return list(held.items)
        return next(iter(vars(held).values()))

    def run(self, inputs: list[Tensor]) -> list[Tensor]:
        for number, tensor in zip(self.graph.input_ids, inputs, strict=True):
            self.values[number] = tensor
        for call in self.graph.chain:
            *numbers, result = call.args
            self.store(result, run_op(call.name, [self.value(number) for number in numbers]))
        return [self.values[number] for number in self.graph.output_ids]

    def store(self, number: int, made: Any) -> None:
        held = self.graph.values[number].value
        if isinstance(held, ValueList):
            for item, one in zip(held.items, made, strict=True):
                self.store(item, one)
        elif isinstance(held, VkTensor):
            if any(size > most for size, most in zip(made.shape, held.dims, strict=True)):
                raise ValueError(f"value {number} is {list(made.shape)}, over {held.dims}")
            self.values[number] = made.to(DTYPES[int(held.datatype)])
        else:
            self.values[number] = made


def run_op(name: str, arguments: list[Any]) -> Any:
    """Run one call; ``arguments`` are without the result."""
    if name == "et_vk.prepack.default" or ("copy" in name and "_to_" in name):
        return arguments[0]
    if name == "mul":
        return operator.mul(*arguments)
    if name == "sym_size.int":
        return arguments[0].shape[arguments[1]]
    if name == "et_vk.rms_norm.default":
        x, weight, epsilon = arguments
        return torch.nn.functional.rms_norm(x, x.shape[-1:], weight, epsilon)
    if name.endswith("choose_qparams_affine.default"):
        x, mapping, blocks = arguments[:3]
        return torch.ops.torchao.choose_qparams_affine(
            x, mapping, blocks, torch.int8, -128, 127, None, None, torch.int8
        )
    if name == "et_vk.linear_dq8ca_q4gsw.default":
        return linear_8bit(*arguments)
    if name == "et_vk.linear_q4gsw.default" and arguments[0].ndim != 2:
        raise ValueError("the runtime computes only the first item of a batch")
    if name == "aten.gather.default":
        arguments[2] = arguments[2].long()
    namespace, op, overload = name.split(".")
    op = op.removesuffix("_copy") if namespace == "aten" else op
    if op == "view":
        op = "reshape"
    target = getattr(getattr(getattr(torch.ops, namespace), op), overload)
    names = zip(target._schema.arguments, arguments, strict=False)
    named = {argument.name: value for argument, value in names if argument.kwarg_only}
    return target(*arguments[: len(arguments) - len(named)], **named)


def linear_8bit(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    packed: Tensor,
    sums: Tensor,
    scales: Tensor,
    group_size: int,
    bias: Tensor | None,
) -> Any:
    """Sums of products of integers, group by group, as the runtime computes them."""
    scale, zero_point = scale.reshape(-1, 1), zero_point.reshape(-1, 1).float()
    q = (torch.round(x / scale) + zero_point).clamp(-128, 127)
    ones = torch.ones_like(scales)
    products = [
        torch.ops.et_vk.linear_q4gsw(
            q[:, first : first + group_size],
            packed[:, first // 2 : (first + group_size) // 2].contiguous(),
            ones[:1],
            group_size,
        )
        for first in range(0, x.shape[1], group_size)
    ]
    total: Any = 0
    for group, product in enumerate(products):
        total = total + (product - zero_point * sums[group]) * scales[group] * scale
    return total if bias is None else total + bias


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model_path", type=Path, required=True)
    parser.add_argument("--inputs", required=True)
    parser.add_argument("--output_file", required=True)
    options = parser.parse_args()
    read = deserialize_pte_binary(options.model_path.read_bytes())
    plan = read.program.execution_plan[0]
    (processed,) = (delegate.processed for delegate in plan.delegates)
    data = bytes(read.program.backend_delegate_data[processed.index].data)
    inputs = []
    for file, number in zip(options.inputs.split(","), plan.inputs, strict=True):
        tensor = plan.values[number].val
        held = bytearray(Path(file).read_bytes())
        array = torch.frombuffer(held, dtype=SCALAR_TYPES[int(tensor.scalar_type)])
        inputs.append(array.reshape(list(tensor.sizes)).int())
    for number, output in enumerate(Delegate(data, read.named_data).run(inputs)):
        output.contiguous().numpy().tofile(f"{options.output_file}-{number}.bin")
    return 0


if __name__ == "__main__":
    sys.exit(main())
