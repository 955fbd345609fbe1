"""The process that runs the checks on one adapter.

Its request has the fields ``adapter``, ``implementation``, ``only`` (see `all_checks`) and
``first``, the number of the check to begin with.  It answers with ``absent``, the reason why there
is nothing to check on; or with ``adapter`` and ``implementation``, and then with the fields of a
`Finding` for each check in turn.
"""

from __future__ import annotations

import sys
import warnings
from dataclasses import asdict

from wgpu_q4.check.checks import all_checks, examine
from wgpu_q4.check.process import serve
from wgpu_q4.device import context_for, request_device
from wgpu_q4.errors import DeviceError


def main() -> int:
    """Serve one request; return the exit status."""
    warnings.simplefilter("ignore")
    request, say = serve()
    try:
        context = context_for(request_device(request["adapter"], request["implementation"]))
    except DeviceError as error:
        say(absent=str(error))
        return 0
    say(adapter=context.adapter_summary, implementation=context.implementation_summary)
    for check in all_checks(request["only"])[request["first"] :]:
        say(**asdict(examine(check, context)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
