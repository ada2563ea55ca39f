"""Protects what a browser makes of the page: its script runs without a complaint and leaves the record's numbers."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.trainlib.pages import HOSTILE, Page
from tests.trainlib.test_page import check_marks, tutorial, tutorial_with
from trainlib.page import compare, comparison_page, page
from trainlib.page.record import decode

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium is installed")
FLAGS = "--headless=new --no-sandbox --disable-gpu --virtual-time-budget=3000 --enable-logging=stderr --v=0 --dump-dom"
#: what the script is told to do before the page is read
CLICKS = """
{
for (const button of document.querySelectorAll("button")) button.click();
const picker = document.querySelector("select");
picker.value = "0";
picker.dispatchEvent(new Event("change"));
}
"""


def shown(text: str, folder: Path) -> str:
    """The page as it is after its script ran."""
    file = folder / "page.html"
    file.write_text(text, encoding="utf-8")
    command = [str(BROWSER), *FLAGS.split(), f"--user-data-dir={folder / 'profile'}", f"file://{file}"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr
    complaints = [line for line in run.stderr.splitlines() if "CONSOLE" in line]
    assert not complaints, complaints
    return run.stdout


def test_a_browser_shows_the_numbers_of_the_record(tmp_path: Path) -> None:
    steps = json.loads(tutorial())["phases"]
    for step, name in zip(steps, HOSTILE, strict=False):
        step["layer"] = name
    record = decode(tutorial_with(model=HOSTILE[0], platform=HOSTILE[1], phases=steps), "report.json")
    dom = shown(page(record), tmp_path)
    check_marks(record, Page(without_bars(dom)))
    assert 'aria-label="Every layer' in dom and re.search(r'id="theme"[^>]*>(light|dark)<', dom)


def without_bars(dom: str) -> str:
    """As the page was written: browsers close shapes by a tag of their own."""
    return re.sub(r"></(rect|circle|path|line)>", "/>", dom)


def test_every_button_works_and_a_step_of_the_cores_can_be_picked(tmp_path: Path) -> None:
    record = decode(tutorial(), "report.json")
    text = page(record).replace("})();\n</script>", f"{CLICKS}}})();\n</script>")
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)  # of the page's own script alone
    dom = without_bars(shown(text, tmp_path))
    marks = Page(dom).marks
    step = record.phases[0]
    assert step.causes_by_core is not None
    by_core = [[step.causes_by_core[name][core] for name in step.causes_by_core] for core in range(record.cores)]
    assert sorted(marks["cores"]) == sorted(cycles for core in by_core for cycles in core if cycles)
    longest = max(record.phases, key=lambda phase: phase.cycles)
    first = re.search(r'<g class="row"[^>]*data-name="([^"]*)"', dom[dom.index('id="causes"') :])
    assert first is not None and first[1] == f"{longest.layer} {longest.step}"
    assert 'data-theme="' in dom


def test_a_comparison_runs_without_a_complaint(tmp_path: Path) -> None:
    first, second = (decode(tutorial(name), "report.json") for name in ("pulp-2022", "vega"))
    found = compare(first, second)
    assert Page(without_bars(shown(comparison_page(found), tmp_path))).marks["changed"]
