"""JavaScript's objects, and promises that Python waits for, in Pyodide.

WebGPU answers later: a mapped buffer, a compiled kernel or an error is a promise.  The ops of this
package return results, so Python is suspended until a promise is kept.  That takes JavaScript
Promise Integration (JSPI), a part of WebAssembly, and a call that JavaScript itself can wait for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from operator import index
from typing import Any

import js
from pyodide.ffi import JsException, can_run_sync, run_sync, to_js

from wgpu_q4.errors import DeviceError


class GPUError(RuntimeError):
    """An error of WebGPU: of validation, of memory, or a lost device."""


def check_can_wait() -> None:
    """Raise unless a promise can be waited for in the present call.

    Raises:
        DeviceError: says how to make the call, or which browsers have JSPI.
    """
    if can_run_sync():
        return
    if not hasattr(js.WebAssembly, "Suspending"):
        raise DeviceError(
            "this browser cannot suspend Python while the GPU works: it has no JavaScript Promise "
            "Integration (JSPI). Chrome and Edge have it from version 137 on, Firefox from 153, "
            "Safari from 27"
        )
    raise DeviceError(
        "Python cannot wait for the GPU in this call, because JavaScript does not wait for Python. "
        "Start it with pyodide.runPythonAsync(code), or call function.callPromising(…) in place of "
        "function(…); pyodide.runPython and event handlers do not work"
    )


def wait(promise: Any) -> Any:
    """Return what a promise is resolved to.

    Raises:
        DeviceError: nothing can be waited for here.
        GPUError: the promise is rejected.
    """
    check_can_wait()
    try:
        return run_sync(promise)
    except JsException as error:
        raise GPUError(str(error)) from error


def described(**fields: Any) -> Any:
    """Return a descriptor of WebGPU as a JavaScript object; see `translated`."""
    return to_js(translated(fields), dict_converter=js.Object.fromEntries)


def translated(value: Any) -> Any:
    """Return a field of a descriptor as WebGPU has it.

    Names become those of JavaScript, but for a kernel's constants, whose names are WGSL's; objects
    of `wgpu_q4.device.browser` become JavaScript's, and numpy's integers Python's.
    """
    if isinstance(value, Mapping):
        return {
            camel(name): dict(field) if name == "constants" else translated(field)
            for name, field in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [translated(item) for item in value]
    if hasattr(value, "__index__"):
        return index(value)
    return getattr(value, "handle", value)


def camel(name: str) -> str:
    """Return JavaScript's form of a name: ``entryPoint`` of ``entry_point``.

    It undoes `dashed`, too.
    """
    first, *others = name.replace("-", "_").split("_")
    return first + "".join(word.title() for word in others)


def dashed(name: str) -> str:
    """Return wgpu's form of a limit's name.

    ``max-texture-dimension-2d`` of ``maxTextureDimension2D``.
    """
    return re.sub(r"\d?[A-Z]", r"-\g<0>", name).lower()


def limits_of(limits: Any) -> dict[str, int]:
    """Return the limits of an adapter or a device, by wgpu's names."""
    names = js.Object.getOwnPropertyNames(js.Object.getPrototypeOf(limits))
    kept = [name for name in map(str, names) if name.startswith(("max", "min"))]
    return {dashed(name): int(getattr(limits, name)) for name in kept}
