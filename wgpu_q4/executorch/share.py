"""The pass: an embedding and a head that hold the same 4-bit matrix read one parameter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from torch.export import ExportedProgram
from torch.fx import Node

from wgpu_q4.arrays import DTypeLike, float_dtype
from wgpu_q4.errors import ExportError, FormatError
from wgpu_q4.executorch import lowering  # noqa: F401  registers a pattern
from wgpu_q4.executorch.detect import Detector
from wgpu_q4.executorch.forms import RUNTIMES, Runtime, problem
from wgpu_q4.executorch.groups import TiedGroup, group_by_matrix
from wgpu_q4.executorch.report import LeftAlone, ShareReport
from wgpu_q4.executorch.rewrite import Options, Rewriter


def share_tied_weights(
    exported_program: ExportedProgram,
    *,
    runtime: Runtime | None = None,
    scales_dtype: DTypeLike | None = None,
    scales_once: bool = True,
    force_fp16: bool = False,
) -> tuple[ExportedProgram, ShareReport]:
    """Let every embedding that holds a linear's 4-bit matrix read the linear's packed bytes.

    Run it on what ``torch.export.export`` returns, before ``to_edge_transform_and_lower``.  A
    matrix that an embedding and a linear hold (`detect_tied_linear_weight` says when they do) is
    packed in the linear convention into one parameter, and both become ExecuTorch's ops on it:
    ``et_vk.embedding_q4gsw`` with ``is_linear_weight=True`` and ``et_vk.linear_q4gsw``.  A linear
    whose activations are quantized to 8 bits row by row is lowered to
    ``et_vk.linear_dq8ca_q4gsw`` on the same parameter.  Whatever else reads the original parameter
    still finds it.

    The pass writes only forms that ExecuTorch's runtimes are known to run
    (`wgpu_q4.executorch.forms`).

    Args:
        exported_program: is not changed; tensors that stay are shared with the result.
        runtime: ``"vulkan"`` or ``"webgpu"``: the runtime that must run the program.  None accepts
            a program that one of them runs; the report names which.
        scales_dtype: dtype of the shared scales; None means float32.  ``"float16"`` needs
            ``force_fp16``, rounds each scale by up to 2⁻¹¹ of itself, and rounds scales below
            float16's normal range more, which the report says.
        scales_once: take the embedding's scales from the linear's constant wherever that can be
            written (`wgpu_q4.executorch.emit`); False stores the scales in both orders.
        force_fp16: the caller will lower the program with ``VulkanPartitioner({"force_fp16":
            True})``.  Scales, activations and logits are then float16 on the device, whatever
            ``scales_dtype`` is: a row is off by up to half a unit of float16, and at 512 × 256 the
            logits were off by 0.5 % of the largest.

    Returns:
        The rewritten program, or the argument itself if nothing was shared; and a report.

    Raises:
        TypeError: the argument is not an exported program.
        ValueError: the program is in the edge dialect already.
        FormatError: ``scales_dtype`` is not allowed, or scales do not fit it.
        ExportError: ``runtime`` does not run the program, or no runtime does.
    """
    if runtime is not None and runtime not in RUNTIMES:
        raise ExportError(
            f"runtime must be one of {', '.join(get_args(Runtime))}, not {runtime!r}: only "
            f"ExecuTorch's Vulkan and WebGPU backends have 4-bit ops that can share a matrix. For "
            f"another backend, lower the program without share_tied_weights"
        )
    wanted = "float32" if scales_dtype is None else scales_dtype
    dtype = float_dtype("scales_dtype", wanted, FormatError)
    options = Options(runtime, dtype, scales_once, force_fp16)
    return TiedProgram(exported_program).share(options)


class TiedProgram:
    """An exported program and its tied matrices."""

    def __init__(self, program: ExportedProgram) -> None:
        if not isinstance(program, ExportedProgram):
            raise TypeError(
                f"share_tied_weights takes what torch.export.export returns, not "
                f"{type(program).__name__}"
            )
        if program.dialect == "EDGE":
            raise ValueError(
                "share_tied_weights works on the program of torch.export.export: run it before "
                "to_edge or to_edge_transform_and_lower"
            )
        self._program = program
        self._detector = Detector(program)

    def share(self, options: Options) -> tuple[ExportedProgram, ShareReport]:
        """Find the tied matrices, rewrite their readers, verify what was written, and report."""
        groups, left = self.find()
        if not groups:
            return self._program, ShareReport((), tuple(left))
        rewriter = Rewriter(self._program, options)
        shared = [rewriter.share(group) for group in groups]
        program = rewriter.finish(self._memory(groups))
        runs, notes = verified(rewriter.written, options)
        left += rewriter.still_read([use for group in groups for use in group.readers])
        return program, ShareReport(tuple(shared), tuple(left), runs, notes)

    def find(self) -> tuple[list[TiedGroup], list[LeftAlone]]:
        """Return the tied matrices, and the readers that keep their own with the reasons."""
        detector = self._detector
        return group_by_matrix(detector, map(detector.match, detector.embeddings))

    def _memory(self, groups: list[TiedGroup]) -> list[int]:
        """Return the addresses of the tensors that the readers read so far."""
        constants = self._detector.constants
        return [
            tensor.data_ptr()
            for group in groups
            for use in group.readers
            if use.operand is not None
            for node in use.operand.nodes
            if (tensor := constants.tensor(node)) is not None
        ]


def verified(
    written: Sequence[Node], options: Options
) -> tuple[tuple[Runtime, ...], tuple[str, ...]]:
    """Hold the written nodes against the table of forms.

    Returns:
        The runtimes that run them, and for each other runtime the reason why it does not.

    Raises:
        ExportError: the runtime that was asked for does not run them, or no runtime does.
    """
    problems = {
        runtime: problem(written, runtime, force_fp16=options.force_fp16) for runtime in RUNTIMES
    }
    runs = tuple(runtime for runtime, reason in problems.items() if not reason)
    if options.runtime is None:
        reason = "" if runs else "; ".join(problems.values())
    else:
        reason = problems[options.runtime]
    if reason:
        raise ExportError(f"the shared program would not run: {reason}{_advice(reason)}")
    return runs, tuple(reason for reason in problems.values() if reason)


def _advice(reason: str) -> str:
    if "float16 scales" not in reason:
        return ""
    return (
        ". Leave scales_dtype at None; or lower the program with VulkanPartitioner({'force_fp16': "
        "True}), and say so with force_fp16=True"
    )
