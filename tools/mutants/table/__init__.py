"""The table of mutants: `MUTANTS`, in one file for each room of kernels."""

from tools.mutants.table import common, embedding, gemm, gemv, gemv_integers, reduce, transposed

ON_LINEAR = (*common.MUTANTS, *gemv.MUTANTS, *gemv_integers.MUTANTS, *gemm.MUTANTS)
ON_REDUCE = reduce.MUTANTS
ON_TRANSPOSED = transposed.MUTANTS
ON_EMBEDDING = embedding.MUTANTS
MUTANTS = (*ON_LINEAR, *ON_REDUCE, *ON_TRANSPOSED, *ON_EMBEDDING)
