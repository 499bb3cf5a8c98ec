"""Copies of a store that are torn, swapped, cut off, zeroed, noisy or flipped: every verb that reads answers right.

Or it raises a `StorageError`; it never raises anything else, returns a wrong object, or hangs.
"""

import shutil
from pathlib import Path

from tests.support.trials import Known, Trial, run
from tests.support.verbs import Verbs, build
from views_runs.files import companion

#: What is known not to work yet: delete a line when it does.
KNOWN: Known = []

#: How large the pieces are that a disk, a share or a program that copies damages.
PIECES = (512, 4096, 16384)


def _piece(trial: Trial, data: bytearray) -> slice:
    """Return where a piece of a file is; often one of the first."""
    size = trial.choose.choice(PIECES)
    last = max(0, len(data) // size - 1)
    number = trial.choose.randint(0, trial.choose.choice([last, min(last, 12)]))
    return slice(number * size, min(len(data), (number + 1) * size))


def flip(trial: Trial, data: bytearray, older: bytes) -> None:
    """Flip some bits, often at the start of a page: its header, and where its cells are."""
    for _ in range(trial.choose.choice([1, 1, 2, 8])):
        piece = _piece(trial, data)
        width = trial.choose.choice([16, 100, piece.stop - piece.start])
        place = min(piece.start + trial.choose.randrange(width), len(data) - 1)
        data[place] ^= 1 << trial.choose.randrange(8)


def end_of_page(trial: Trial, data: bytearray, older: bytes) -> None:
    """Flip bits near the end of a page, where the first cells of a table are."""
    for _ in range(trial.choose.choice([1, 2])):
        piece = _piece(trial, data)
        data[max(piece.start, piece.stop - 1 - trial.choose.randrange(400))] ^= 1 << trial.choose.randrange(8)


def cut_off(trial: Trial, data: bytearray, older: bytes) -> None:
    """Leave the end away, as a copy that was interrupted."""
    length = trial.choose.randrange(len(data))
    del data[length - length % trial.choose.choice([1, 512, 16384]) :]


def zero(trial: Trial, data: bytearray, older: bytes) -> None:
    """Zero some pieces, as a disk that was full, or lost power."""
    for _ in range(trial.choose.choice([1, 3])):
        piece = _piece(trial, data)
        data[piece] = bytes(piece.stop - piece.start)


def noise(trial: Trial, data: bytearray, older: bytes) -> None:
    """Write noise over a piece, or over some bytes of it."""
    piece = _piece(trial, data)
    length = trial.choose.choice([4, 40, piece.stop - piece.start])
    start = min(piece.start + trial.choose.choice([0, 8, 100, trial.choose.randrange(512)]), len(data))
    length = min(length, len(data) - start)
    data[start : start + length] = trial.choose.randbytes(length)


def swap(trial: Trial, data: bytearray, older: bytes) -> None:
    """Swap two pieces."""
    one, other = _piece(trial, data), _piece(trial, data)
    if one.stop - one.start == other.stop - other.start:
        data[one], data[other] = data[other], data[one]


def repeat(trial: Trial, data: bytearray, older: bytes) -> None:
    """Write a piece in another's place, as a disk that writes to the wrong place."""
    one, other = _piece(trial, data), _piece(trial, data)
    if one.stop - one.start == other.stop - other.start:
        data[one] = data[other]


def torn(trial: Trial, data: bytearray, older: bytes) -> None:
    """Take some pieces from how the file was before."""
    size, chance = trial.choose.choice(PIECES), trial.choose.choice([0.1, 0.5, 0.9])
    for start in range(0, len(older), size):
        if trial.choose.random() < chance:
            data[start : start + size] = older[start : start + size]


def half(trial: Trial, data: bytearray, older: bytes) -> None:
    """Take the beginning or the end from how the file was before, as a copy of a file in use."""
    place = trial.choose.randrange(len(data))
    data[:] = data[:place] + older[place:] if trial.choose.random() < 0.5 else older[:place] + data[place:]


def longer(trial: Trial, data: bytearray, older: bytes) -> None:
    """Add something at the end, and cut some of it off."""
    data += trial.choose.choice([bytes(40_000), trial.choose.randbytes(20_000), data[:50_000], older])


DAMAGES = [flip, flip, end_of_page, cut_off, zero, noise, swap, repeat, torn, half, longer]


def test_damaged_files(memory_path: Path) -> None:
    """Nothing that is read from a damaged file is wrong."""
    layouts = build(memory_path)

    def attack(trial: Trial) -> None:
        layout = trial.choose.choice([*layouts])
        older, newer, truth = layouts[layout]
        path = trial.folder / "models.db"
        journal, path_journal = (companion(file, "-journal") for file in (newer, path))
        shutil.copy(newer, path)
        if layout == "hot":
            shutil.copy(journal, path_journal)
        for damage in trial.choose.choices(DAMAGES, k=trial.choose.choice([1, 1, 1, 2])):
            target = trial.choose.choice([path, path_journal]) if layout == "hot" else path
            if data := bytearray(target.read_bytes()):
                trial.step(f"{damage.__name__} {layout}{target.suffix}")
                damage(trial, data, older.read_bytes())
                target.write_bytes(data)
                trial.counts[f"files: {damage.__name__}"] += 1
        Verbs(trial, path, truth).tries(trial.choose.sample(Verbs.READING, 12))

    run(attack, memory_path, KNOWN)
