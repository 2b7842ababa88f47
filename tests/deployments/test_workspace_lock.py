"""The workspace's lock: held while something serves it, free afterwards."""

from __future__ import annotations

import pytest
from filelock import BaseFileLock, FileLock

from deployments.up import _lock
from flows import prefect_server as server
from storage.errors import InputError
from tests.storage.test_locks import is_free


@pytest.fixture
def lock_file(tmp_path, monkeypatch):
    """The workspace's, made; what its holder does not release nobody collects."""
    monkeypatch.setattr(BaseFileLock, "__del__", lambda self: None)
    path = tmp_path / "prefect" / "server.lock"
    path.parent.mkdir()
    return path


def test_what_serves_a_workspace_leaves_it_to_the_next(tmp_path, lock_file):
    with _lock(tmp_path):
        assert not is_free(lock_file)
        with pytest.raises(InputError, match="has this workspace"), _lock(tmp_path):
            pytest.fail("two at once")
    assert is_free(lock_file)


def test_the_server_of_a_job_leaves_its_workspace_to_the_next(tmp_path, lock_file, monkeypatch):
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "home"))
    refused = pytest.raises(server.ServerError, match="another job")
    with FileLock(lock_file), refused, server.prefect_server(tmp_path):
        pytest.fail("two at once")
    monkeypatch.setattr(server, "_wait_until_up", lambda *_: None)
    with server.prefect_server(tmp_path):
        assert not is_free(lock_file)
    assert is_free(lock_file)
