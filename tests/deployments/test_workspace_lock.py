"""The workspace's lock: held while something serves it, free afterwards."""

from __future__ import annotations

import pytest
from filelock import FileLock

from deployments.up import _lock
from flows import prefect_server as server
from storage.errors import InputError
from tests.storage.test_locks import is_free


def test_what_serves_a_workspace_leaves_it_to_the_next(tmp_path, monkeypatch):
    """In the same process too: its end is not the only thing that frees a lock."""
    path = tmp_path / "prefect" / "server.lock"
    with _lock(tmp_path):
        assert not is_free(path)
        with pytest.raises(InputError, match="has this workspace"), _lock(tmp_path):
            pytest.fail("two at once")
    assert is_free(path)
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "home"))
    with (
        FileLock(path),
        pytest.raises(server.ServerError, match="another job"),
        server.prefect_server(tmp_path),
    ):
        pytest.fail("two at once")
    monkeypatch.setattr(server, "_wait_until_up", lambda *_: None)
    with server.prefect_server(tmp_path):
        assert not is_free(path)
    assert is_free(path)
