"""Both ends of a language model on the GPU, from Python on a web page or anywhere else."""

import numpy as np

import wgpu_q4

print(wgpu_q4.device_info().adapter)

matrix = np.random.default_rng(1).standard_normal((8192, 256), np.float32)
weight = wgpu_q4.quantize(matrix)  # 4 bits a value, a scale for each 32 values
print(f"{matrix.nbytes:,} bytes of float32 became {weight.nbytes:,}")

ids = np.array([3, 1415, 8191])
rows = wgpu_q4.embedding(ids, weight)  # [3, 256]
logits = wgpu_q4.linear(rows, weight)  # [3, 8192]: the same bytes on the GPU
print("embedding", rows.shape, "linear", logits.shape)

exact = np.asarray(weight, np.float64)
print("differs from numpy's float64 by", abs(logits - rows @ exact.T).max())
print("nearest rows", wgpu_q4.argmax(rows, weight))  # of each, itself
