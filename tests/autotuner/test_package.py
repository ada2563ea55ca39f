"""The tuner's package stands above trainlib and below benchmarks, and costs nothing to import."""

from __future__ import annotations

import subprocess
import sys


def test_importing_it_imports_nothing_heavy() -> None:
    code = "import sys, autotuner; print(sorted({'numba', 'simpy', 'rich', 'benchmarks'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_its_function_is_at_hand() -> None:
    import autotuner
    from autotuner.tuning import tune

    assert autotuner.tune is tune
