"""The answer ledger: whole parts, nothing lost when a process is killed, one writer."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from storage import answers
from storage.answers import Answer, AnswerLedger, answer_key, prompt_digest, read_answers, read_rows
from storage.errors import StorageError
from tests.language_models import count_statuses

ROOT = Path(__file__).parents[2]


def key(number: int) -> str:
    return answer_key(
        prompt_digest([{"role": "user", "content": f"question {number}"}]),
        vote=0,
        seed=number,
        generation={},
        model="m",
        revision="r",
    )


def answer(number: int, status: str = "ok", text: str = "yes") -> Answer:
    return Answer(key(number), 0, number, "m", status, text=text)


def rows(folder: Path) -> dict[str, dict]:
    """The last row of each key."""
    return {row["key"]: row for batch in read_answers(folder) for row in batch.to_pylist()}


def test_what_was_added_is_there_again_and_the_later_of_two_counts(tmp_path):
    with AnswerLedger(tmp_path) as ledger:
        ledger.add(answer(1, "error", ""))
        ledger.add(answer(2, text="No.\n\tBecause \u00e9"))
        assert not ledger.is_done(key(1))
        assert ledger.is_done(key(1), ask_again=())
        assert ledger.is_done(key(2))
    with AnswerLedger(tmp_path) as ledger:
        assert (ledger.status(key(1)), ledger.status(key(2)), ledger.status(key(3))) == ("error", "ok", None)
        ledger.add(answer(1))
    assert rows(tmp_path)[key(1)]["status"] == "ok"
    assert rows(tmp_path)[key(2)]["text"] == "No.\n\tBecause \u00e9"
    assert count_statuses(tmp_path) == {"ok": 2}
    assert not list(tmp_path.glob("journal-*"))


@pytest.mark.parametrize("field", ["prompt", "vote", "seed", "generation", "model", "revision"])
def test_all_that_an_answer_depends_on_is_in_its_key(field):
    base = {
        "prompt": prompt_digest([{"role": "user", "content": "q"}]),
        "vote": 0,
        "seed": 1,
        "generation": {"temperature": 0.6},
        "model": "m",
        "revision": "main",
    }
    other = base | {field: {"generation": {"temperature": 0.7}, "vote": 1, "seed": 2}.get(field, "other")}
    keys = {answer_key(options.pop("prompt"), **options) for options in (dict(base), dict(other), dict(base))}
    assert len(keys) == 2


def test_a_part_is_due_after_so_many_answers_or_so_long(tmp_path, monkeypatch):
    monkeypatch.setattr(answers, "PART_ANSWERS", 3)
    with AnswerLedger(tmp_path) as ledger:
        for number in range(3):
            assert not ledger.part_is_due
            ledger.add(answer(number))
        assert ledger.part_is_due
        ledger.write_part()
        assert len(list(tmp_path.glob("part-*.parquet"))) == 1
        ledger.add(answer(4))
        assert not ledger.part_is_due
        monkeypatch.setattr(answers, "PART_SECONDS", 0.0)
        assert ledger.part_is_due


def test_one_process_writes_at_a_time(tmp_path):
    with AnswerLedger(tmp_path), pytest.raises(StorageError, match="another process"):
        AnswerLedger(tmp_path).__enter__()


def test_another_process_is_waited_for_where_there_is_time(tmp_path):
    assert not answers.is_taken(tmp_path / "nowhere")
    opened, enough = threading.Event(), threading.Event()

    def write_first():
        with AnswerLedger(tmp_path) as ledger:
            ledger.add(answer(1))
            opened.set()
            enough.wait(10)

    first = threading.Thread(target=write_first)
    first.start()
    assert opened.wait(10)
    assert answers.is_taken(tmp_path)
    threading.Timer(0.5, enough.set).start()
    with AnswerLedger(tmp_path, patience=math.inf) as second:
        second.add(answer(2))
    first.join()
    assert not answers.is_taken(tmp_path)
    assert count_statuses(tmp_path) == {"ok": 2}


WRITER = """
import sys
from tests.storage.test_answers import answer
from storage import answers
answers.PART_ANSWERS = 50
with answers.AnswerLedger(sys.argv[1]) as ledger:
    for number in range(1_000_000):
        ledger.add(answer(number))
        print(number, flush=True)
        if ledger.part_is_due:
            ledger.write_part()
"""


def test_a_process_killed_anywhere_loses_no_answer_it_had(tmp_path):
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    for _ in range(180):
        process.stdout.readline()
    os.kill(process.pid, signal.SIGKILL)
    said = 180 + len(process.stdout.read().split())
    process.wait()
    parts = list(tmp_path.glob("part-*.parquet"))
    assert parts
    assert all(pq.read_table(part).num_rows == 50 for part in parts)
    with AnswerLedger(tmp_path) as ledger:
        # One more may have been kept than the process had the time to say.
        assert len(ledger) in {said, said + 1}
        assert all(ledger.is_done(key(number)) for number in range(said))
        time.sleep(0.001)
    assert len(rows(tmp_path)) == len(ledger)


def test_a_line_torn_in_writing_is_no_answer(tmp_path):
    with AnswerLedger(tmp_path) as ledger:
        ledger.add(answer(1))
        journal = next(tmp_path.glob("journal-*"))
        whole = journal.read_text()
    (tmp_path / "journal-1-x.jsonl").write_text(whole.replace(key(1), key(2)) + whole[: len(whole) // 2])
    with AnswerLedger(tmp_path) as ledger:
        assert (len(ledger), ledger.status(key(2))) == (2, "ok")


def test_half_a_surrogate_pair_in_a_reply_is_replaced_and_blocks_nothing(tmp_path):
    half = json.loads('"yes \\ud83d"')
    with AnswerLedger(tmp_path) as ledger:
        ledger.add(answer(1, text=half))
        ledger.add(Answer(key(2), 0, 2, "m", "error", error=half))
        journal = next(tmp_path.glob("journal-*")).read_text()
    assert rows(tmp_path)[key(1)]["text"] == rows(tmp_path)[key(2)]["error"] == "yes ?"
    # The same where a killed process left it in its journal.
    left = journal.replace("yes ?", "yes \\ud83d").replace(key(1), key(3))
    (tmp_path / "journal-1-x.jsonl").write_text(left)
    with AnswerLedger(tmp_path) as ledger:
        assert ledger.status(key(3)) == "ok"
    assert rows(tmp_path)[key(3)]["text"] == "yes ?"


def test_a_failure_does_not_come_over_an_answer_with_a_text(tmp_path):
    ways = {1: "length", 2: "ok", 3: "empty", 4: "error"}
    with AnswerLedger(tmp_path) as ledger:
        for number, way in ways.items():
            ledger.add(answer(number, way, "so far" if way in answers.WITH_TEXT else ""))
        for number in ways:
            ledger.add(answer(number, "error", ""))
        now = [ledger.status(key(number)) for number in ways]
        assert now == ["length", "ok", "error", "error"]
    with AnswerLedger(tmp_path) as ledger:
        assert [ledger.status(key(number)) for number in ways] == now
        ledger.add(answer(1, "ok", "all of it"))
    read = {key: (status, text) for text, key, status in read_rows(tmp_path, ("text", "key", "status"))}
    assert [read[key(number)] for number in ways] == [
        ("ok", "all of it"),
        ("ok", "so far"),
        ("error", ""),
        ("error", ""),
    ]


def test_a_full_disk_is_said_in_a_sentence_and_what_was_kept_stays(tiny_disk):
    folder = tiny_disk(300)
    with pytest.raises(StorageError, match="disk is full"), AnswerLedger(folder) as ledger:  # noqa: PT012
        for number in range(10_000):
            ledger.add(answer(number, text=os.urandom(400).hex()))
    # Whatever else went wrong, answers whose line was whole can still be read.
    assert list(folder.glob("journal-*")) or list(folder.glob("part-*"))


def test_a_part_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "part-1-broken.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(StorageError, match="part-1-broken"):
        AnswerLedger(tmp_path).__enter__()
    # The failed opening has given its lock back.
    (tmp_path / "part-1-broken.parquet").unlink()
    with AnswerLedger(tmp_path) as ledger:
        assert len(ledger) == 0
