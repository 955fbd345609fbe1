"""The pass: an embedding and a head that hold the same 4-bit matrix read one parameter."""

from __future__ import annotations

from torch.export import ExportedProgram

from wgpu_q4.arrays import DTypeLike, float_dtype
from wgpu_q4.errors import FormatError
from wgpu_q4.executorch import lowering  # noqa: F401  registers a pattern
from wgpu_q4.executorch.detect import Detector
from wgpu_q4.executorch.groups import TiedGroup, group_by_matrix
from wgpu_q4.executorch.report import LeftAlone, ShareReport
from wgpu_q4.executorch.rewrite import Rewriter
from wgpu_q4.format import ScalesDtype


def share_tied_weights(
    exported_program: ExportedProgram,
    *,
    scales_dtype: DTypeLike | None = None,
    scales_once: bool = True,
) -> tuple[ExportedProgram, ShareReport]:
    """Let every embedding that holds a linear's 4-bit matrix read the linear's packed bytes.

    Run it on what ``torch.export.export`` returns, before ``to_edge_transform_and_lower``.  A
    matrix that an embedding and a linear hold (`detect_tied_linear_weight` says when they do) is
    packed in the linear convention into one parameter, and both become ExecuTorch's ops on it:
    ``et_vk.embedding_q4gsw`` with ``is_linear_weight=True`` and ``et_vk.linear_q4gsw``.  A linear
    with 8-bit activations stays as it is, for ExecuTorch's own pattern to fuse into
    ``et_vk.linear_dq8ca_q4gsw``, whose packed bytes are then the same blob.  Whatever else reads
    the original parameter still finds it.

    Args:
        exported_program: is not changed; tensors that stay are shared with the result.
        scales_dtype: dtype of the shared scales in the file; None keeps the model's own.
            ``"float16"`` rounds the scales, which changes each by up to 2⁻¹¹ of itself.  Scales
            below float16's normal range lose more, and the report says so.
        scales_once: take the embedding's scales from the linear's transposed constant with a few
            more ops (`wgpu_q4.executorch.emit`); False stores the scales in both orders.

    Returns:
        The rewritten program, or the argument itself if nothing was shared; and a report.

    Raises:
        TypeError: the argument is not an exported program.
        ValueError: the program is in the edge dialect already.
        FormatError: ``scales_dtype`` is not allowed, or scales do not fit it.
    """
    dtype = None if scales_dtype is None else float_dtype("scales_dtype", scales_dtype, FormatError)
    return TiedProgram(exported_program).share(dtype, scales_once)


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

    def share(
        self, scales_dtype: ScalesDtype | None, scales_once: bool
    ) -> tuple[ExportedProgram, ShareReport]:
        """Find the tied matrices, rewrite their readers, and report."""
        groups, left = self.find()
        if not groups:
            return self._program, ShareReport((), tuple(left))
        rewriter = Rewriter(self._program, scales_dtype, scales_once)
        shared = [rewriter.share(group) for group in groups]
        program = rewriter.finish(self._memory(groups))
        left += rewriter.still_read([use for group in groups for use in group.readers])
        return program, ShareReport(tuple(shared), tuple(left))

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
