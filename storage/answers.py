"""The answer ledger: every answer of a language model, kept the moment it comes and never asked for again.

A ledger is a folder. Answers are appended to a journal as they come, one JSON line each, and every so often
the journal becomes one more Parquet part, written whole or not at all. So a process that is killed loses the
answers that were on their way and no other: the journal it leaves is read back by the next one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from storage.atomic import atomic_path, disk_errors
from storage.errors import StorageError

Status = Literal["ok", "length", "error", "empty"]
#: Ways to end that come with a text.
WITH_TEXT = ("ok", "length")
#: Held by the one process that writes.
LOCK = ".writer.lock"
#: Most answers, and most seconds, between two parts.
PART_ANSWERS = 1000
PART_SECONDS = 60.0
#: Rows read at once.
BATCH = 4096

SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("vote", pa.int32()),
        ("seed", pa.int64()),
        ("model", pa.string()),
        ("status", pa.string()),
        ("text", pa.string()),
        ("finish_reason", pa.string()),
        ("prompt_tokens", pa.int64()),
        ("output_tokens", pa.int64()),
        ("cached_tokens", pa.int64()),
        ("seconds", pa.float64()),
        ("tries", pa.int32()),
        ("error", pa.string()),
        ("answered_at", pa.timestamp("ms", tz="UTC")),
    ]
)


@dataclass(frozen=True)
class Answer:
    """What came of one request.

    Attributes
    ----------
    status
        ``ok``: ended by itself; ``length``: cut off at the token limit; ``empty``: no text; ``error``: none.
    finish_reason
        As the engine gave it; empty where it gave none.
    prompt_tokens, output_tokens, cached_tokens
        As counted by the engine, -1 where it did not say.
    seconds
        From the last try's beginning to its end.
    tries
        How often it was sent.
    error
        Why there is no answer, in a sentence.
    """

    key: str
    vote: int
    seed: int
    model: str
    status: Status
    text: str = ""
    finish_reason: str = ""
    prompt_tokens: int = -1
    output_tokens: int = -1
    cached_tokens: int = -1
    seconds: float = 0.0
    tries: int = 1
    error: str = ""


def prompt_digest(messages: Sequence[Mapping[str, str]]) -> str:
    """Hexadecimal SHA-256 over the turns of a conversation."""
    return hashlib.sha256(json.dumps(list(messages), sort_keys=True).encode()).hexdigest()


def answer_key(
    prompt: str,
    *,
    vote: int,
    seed: int,
    generation: Mapping[str, object],
    model: str,
    revision: str,
) -> str:
    """Hexadecimal SHA-256 over all that an answer depends on; ``prompt`` is a `prompt_digest`."""
    content = [prompt, vote, seed, dict(generation), model, revision]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def short_key(key: str) -> bytes:
    """Half of a key's bytes: as good as unique among billions, at half the memory."""
    return bytes.fromhex(key[:32])


class AnswerLedger:
    """All answers kept in one folder, open to one writer at a time; to be used in a ``with`` block.

    Adding is safe from several threads. In memory there are some 100 bytes an answer (which keys are done),
    and the answers since the last part.

    Parameters
    ----------
    folder
        Made if it is not there.
    patience
        Seconds to wait for another process that writes in it.

    Raises
    ------
    StorageError
        If the folder cannot be written, or another process writes in it.
    """

    def __init__(self, folder: Path | str, *, patience: float = 0.0):
        self.folder, self._patience = Path(folder), patience
        self._lock = FileLock(self.folder / LOCK)
        self._statuses: dict[bytes, str] = {}
        self._pending: list[dict] = []
        self._journal: IO[str] | None = None
        self._since = time.monotonic()
        self._guard = threading.Lock()

    def __enter__(self) -> AnswerLedger:
        try:
            with disk_errors(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
                self._lock.acquire(timeout=-1 if self._patience == math.inf else self._patience)
        except Timeout as error:
            raise StorageError(
                f"another process writes answers to {self.folder}; wait for it, or choose another folder"
            ) from error
        try:
            self._recover()
            self._statuses = {
                short_key(key): status for key, status in read_rows(self.folder, ("key", "status"))
            }
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.write_part()
        finally:
            self._lock.release()

    def __len__(self) -> int:
        return len(self._statuses)

    def status(self, key: str) -> Status | None:
        """How the request with this key ended that counts, as of `read_rows`; None if there was none."""
        return self._statuses.get(short_key(key))

    def is_done(self, key: str, *, ask_again: Sequence[str] = ("error",)) -> bool:
        """Whether a request with this key need not be sent: it ended in none of the ways of ``ask_again``."""
        status = self.status(key)
        return status is not None and status not in ask_again

    def add(self, answer: Answer) -> None:
        """Keep an answer: it is safe from the end of this process when this returns."""
        row = _encodable(asdict(answer) | {"answered_at": int(time.time() * 1000)})
        with self._guard:
            if self._journal is None:
                self._journal = self._new_journal()
            with disk_errors(self.folder):
                self._journal.write(json.dumps(row) + "\n")
                self._journal.flush()
            self._pending.append(row)
            key = short_key(answer.key)
            if answer.status != "error" or self._statuses.get(key) not in WITH_TEXT:
                self._statuses[key] = answer.status

    @property
    def part_is_due(self) -> bool:
        """Whether enough answers, or enough time, have come together for a part."""
        waited = time.monotonic() - self._since
        return len(self._pending) >= PART_ANSWERS or (bool(self._pending) and waited >= PART_SECONDS)

    def write_part(self) -> None:
        """Turn the answers since the last part into a part; nothing happens where there are none."""
        with self._guard:
            rows, journal = self._pending, self._journal
            self._pending, self._journal, self._since = [], None, time.monotonic()
        if journal is not None:
            # Every answer that was kept has been flushed; one that was refused may be left in the buffer.
            with contextlib.suppress(OSError):
                journal.close()
            _write_part(self.folder, rows)
            # Only now: between the two a row stands in both, which reading takes for one.
            Path(journal.name).unlink(missing_ok=True)

    def _new_journal(self) -> IO[str]:
        path = self.folder / f"journal-{time.time_ns()}-{uuid.uuid4().hex[:8]}.jsonl"
        with disk_errors(path):
            return path.open("w", encoding="utf-8")

    def _recover(self) -> None:
        """Turn journals that a killed process left into parts; a line torn in writing was never an answer."""
        for path in sorted(self.folder.glob("journal-*.jsonl")):
            rows = []
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    rows.append(_encodable(json.loads(line)))
                except ValueError:
                    continue
            if rows:
                _write_part(self.folder, rows)
            path.unlink()


def read_answers(folder: Path | str, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Read the parts of a ledger, oldest first, a few thousand answers at a time.

    A key that was asked again stands in it more than once; the later row is the one that counts, unless it
    failed and an earlier one has a text: see `read_rows`.
    """
    for path in _parts(Path(folder)):
        try:
            with pq.ParquetFile(path) as file:
                yield from file.iter_batches(BATCH, columns=list(columns) if columns else None)
        except (OSError, pa.ArrowInvalid) as error:
            reason = str(error).splitlines()[0]
            raise StorageError(
                f"{path} is not a readable part of an answer ledger ({reason}); move it away and run the "
                "same command again: its answers are then asked for once more"
            ) from error


def read_rows(folder: Path | str, columns: Sequence[str]) -> Iterator[tuple]:
    """The answers of a ledger one by one, as tuples of some columns; order as of `read_answers`.

    Where an answer with a text was asked for again and that failed, the failure is left out.
    """
    with_text: set[bytes] = set()
    for batch in read_answers(folder, list(dict.fromkeys(("key", "status", *columns)))):
        read = {name: batch.column(name).to_pylist() for name in {"key", "status", *columns}}
        rows = zip(*(read[name] for name in columns), strict=True)
        for key, status, row in zip(map(short_key, read["key"]), read["status"], rows, strict=True):
            if status in WITH_TEXT:
                with_text.add(key)
            if status != "error" or key not in with_text:
                yield row


def is_taken(folder: Path | str) -> bool:
    """Whether another process writes to a ledger now."""
    if not Path(folder).is_dir():
        return False
    try:
        with FileLock(Path(folder) / LOCK, timeout=0):
            return False
    except Timeout:
        return True


def _parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("part-*.parquet"))


def _encodable(row: Mapping[str, object]) -> dict[str, object]:
    """A row whose words can be written: half of a surrogate pair, which JSON allows, becomes a "?"."""
    return {
        name: value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
        for name, value in row.items()
    }


def _write_part(folder: Path, rows: Sequence[Mapping]) -> None:
    table = pa.Table.from_pylist([dict(row) for row in rows], schema=SCHEMA)
    # Names sort in the order of writing, also over restarts.
    with atomic_path(folder / f"part-{time.time_ns():020d}-{uuid.uuid4().hex[:8]}.parquet") as temporary:
        pq.write_table(table, temporary, compression="zstd")
