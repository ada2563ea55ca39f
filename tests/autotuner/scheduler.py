"""A Dask scheduler and workers on loopback, each a process of its own, as a user starts them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).parents[2]


class Scheduler:
    """A scheduler without workers. folder: where what it and its workers say goes."""

    def __init__(self, folder: Path):
        self._folder, file = folder, folder / "scheduler.json"
        self.workers: list[subprocess.Popen[bytes]] = []
        self.process = self._start("scheduler", "--port", "0", "--scheduler-file", str(file))
        while not file.exists() or not file.read_text():
            assert self.process.poll() is None, self.said("scheduler")
            time.sleep(0.05)
        self.address: str = json.loads(file.read_text())["address"]

    def work(self, path: Path = ROOT) -> subprocess.Popen[bytes]:
        """One more worker, with one thread. path: of its packages; the checkout's need not be those that are tested."""
        options = ("--nthreads", "1", "--no-nanny", "--memory-limit", "0")
        self.workers.append(self._start("worker", self.address, *options, name=f"{len(self.workers)}", path=path))
        return self.workers[-1]

    def said(self, who: str) -> str:
        return (self._folder / f"{who}.log").read_text()

    def _start(self, what: str, *arguments: str, name: str = "", path: Path = ROOT) -> subprocess.Popen[bytes]:
        module = f"distributed.cli.dask_{what}"
        command = [sys.executable, "-m", module, *arguments, "--host", "127.0.0.1", "--no-dashboard"]
        with (self._folder / f"{what}{name}.log").open("wb") as log:
            return subprocess.Popen(
                command, cwd=path, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=os.environ | {"DASK_TEMPORARY_DIRECTORY": str(self._folder)},
            )  # fmt: skip

    def __enter__(self) -> Scheduler:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for process in [*self.workers, self.process]:
            process.kill()
            process.wait()
