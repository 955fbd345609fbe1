"""Every architecture of transformers with a tied embedding: `tie`, then a comparison with torch.

    make architectures

builds a small model of each, ties it, compares its outputs and the tokens that it writes with those
of the float model on the dequantized matrix, and writes docs/architectures.md.
"""
