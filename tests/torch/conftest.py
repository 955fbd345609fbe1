"""The tier of torch: each test draws the same random numbers, alone or among others."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)
