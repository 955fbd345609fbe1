"""The errors this package raises beyond Python's own.

Each derives from the built-in that callers would expect (``ValueError``, ``RuntimeError``), so that
code which does not know this package still catches them.
"""


class FormatError(ValueError):
    """An array, a file or a parameter that cannot be a q4gsw matrix; the message says what can."""


class DeviceError(RuntimeError):
    """No usable adapter, or a device that cannot do what was asked; the message says what to do."""


class DeviceLimitError(DeviceError):
    """A matrix or a result that exceeds a limit of the device it was meant for."""


class KernelError(ValueError):
    """A kernel asked for what it is not made for (a layout, a shape); the message says what is."""


class ExportError(ValueError):
    """A program that no ExecuTorch runtime is known to run; the message says why and what to do."""


class RankError(RuntimeError):
    """A process group that cannot be used, or whose ranks disagree; the message says on what."""
