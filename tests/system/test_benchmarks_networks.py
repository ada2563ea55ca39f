"""Protects docs/networks.md and what --json prints: one measurement, the same numbers in both."""

from __future__ import annotations

import json

import pytest

from benchmarks import networks
from pulpsim.tables import records


@pytest.fixture(scope="module")
def measured() -> networks.Measured:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(networks, "NETWORKS", ("tutorial_cnn",))
        patch.setattr(networks, "WITH_STATES", {"tutorial_cnn": 4 << 20})
        return networks.measure()


def test_json_has_what_the_page_shows(measured: networks.Measured) -> None:
    document = json.loads(json.dumps(networks.document(measured)))
    [network] = document["networks"]
    assert network.keys() == {
        "model", "cycles", "milliseconds", "macs_per_cycle", "cycles_on_one_core", "lower_bound_cycles",
        "issue_bound_cycles", "published", "phases",
    }  # fmt: skip
    assert network["published"] == vars(networks.PUBLISHED["tutorial_cnn"])
    text = networks.page(measured)
    cycles, alone = network["cycles"], network["cycles_on_one_core"]
    row = f"| {cycles:,} | {network['milliseconds']:.3f} | {network['macs_per_cycle']:.2f} | {alone:,} |"
    assert f"| tutorial_cnn {row} {alone / cycles:.2f} | {network['lower_bound_cycles']:,} |" in text
    for phase in network["phases"]:
        assert f"| {phase['layer']} | {phase['step']} | {phase['kernels']} | {phase['cycles']:,} |" in text
    for one in document["optimizers"]:
        assert f"| {one['optimizer']} | {one['cycles']:,} | {one['times_sgd']:.2f} | {one['l2_bytes']:,} |" in text


def test_phases_are_the_steps(measured: networks.Measured) -> None:
    [network] = measured.networks
    rows = records(network.phases())
    assert sum(row["cycles"] for row in rows) == network.eight.cycles
    assert sum(row["on 1 core"] for row in rows) == network.one.cycles
