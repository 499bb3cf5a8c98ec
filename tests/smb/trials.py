"""Try what users do with a store on two mounts of an SMB share: trials.py DEFAULT NOBRL, two folders with a store."""

import sys
import tempfile
import time
from pathlib import Path

import shares

from views_runs import Storage

#: Seconds that a refusal may take: all is emulated here.
SOON = 30.0


def main(default: str, nobrl: str) -> None:
    """Read and fail to write through both; then be alone with the file."""
    own = Path(tempfile.mkdtemp())
    for folder in (default, nobrl):
        store = Storage(Path(folder) / "models.db")
        for name, trial in shares.READING.items():
            assert trial(store, own), name
        print("these work:", ", ".join(shares.READING))
        for name, trial in shares.WRITING.items():
            be_refused(store, name, trial, own)
        findings = store.doctor(peer=True, say=lambda text: None)
        print(f"doctor --peer: {findings[-1].text}. {findings[-1].advice}")
        assert findings[-1].topic == "coherence" and findings[-1].state == "failure" and "SMB" in findings[-1].text
        failed = [finding.topic for finding in findings if finding.state == "failure"]
        assert failed == ["file system", *(["locks"] if folder == default else []), "coherence"], failed
    alone = Storage(Path(default) / "models.db", allow_unsafe_share=True)
    for name in ("store", "annotate", "backup"):
        be_refused(alone, f"{name}, allowed", shares.WRITING[name], own)
    write_alone(Path(nobrl))


def be_refused(store: Storage, name: str, trial: shares.Trial, own: Path) -> None:
    """Be refused, soon, with a message that says what to do."""
    message, took = shares.refused(store, trial, own)
    print(f"refused in {took:.1f} s: {name}: {message}")
    assert took < SOON and "on this SMB share (cifs at /mnt/" in message and "NFS 4.2" in message


def write_alone(folder: Path) -> None:
    """Write to the store, and to a new one."""
    began, store = time.monotonic(), Storage(folder / "models.db", allow_unsafe_share=True)
    assert store.store("large", bytes(3_000_000)).version == 1 and store.annotate("large", note="x")
    assert store.fetch("large") == bytes(3_000_000) and store.delete("large") is None
    assert store.verify().damaged == () and store.backup(folder / "copy.db").versions == 1
    assert Storage(folder / "new.db", allow_unsafe_share=True).store("m", 1).version == 1
    print(f"stored, annotated, fetched, deleted, verified and backed up in {time.monotonic() - began:.1f} s")


main(*sys.argv[1:])
