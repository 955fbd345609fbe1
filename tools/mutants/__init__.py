"""Mutants: kernels with one wrong place each, which the tests must notice.

A test that stays green on a wrong kernel proves nothing.  `tools.mutants.table` lists the mutants;
``make mutants`` makes each of them in turn, runs the cases that its piece of WGSL reaches, and
reports which kernels and which test caught it.  ``make test`` does the same for a few.
"""
