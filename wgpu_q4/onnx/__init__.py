"""Export of torch models to ONNX: one 4-bit matrix, read by two operators of ONNX Runtime.

    wgpu_q4.onnx.export(model, (ids,), "model.onnx")

The embedding becomes ``GatherBlockQuantized``, the head ``MatMulNBits``, both of the domain
com.microsoft.  They take the bytes of this package as they are: two nibbles a byte, the lower one
first, zero point 8.  Requires torch and onnxscript.
"""

from wgpu_q4.onnx.exporting import export
from wgpu_q4.onnx.translation import custom_translation_table

__all__ = ["custom_translation_table", "export"]
