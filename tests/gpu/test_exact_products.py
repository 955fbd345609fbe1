"""Each kernel of `linear` gives an exact result to the bit where no sum has to be rounded."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.exact import PRODUCTS, Product


@pytest.mark.parametrize("product", PRODUCTS, ids=str)
def test_product(product: Product, device: Any) -> None:
    if not product.runs_on(device):
        with pytest.raises(ValueError, match="device that keeps half-precision subnormals"):
            product.run(device)
        return
    np.testing.assert_array_equal(product.run(device), product.exact())
