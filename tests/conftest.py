"""What all tests share: where the checkout is, and how long Hypothesis searches.

Test folders hold no __init__.py: tests/pulpsim would then be a package named pulpsim.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

from pulpsim.engine.traces.engine import TraceEngine

# The same examples on every run and machine: a failure is a change of the code, never of the draw.
# No deadline: the first call of a compiled function takes seconds. 34 examples: all tests in minutes on two cores.
settings.register_profile("repeatable", max_examples=34, derandomize=True, deadline=None)
# HYPOTHESIS_PROFILE=thorough: new examples every time, and many of them.
settings.register_profile("thorough", max_examples=2000, derandomize=False, deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

# Tests are short: the engine of traces would leave all of them to the fast engine.
TraceEngine.eager = True

# What commands print hangs on no wish of whoever runs the tests.
for name in ("COLUMNS", "FORCE_COLOR", "NO_COLOR"):
    os.environ.pop(name, None)

# What a shell starts in the background ignores Ctrl-C, and so would the commands that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout; the packages are not always imported from it (see .ci/run)."""
    return Path(__file__).resolve().parents[1]
