"""Trials of a fuzzer: one after the other, until its time is over, in a process that may hang, crash or eat memory."""

import faulthandler
import json
import os
import random
import re
import shutil
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import views_runs
from tests.support.budgets import SECONDS, SEED
from tests.support.machine import need

#: The package that is attacked.
PACKAGE = Path(views_runs.__file__).parent

#: Seconds after which a step is taken for one that never ends. Most take milliseconds.
ENDLESS = 60.0

#: Bytes of memory that a trial may take beyond those of the test.
MEMORY = 600 << 20

#: How many different failures are shown; what comes after them is often the same again.
MOST_SHOWN = 30

#: What is known not to work yet: a pattern of a failure's text, and what it is.
Known = list[tuple[str, str]]


class Wrong(AssertionError):
    """An answer that is not right."""


class Trial:
    """One trial.

    Args:
        seed: of its choices.
        folder: an empty folder for its files.
        counts: of what was tried; `run` prints them.
        mark: called before each step.
        known: what is known not to work yet.
    """

    def __init__(
        self, seed: int, folder: Path, counts: Counter[str], mark: Callable[[], object], known: Known | None = None
    ) -> None:
        self.seed = seed
        self.choose = random.Random(seed)
        self.folder = folder
        self.counts = counts
        #: What was done so far; shown when the trial fails.
        self.steps: list[str] = []
        #: The failures that were noted; the trial went on.
        self.failures: list[str] = []
        self._mark = mark
        self._known = known or []

    def step(self, text: str) -> None:
        """Note what comes next: it has a minute."""
        self.steps.append(text)
        self._mark()

    def skips(self, text: str) -> bool:
        """Return whether it is known that this does not work yet, and count it: it might take a minute."""
        reason = find_known(self._known, text)
        self.counts[f"known: {reason}"] += reason is not None
        return reason is not None

    def fail(self, error: BaseException) -> None:
        """Note what a step raised, and go on."""
        self.failures.append(f"[{self.steps[-1][:60] if self.steps else ''}] {tell(error)}")


def find_known(known: Known, text: str) -> str | None:
    """Return what is known of a failure or a step."""
    return next((reason for pattern, reason in known if re.search(pattern, text, re.DOTALL)), None)


def tell(error: BaseException) -> str:
    """Return what an exception says and where it comes from, the last calls only."""
    lines = traceback.format_exception_only(error)[-1].strip()[:600]
    calls = [one for one in traceback.extract_tb(error.__traceback__) if PACKAGE in Path(one.filename).parents]
    places = [f"{Path(one.filename).relative_to(PACKAGE)}:{one.lineno}" for one in reversed(calls[-4:])]
    return f"{lines} (from {' < '.join(places) or 'the test'})"


def alike(failure: str) -> str:
    """Return what failures have in common that are the same again: the kind of exception, and where it was raised."""
    [kind, *_], place = failure.split(": ", 1), failure.rpartition(" (from ")[2].partition(" < ")[0]
    text = "" if place != "the test)" else re.sub(r"'[^']*'|\(.*?\)|[\d.]+|\S*/\S*", "", failure)[:100]
    return f"{kind.rpartition('] ')[2]} {place} {text}"


def run(attack: Callable[[Trial], None], folder: Path, known: Known) -> Counter[str]:
    """Run trials until the time is over; show how much was tried, and fail with what failed.

    Returns:
        What was tried, and how often.
    """
    need(hasattr(os, "fork"), "this system does not fork")
    print(f"seed {SEED}; TESTS_SEED={SEED} tries the same again, and TESTS_SECONDS sets the seconds ({SECONDS:g})")
    deadline = time.monotonic() + SECONDS
    seed, counts, failures = SEED, Counter[str](), dict[str, str]()
    while time.monotonic() < deadline:
        seed = _run_process(attack, folder, known, seed, deadline, counts, failures)
    for what, count in sorted((+counts).items(), key=lambda one: (-one[1], one[0])):
        print(f"{count:8} {what}")
    new = []
    for failure in failures.values():
        reason = find_known(known, failure)
        if reason is None:
            new.append(failure)
        else:
            print(f"   known: {reason}")
    if new:
        pytest.fail(f"{len(new)} different failures:\n" + "\n".join(new[:MOST_SHOWN]), pytrace=False)
    assert counts["trials"]
    return counts


def _run_process(
    attack: Callable[[Trial], None],
    folder: Path,
    known: Known,
    seed: int,
    deadline: float,
    counts: Counter[str],
    failures: dict[str, str],
) -> int:
    """Run trials in a process until the time is over or the process ends; return the seed of the next trial."""
    report, hang = folder / "report", folder / "hang"
    pid = os.fork()
    if not pid:
        try:
            _work(attack, folder, known, seed, deadline, report, hang)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    result: dict[str, Any] = json.loads(report.read_text("utf-8"))
    counts.update(result["counts"])
    for place, failure in result["failures"]:
        # The same failure is shown once, with the first trial that it was found in.
        failures.setdefault(alike(failure), f"{place} {failure}"[:3000])
    if status:
        last = (folder / "last").read_text("utf-8")
        trace = hang.read_text("utf-8", "replace") if hang.exists() else ""
        ended = f"never ended: {trace}" if "Timeout" in trace else f"the process died with status {status}: {trace}"
        failures.setdefault(re.sub(r"0x[0-9a-f]+|\d+", "", trace), f"TESTS_SEED={last} {ended}")
        return int(last.split()[0]) + 1
    return int(result["next"])


def _work(
    attack: Callable[[Trial], None],
    folder: Path,
    known: Known,
    seed: int,
    deadline: float,
    report: Path,
    hang: Path,
) -> None:
    """Run trials in this process, and write a report after each that failed."""
    import resource

    counts, failures = Counter[str](), list[tuple[str, str]]()
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, limits[1]))

    def save() -> None:
        report.write_text(json.dumps({"counts": counts, "failures": failures, "next": seed}), "utf-8")

    with hang.open("w", encoding="utf-8") as file:
        save()
        while time.monotonic() < deadline and len(failures) < 1000:
            place = folder / "trial"
            # The last process may have ended in the middle of it.
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()

            def mark() -> None:
                (folder / "last").write_text(f"{seed} {'; '.join(trial.steps)}", "utf-8", "backslashreplace")
                faulthandler.dump_traceback_later(ENDLESS, exit=True, file=file)

            trial = Trial(seed, place, counts, mark, known)
            try:
                attack(trial)
            except BaseException as error:
                trial.fail(error)
            faulthandler.cancel_dump_traceback_later()
            counts["trials"] += 1
            steps = f"TESTS_SEED={seed} {'; '.join(trial.steps)[:300]}"
            failures.extend((steps, failure) for failure in trial.failures)
            shutil.rmtree(place)
            seed += 1
            if trial.failures or seed % 50 == 0:
                save()
        save()
