"""The main job on Windows: store, find, fetch, the command line, unusual paths, open files, and several processes."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

from views_runs import DownloadError, InvalidPathError, Storage, StoreNotFoundError
from views_runs.database import database
from views_runs.files import companion

LARGE = os.urandom(3_000_000)

#: How many processes are killed while they store.
KILLS = 6

#: How many models another process stores meanwhile.
BESIDE = 30


def main_job(store: Storage) -> None:
    """Store, find, fetch, verify, back up, download and delete."""
    store.store("small", [1], {"author": "testuser", "train_end": 480})
    store.store("large", LARGE)
    assert store.fetch("small") == [1] and store.fetch("large") == LARGE
    assert store.list("train_end > 2019-11") == ["small"]
    assert store.verify().damaged == () and store.backup("copy.db").versions == 2
    assert Storage("copy.db").fetch("large") == LARGE
    states = {finding.topic: finding.state for finding in store.doctor()}
    assert "failure" not in states.values() and states["file"] == states["file system"] == "ok", states
    for name, file in {"con": "_con.pickle", "ends.": "ends..pickle", "ends ": "ends .pickle"}.items():
        store.store(name, 1)
        assert store.download(name).name == file and file in os.listdir()
        store.delete(name)


def command_line(store: Storage) -> None:
    """A glob is one of models although a file matches it, and the output can be redirected in any code page."""
    command = [sys.executable, "-m", "views_runs", "--store", str(store.path), "model"]
    Path("small.pickle").touch()
    for encoding in ("cp437", "cp1252"):
        environment = {**os.environ, "PYTHONIOENCODING": encoding}
        listed = subprocess.run([*command, "list", "-q", "sm*"], capture_output=True, env=environment, check=True)
        assert listed.stdout.split() == [b"small"], listed
        for verb in (["inspect", "small"], ["diff", "small", "large"], ["doctor"]):
            shown = subprocess.run([*command, *verb], capture_output=True, env=environment, check=True)
            assert b"\\u" not in shown.stdout and not shown.stderr, shown
    missing = subprocess.run([*command, "inspect", "smal"], capture_output=True, text=True)
    assert missing.returncode == 1 and "Did you mean 'small'?" in missing.stderr, missing
    subprocess.run([*command, "annotate", "small", "--set", "note=$USERNAME"], capture_output=True, check=True)
    assert store.fetch_metadata("small")["note"] == "$USERNAME"


def unusual_paths() -> None:
    """Paths that only Windows has lead to the same file, or to an error that says what is wrong."""
    folder = Path("C:\\views_runs-paths", *["d" * 50] * 6)
    os.makedirs(f"\\\\?\\{folder}", exist_ok=True)
    os.chdir("C:\\views_runs-paths")
    for path in ("C:models.db", f"\\\\?\\{folder}\\models.db", f"C:\\Žofie-{os.getpid()}.db"):
        Storage(path).store("m", path, overwrite=True)
    assert Storage("C:\\views_runs-paths\\models.db").fetch("m") == "C:models.db"
    assert Storage(folder / "models.db").fetch("m") == f"\\\\?\\{folder}\\models.db"
    for path in ("Q:\\models.db", "Q:models.db", "\\\\nowhere\\share\\models.db"):
        assert raises(StoreNotFoundError, Storage(path).list)
    assert raises(InvalidPathError, lambda: Storage("\\\\nowhere"))


def raises(kind: type[Exception], function: object) -> bool:
    """Return whether a call raises an error of this kind."""
    try:
        function()  # type: ignore[operator]
    except kind:
        return True
    return False


def a_share(prefix: str) -> None:
    """A store on a share is the same by each of its names, and doctor warns of it. Wine has shares in a folder."""
    os.makedirs("Z:" + prefix.replace("/", "\\") + "\\dosdevices\\unc\\views_runs\\share", exist_ok=True)
    store = Storage("\\\\views_runs\\share\\models.db")
    store.store("m", LARGE, overwrite=True)
    assert Storage("//views_runs/share/models.db").fetch("m") == LARGE
    assert Storage("\\\\?\\UNC\\views_runs\\share\\models.db").fetch("m") == LARGE
    [finding] = [one for one in store.doctor() if one.topic == "file system"]
    assert finding.state == "warning" and finding.text.startswith("a network drive at \\\\views_runs\\share"), finding


def open_files(store: Storage) -> None:
    """Nothing replaces a file that another process has open; that is an error, and the file stays as it is."""
    file = store.download("small", "open.pickle")
    before = file.read_bytes()
    with file.open("rb"):
        assert raises(DownloadError, lambda: store.download("large", file, overwrite=True))
        assert file.read_bytes() == before
    assert not [name for name in os.listdir() if name.startswith(".views_runs")]
    store.download("large", file, overwrite=True)
    assert file.stat().st_size > 3_000_000


def work(store: Storage, name: str, count: int) -> None:
    """Store models of one and of several parts, and print the name of each once it is acknowledged."""
    for number in range(count):
        store.store(f"{name}-{number}", [name, number, LARGE if number % 3 == 0 else b""])
        print(f"{name}-{number}", flush=True)


def start(store: Storage, name: str, count: int) -> "subprocess.Popen[str]":
    """Start a process that stores."""
    command = [sys.executable, __file__, str(store.path), name, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def count_found(store: Storage, acknowledged: list[str]) -> int:
    """Return how many of the acknowledged models are there, whole."""
    models = [(name.split("-"), store.fetch(name)) for name in acknowledged]
    return sum(model[:2] == [name, int(number)] for (name, number), model in models)


def at_once(store: Storage) -> None:
    """Let two processes store while this one fetches; nothing is lost or kept from the reader."""
    both = [start(store, name, 24) for name in ("ann", "bob")]
    fetched, waited = 0, 0.0
    while any(process.poll() is None for process in both):
        started = time.monotonic()
        assert store.fetch("large") == LARGE
        fetched, waited = fetched + 1, max(waited, time.monotonic() - started)
    acknowledged = [name for process in both for name in process.communicate()[0].split()]
    found = count_found(store, acknowledged)
    print(f"two at once: {len(acknowledged)} acknowledged, {found} there; meanwhile {fetched} fetches, {waited:.1f} s")
    assert len(acknowledged) == found == 48 and fetched


def kill_some(store: Storage) -> None:
    """Kill processes that store while another does; what they acknowledged is there, and doctor says what stays."""
    beside, acknowledged = start(store, "dan", BESIDE), list[str]()
    for number in range(KILLS):
        process = start(store, f"cid{number}", 1000)
        assert process.stdout
        acknowledged += [process.stdout.readline().strip() for _ in range(4 + number)]
        time.sleep(random.uniform(0, 0.1))
        process.kill()
        acknowledged += process.communicate()[0].split()
    others = beside.communicate()[0].split()
    found = count_found(store, acknowledged), count_found(store, others)
    print(f"{KILLS} killed: {len(acknowledged)} acknowledged, {found[0]} there; beside them {len(others)}, {found[1]}")
    assert (len(acknowledged), len(others)) == found and found[0] >= KILLS * 4 and found[1] == BESIDE
    assert store.verify().damaged == ()
    left = [one.text for one in store.doctor() if one.topic == "uploads in progress"]
    assert all("cannot be determined on Windows and macOS" in text for text in left), left


#: Fills a journal, changes the file, and ends before the transaction does.
DIE = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.executescript("PRAGMA journal_mode = PERSIST; PRAGMA cache_size = 1; BEGIN")
for number in range(9):
    connection.execute("INSERT INTO required_fields VALUES (?)", (f"{number}" + "x" * 30_000,))
os.kill(os.getpid(), 9)
"""


def roll_back(store: Storage) -> None:
    """Nobody can remove a killed process's journal while another connection has it open, and that one rolls it back."""
    with database.connect(store.path, 10) as connection:
        # This opens the journal; on Windows, SQLite keeps it open.
        with connection.transaction():
            connection.change("DELETE FROM required_fields")
        subprocess.run([sys.executable, "-c", DIE, str(store.path)])
        assert database.is_hot(companion(store.path, "-journal"))
        line = [sys.executable, "-m", "views_runs", "model", "--store", str(store.path), "list", "-q", "small"]
        other = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        time.sleep(2)
        assert other.poll() is None and connection.value("SELECT count(*) FROM required_fields") == 0
        assert other.communicate() == ("small\n", ""), other
    assert store.required() == [] and store.verify().damaged == ()


def main() -> None:
    """Do all of it in the current folder."""
    if len(sys.argv) > 1:
        work(Storage(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
        return
    print(f"{sys.platform}, Python {sys.version.split()[0]}")
    store = Storage(Path("models.db"))
    main_job(store)
    command_line(store)
    open_files(store)
    at_once(store)
    kill_some(store)
    roll_back(store)
    unusual_paths()
    if prefix := os.environ.get("WINEPREFIX"):
        a_share(prefix)


if __name__ == "__main__":
    main()
