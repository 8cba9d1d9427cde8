"""What proves that a checkpoint is whole: its files are on the disk, and a manifest tells the SHA-256 of each.

Syncing and hashing take as long as writing does on a fast disk. So both are done in threads while training goes on, and
the checkpoint counts from the moment its manifest is there; until then a resumed run takes the one before.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NotRequired, TypedDict

from stepgrpo_lab.engines.distributed import all_gather, is_main_process, process_count
from stepgrpo_lab.engines.files import read_json, sync, write_atomically
from stepgrpo_lab.method.records import from_json

Verify = Literal["full", "sizes"]
"""How a checkpoint is proven: SHA-256 and length of every file, or its length alone."""

MANIFEST = "manifest.json"
MARK = "CheckpointManifest"
"""Stands in the trainer state of a checkpoint that gets a manifest: those of version 0.1 have neither."""

_RANK = re.compile(r"(?:^rng_state_|rank_?|^__)(\d+)")
"""In the names of what each process writes for itself: generators, DeepSpeed's and FSDP's shards."""


class Proof:
    """The proof of one checkpoint that was just written; begins at once.

    Every process makes one and proves the files that it wrote itself.

    Args:
        checkpoint: The folder.
        verify: What to note of each file.
    """

    def __init__(self, checkpoint: Path, verify: Verify) -> None:
        self.checkpoint = checkpoint
        self.verify = verify
        files = [path for path in _files(checkpoint) if _written_by(path) == int(os.environ.get("RANK", "0"))]
        self._waiting = iter(files)
        self._entries: dict[str, Any] = {}
        self._error: BaseException | None = None
        workers = min(len(files), os.cpu_count() or 1)
        # Daemons: whoever stops at once shall not wait for them.
        self._threads = [threading.Thread(target=self._prove, daemon=True) for _ in range(workers)]
        self._left = workers
        self._leaving = threading.Lock()
        for thread in self._threads:
            thread.start()

    @property
    def running(self) -> bool:
        """Whether this process still works at it."""
        return any(thread.is_alive() for thread in self._threads)

    def finish(self) -> None:
        """Wait for the threads of every process, all of which must call, and write what is left of the manifest.

        Raises:
            OSError: A file cannot be brought to the disk, or read; there is no manifest then.
        """
        for thread in self._threads:
            thread.join()
        if self._error is not None:
            raise self._error
        if process_count() > 1:
            gathered = all_gather(self._entries)
            if is_main_process():
                self._write({name: entry for entries in gathered for name, entry in entries.items()})

    def _prove(self) -> None:
        try:
            for path in self._waiting:
                sync(path)
                self._entries[path.relative_to(self.checkpoint).as_posix()] = _entry(path, self.verify)
        except BaseException as error:
            self._error = error
        with self._leaving:
            self._left -= 1
            if self._left or self._error is not None or process_count() > 1:
                return
        try:
            self._write(self._entries)  # the last thread out; with several processes, finish() gathers
        except BaseException as error:
            self._error = error

    def _write(self, entries: dict[str, Any]) -> None:
        for folder in {path.parent for path in _files(self.checkpoint)}:
            sync(folder)
        write_atomically(self.checkpoint / MANIFEST, json.dumps({"files": dict(sorted(entries.items()))}, indent=1))
        sync(self.checkpoint.parent)


def manifest_damage(checkpoint: Path, verify: Verify, *, required: bool) -> str | None:
    """What a checkpoint's files have that its manifest denies, in words; None if they agree.

    Args:
        checkpoint: The folder.
        verify: "sizes" believes contents of the right length.
        required: Whether a checkpoint without a manifest is damaged.
    """
    path = checkpoint / MANIFEST
    if not path.exists():
        return f"{MANIFEST} is missing, so its files may not have reached the disk" if required else None
    try:
        files = read_json(path, _listed, "remove the checkpoint")
    except (OSError, ValueError):
        return f"{MANIFEST} is damaged"
    for name, (size, _) in files.items():
        if not (checkpoint / name).is_file():
            return f"{name} is missing"
        if (checkpoint / name).stat().st_size != size:
            return f"{name} has {(checkpoint / name).stat().st_size} bytes instead of {size}"
    hashed = [name for name, (_, digest) in files.items() if digest is not None and verify == "full"]
    with ThreadPoolExecutor() as pool:
        digests = pool.map(lambda name: _sha256(checkpoint / name), hashed)
        wrong = [name for name, digest in zip(hashed, digests, strict=True) if digest != files[name][1]]
    return f"{wrong[0]} is not what was written (its SHA-256 differs)" if wrong else None


class _Entry(TypedDict):
    bytes: int
    sha256: NotRequired[str | None]


class _Manifest(TypedDict):
    files: dict[str, _Entry]


def _listed(value: Any) -> dict[str, tuple[int, str | None]]:
    """Length and digest of each file that a manifest lists."""
    files = from_json(_Manifest, value)["files"]
    if not files:
        raise ValueError("it lists no file")
    return {_inside(name): (entry["bytes"], entry.get("sha256")) for name, entry in files.items()}


def _inside(name: str) -> str:
    """The name of a file below the checkpoint."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        raise ValueError(f"{name!r} lies elsewhere")
    return name


def _files(checkpoint: Path) -> list[Path]:
    return sorted(path for path in checkpoint.rglob("*") if path.is_file() and path.name != MANIFEST)


def _written_by(path: Path) -> int:
    """The rank of the process that wrote a file of a checkpoint."""
    found = _RANK.search(path.name)
    return int(found[1]) % process_count() if found else 0


def _entry(path: Path, verify: Verify) -> dict[str, Any]:
    size = {"bytes": path.stat().st_size}
    return {**size, "sha256": _sha256(path)} if verify == "full" else size


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
