"""Fill workgroup memory before a kernel starts, to see whether it reads what it never wrote."""

from __future__ import annotations

import re

_VARIABLE = re.compile(r"^var<workgroup> (\w+): array<(.+), ([^,]+)>;", re.MULTILINE)
_MAIN = re.compile(r"^fn main\((.*?)\)\s*\{", re.MULTILINE | re.DOTALL)
_LANE = re.compile(r"@builtin\(local_invocation_index\) (\w+)")

FILLS = (0, 0x42F60000)
"""Two words to fill with: zero, and 123 as a float, which is also a large integer."""


def filled(code: str, word: int) -> str:
    """Return a WGSL module whose first invocation writes ``word`` all over workgroup memory.

    Args:
        code: a module with at most one entry point, called ``main``.
        word: the bits of each 32-bit component.

    Raises:
        ValueError: workgroup memory is declared in a form that no kernel uses yet.
    """
    variables = _VARIABLE.findall(code)
    if len(variables) != code.count("var<workgroup>"):
        raise ValueError("workgroup memory must be declared as 'var<workgroup> name: array<T, N>;'")
    if not variables:
        return code
    main = _MAIN.search(code)
    lane = main and _LANE.search(main[1])
    if main is None or lane is None:
        raise ValueError("a kernel with workgroup memory must take local_invocation_index")
    loops = [
        f"for (var at = 0u; at < u32({size}); at++) {{ {name}[at] = {_value(kind, word)}; }}"
        for name, kind, size in variables
    ]
    prologue = f"\nif {lane[1]} == 0u {{ {' '.join(loops)} }}\nworkgroupBarrier();\n"
    return code[: main.end()] + prologue + code[main.end() :]


def _value(kind: str, word: int) -> str:
    if kind in ("f32", "i32"):
        return f"bitcast<{kind}>({word}u)"
    vector = re.fullmatch(r"vec(\d)<(f32|i32)>", kind)
    if vector is not None:
        return f"bitcast<{kind}>(vec{vector[1]}<u32>({word}u))"
    return f"{kind}({word}u)"  # u32, a vector of u32, or an alias of one
