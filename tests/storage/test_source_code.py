from __future__ import annotations

import types
from concurrent.futures import ThreadPoolExecutor

import pytest

from storage import source_code
from storage.source_code import source_digest


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Writes modules of a small project and gives the digest of one of them."""
    monkeypatch.setattr(source_code, "ROOT", tmp_path)

    def write_and_digest(files, start):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        module = types.ModuleType(start)
        module.__file__ = str(tmp_path / start)
        source_digest.cache_clear()
        source_code._read_source.cache_clear()
        return source_digest(module)

    yield write_and_digest
    source_digest.cache_clear()
    source_code._read_source.cache_clear()


FILES = {
    "tasks/__init__.py": "",
    "tasks/fit.py": "import numpy\nfrom tasks.graph import nodes\nfrom storage import files\n",
    "tasks/graph.py": "def nodes():\n    import tasks.names\n",
    "tasks/names.py": "x = 1\n",
    "tasks/unrelated.py": "x = 1\n",
    "storage/__init__.py": "",
    "storage/files.py": "import tasks.fit\n",
    "flows/job.py": "import tasks.fit\n",
}


@pytest.mark.parametrize(
    ("changed", "counts"),
    [
        ("tasks/fit.py", True),
        ("tasks/graph.py", True),
        ("tasks/names.py", True),
        ("storage/files.py", True),
        ("tasks/unrelated.py", False),
        ("flows/job.py", False),
    ],
)
def test_what_a_module_imports_counts_however_far_and_nothing_else(project, changed, counts):
    before = project(FILES, "tasks/fit.py")
    assert project(FILES, "tasks/fit.py") == before
    after = project(FILES | {changed: FILES[changed] + "# changed\n"}, "tasks/fit.py")
    assert (after != before) == counts


def test_many_threads_find_the_same_at_once():
    paths = sorted((source_code.ROOT / "tasks").rglob("*.py")) * 2
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda path: list(source_code._imported_names(path.read_bytes())), paths))
    assert found[: len(paths) // 2] == found[len(paths) // 2 :]
    assert any("tasks.knowledge.graph" in names for names in found)


def test_a_package_stands_for_all_its_modules_and_templates(project):
    before = project(FILES, "tasks/__init__.py")
    more = project(FILES | {"tasks/unrelated.py": "x = 2\n"}, "tasks/__init__.py")
    template = project({"tasks/prompts/ask.jinja": "{{ question }}"}, "tasks/__init__.py")
    assert len({before, more, template}) == 3


def test_a_renamed_module_is_another_digest(project):
    first = project({"tasks/a.py": "import tasks.b\n", "tasks/b.py": "x = 1\n"}, "tasks/a.py")
    second = project({"tasks/a.py": "import tasks.c\n", "tasks/c.py": "x = 1\n"}, "tasks/a.py")
    assert first != second


def test_the_projects_own_imports_are_found():
    import tasks.summer

    source_digest(tasks.summer)
    waiting, names = list(source_code._own_files(source_code.Path(tasks.summer.__file__))), set()
    while waiting:
        path = waiting.pop()
        if path not in names:
            names.add(path)
            waiting += source_code._read_source(path)[1]
    found = {str(path.relative_to(source_code.ROOT)) for path in names}
    assert {"tasks/knowledge/graph.py", "storage/answers.py"} <= found
    assert not any(name.startswith(("flows", "deployments", "tests")) for name in found)
