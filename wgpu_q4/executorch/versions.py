"""The wheels that this package was tested with, checked when it is imported.

The pass rewrites graphs that torch and torchao make into ops of ExecuTorch's Vulkan backend.  None
of the three is a stable interface, and another version may lower to something else without a word.
So another version is refused, with the command that installs the right ones; and so are ops whose
arguments are not those that the pass writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

TESTED: Mapping[str, str] = {"executorch": "1.5.1", "torch": "2.13", "torchao": "0.18"}
"""Each distribution with the release that works: ``"2.13"`` stands for every 2.13.x."""

SCHEMAS: Mapping[str, str] = {
    "embedding_q4gsw": "(Tensor weight, Tensor weight_scales, int group_size, Tensor indices, "
    "bool is_linear_weight=False) -> Tensor",
    "linear_q4gsw": "(Tensor self, Tensor weights, Tensor weight_scales, int group_size, "
    "Tensor? bias=None) -> Tensor",
    "linear_dq8ca_q4gsw": "(Tensor input, Tensor input_scales, Tensor input_zp, Tensor weights, "
    "Tensor weight_sums, Tensor weight_scales, int group_size, Tensor? bias=None) -> Tensor",
}
"""The arguments of each op of ``et_vk`` that the pass writes, as torch shows them."""


def check_versions(tested: Mapping[str, str] = TESTED) -> None:
    """Raise unless every distribution in ``tested`` is installed in that release.

    Raises:
        ImportError: names each wrong or missing distribution, what was found, and the fix.
    """
    wrong = []
    for name, release in tested.items():
        try:
            found = version(name)
        except PackageNotFoundError:
            wrong.append(f"{name} {release} (not installed)")
            continue
        public = found.partition("+")[0]  # a local part names a build of the same version
        if public != release and not public.startswith(f"{release}."):
            wrong.append(f"{name} {release} (found {found})")
    if wrong:
        raise ImportError(
            f"wgpu_q4.executorch needs {', '.join(wrong)}. Install with: {_install(tested)}"
        )


def check_ops(schemas: Mapping[str, str] = SCHEMAS) -> None:
    """Raise unless ExecuTorch's ops take the arguments that the pass writes.

    Raises:
        ImportError: names the op, its arguments here and those that the pass writes.
    """
    import executorch.backends.vulkan.custom_ops_lib  # noqa: F401  registers et_vk
    import torch

    for name, expected in schemas.items():
        op = getattr(torch.ops.et_vk, name, None)
        found = "missing" if op is None else str(op.default._schema).partition(name)[2]
        if found != expected:
            raise ImportError(
                f"wgpu_q4.executorch writes et_vk.{name}{expected}, and in this installation the "
                f"op is {found}. Install with: {_install(TESTED)}"
            )


def _install(tested: Mapping[str, str]) -> str:
    pins = " ".join(f"'{name}=={release}.*'" for name, release in tested.items())
    return f"pip install {pins}"
