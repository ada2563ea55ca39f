"""The cluster as a whole: SimPy owns what happens rarely, the engine owns every cycle.

A `Machine` runs a program directly (`run`), or lets a controller - a generator - fork programs on the
cores and move data by DMA (`simulate`). In the order in which a simulation meets them:

  machine      memories, loaded programs, `run`
  limits       how long a run may take, how far the engine goes at once
  registers    a core's registers at its start
  faults       traps and deadlocks as exceptions
  simulation   a controller's run from beginning to end: SimPy's steps
  controller   what a controller says: fork, join, copy, wait, pause
  domain       the process that advances the engine
  accounts     which cause every cycle is charged to
  log          what ran and moved when
  spans        a log as a timeline
"""

from __future__ import annotations

from pulpsim.machine.controller import Controller
from pulpsim.machine.domain import Process
from pulpsim.machine.machine import Machine
from pulpsim.machine.registers import Registers
from pulpsim.machine.result import Result

#: what `Controller` was called first; `platform.Cluster` describes one
Cluster = Controller

__all__ = ["Cluster", "Controller", "Machine", "Process", "Registers", "Result"]
