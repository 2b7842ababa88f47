"""One process at a time, whoever comes second: waiting, or refused."""

from __future__ import annotations

import threading

import pytest
from filelock import FileLock, Timeout

from storage.errors import InputError
from storage.locks import only_one


def is_free(path) -> bool:
    try:
        with FileLock(path, timeout=0):
            return True
    except Timeout:
        return False


def test_who_comes_second_waits_and_says_so(tmp_path):
    path, said, done = tmp_path / "a.lock", threading.Event(), threading.Event()

    def second():
        with only_one(path, said.set):
            done.set()

    with only_one(path, lambda: pytest.fail("nobody else is there")):
        thread = threading.Thread(target=second)
        thread.start()
        assert said.wait(60)
        assert not done.is_set()
    thread.join(60)
    assert done.is_set()
    assert is_free(path)


def test_who_must_not_wait_raises_and_leaves_the_lock_to_the_first(tmp_path):
    path = tmp_path / "a.lock"

    def refuse():
        raise InputError("a", ["taken"])

    with FileLock(path):
        with pytest.raises(InputError, match="taken"), only_one(path, refuse):
            pytest.fail("two at once")
        assert not is_free(path)
    with only_one(path, refuse):
        pass
    assert is_free(path)
