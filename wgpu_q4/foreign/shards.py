"""The files of a GGUF model that is split: ``model-00001-of-00003.gguf`` and so on.

The first file may hold no tensor at all: publishers put the metadata there alone.
"""

from __future__ import annotations

import os
import re

_NAME = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")


def other_shards(path: str, count: int) -> list[str]:
    """Return the paths of the other files of a model, first to last.

    Args:
        path: one of its files.
        count: how many files its header says that there are.

    Returns:
        Nothing if the model is whole, or if the name does not say which of ``count`` files it is.
    """
    directory, name = os.path.split(path)
    parts = _NAME.fullmatch(name)
    if count < 2 or parts is None or int(parts["count"]) != count:
        return []
    names = (f"{parts['stem']}-{number:05d}-of-{count:05d}.gguf" for number in range(1, count + 1))
    return [os.path.join(directory, other) for other in names if other != name]


def first_files(names: list[str]) -> list[str]:
    """Return, of the names of GGUF files in a folder, those of whole models and of first shards."""
    parts = [_NAME.fullmatch(name) for name in names]
    return [
        name
        for name, part in zip(names, parts, strict=True)
        if part is None or int(part["number"]) == 1
    ]
