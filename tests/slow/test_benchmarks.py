"""The benchmarks: with little of everything, each of them runs."""

import json
import re
import subprocess
import sys
from pathlib import Path

from tests.support.machine import ROOT, need


def benchmark(*arguments: object) -> "subprocess.CompletedProcess[str]":
    """Run the benchmarks' command."""
    command = [sys.executable, "-m", "tests.benchmarks", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)


def test_each_benchmark_runs(tmp_path: Path) -> None:
    """All figures are measured, and shown again from the file that has them."""
    need(sys.platform in ("linux", "darwin"), "the benchmarks need wait4")
    saved, page = tmp_path / "saved.json", tmp_path / "page.rst"
    page.write_text("A page\n\nFigures\n-------\n\nOld ones\n", "utf-8")
    chosen = ["--objects", "float64", "small", "--stores", "views_runs", "joblib", "--folder", tmp_path]
    measured = benchmark("--scale", "0.0001", "--repeats", "1", *chosen, "--json", saved)
    assert [line for line in measured.stderr.splitlines() if not re.search(r": (1 of 1|filling .+)$", line)] == []
    series = json.loads(saved.read_text("utf-8"))["series"]
    assert {len(one["runs"]) for one in series if "waited" not in one["table"]} == {1}
    assert len({one["table"] for one in series} - {"What the others waited for"}) == 7
    assert benchmark("--read", saved, "--rst", page).stdout == measured.stdout
    shown = page.read_text("utf-8")
    assert shown.startswith("A page\n\nFigures\n-------\n\nA number with") and "Old ones" not in shown
    assert all(one["row"] in shown for one in series)
