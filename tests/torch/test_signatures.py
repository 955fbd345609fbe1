"""The types that the ops promise: ``mypy --strict`` reads this file, and pytest runs it."""

from __future__ import annotations

from typing import Any, assert_type

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import wgpu_q4
from tests.cases import ODD, random_weight, random_x

WEIGHT = random_weight(ODD, "float16")
IDS, X, BIAS = np.array([[1, 2], [3, 4]]), random_x(2, ODD.embed_dim), random_x(ODD.vocab)


def test_numpy_gives_numpy() -> None:
    assert_type(wgpu_q4.embedding(IDS, WEIGHT), NDArray[Any])
    assert_type(wgpu_q4.embedding([1, 2], WEIGHT, np.float16), NDArray[Any])
    assert_type(wgpu_q4.linear(X, WEIGHT, BIAS), NDArray[Any])
    assert_type(wgpu_q4.argmax(X, WEIGHT), NDArray[np.int64])
    best = assert_type(wgpu_q4.top_k(X, WEIGHT, 3), wgpu_q4.TopK[NDArray[Any]])
    assert_type(best.values, NDArray[Any])
    results = wgpu_q4.embedding(IDS, WEIGHT), wgpu_q4.linear(X, WEIGHT), wgpu_q4.argmax(X, WEIGHT)
    assert all(type(result) is np.ndarray for result in (*results, *best))


def test_torch_gives_torch() -> None:
    ids, x, bias = torch.from_numpy(IDS), torch.from_numpy(X), torch.from_numpy(BIAS)
    assert_type(wgpu_q4.embedding(ids, WEIGHT, torch.float16), torch.Tensor)
    assert_type(wgpu_q4.linear(x, WEIGHT, bias), torch.Tensor)
    assert_type(wgpu_q4.argmax(x, WEIGHT, BIAS), torch.Tensor)
    best = assert_type(wgpu_q4.top_k(x, WEIGHT, 3), wgpu_q4.TopK[torch.Tensor])
    assert_type(best.ids, torch.Tensor)
    results = wgpu_q4.embedding(ids, WEIGHT), wgpu_q4.linear(x, WEIGHT), wgpu_q4.argmax(x, WEIGHT)
    assert all(type(result) is torch.Tensor for result in (*results, *best))


@pytest.mark.parametrize("name", ["Accuracy", "Convention", "FloatDtype", "Layout", "Storage"])
def test_the_literals_of_the_signatures_have_names(name: str) -> None:
    assert name in wgpu_q4.__all__
    assert getattr(wgpu_q4, name).__args__


def test_every_name_of_the_package_is_there() -> None:
    assert sorted(set(wgpu_q4.__all__)) == sorted(wgpu_q4.__all__)
    assert all(getattr(wgpu_q4, name) is not None for name in wgpu_q4.__all__)
