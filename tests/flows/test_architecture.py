"""Who may import whom: flows -> tasks -> storage, and never back."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("flows", "tasks", "storage", "deployments")
FORBIDDEN = {
    "storage": {"tasks", "flows", "deployments", "prefect"},
    "tasks": {"flows", "deployments", "prefect", "mlflow", "prefect_dask"},
    "flows": {"deployments"},
}
SOURCES = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]


#: The packages of tasks by whom they may import, beside themselves.
PACKAGES = {
    "screens": set(),
    "expression": {"screens"},
    "labels": {"expression"},
    "knowledge": set(),
    "scoring": set(),
    "predictors": {"knowledge", "scoring", "screens"},
    "summer": {"knowledge", "predictors"},
    "report": {"expression", "knowledge", "predictors", "scoring"},
}


def name_of(path):
    return str(path.relative_to(ROOT))


def tree_of(path):
    return ast.parse(path.read_text(), filename=str(path))


def imported(path):
    """Top-level names of everything a module imports, wherever in it."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)} imports relatively"
            yield node.module.partition(".")[0]


def test_there_is_something_to_look_at():
    assert len(SOURCES) > 50
    assert "mlflow" in set(imported(ROOT / "storage" / "tracking.py"))


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_arrows_between_rooms_point_one_way(path):
    room = path.relative_to(ROOT).parts[0]
    assert not set(imported(path)) & FORBIDDEN.get(room, set())


def packages_imported(path):
    """Packages of tasks that a module imports."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        inner = (name.split(".")[1] for name in names if name.startswith("tasks."))
        # Single modules beside the packages are for all of them.
        yield from (name for name in inner if (ROOT / "tasks" / name).is_dir())


@pytest.mark.parametrize("package", PACKAGES)
def test_arrows_between_packages_of_tasks_make_no_circle(package):
    """What is listed after another may import it, never the other way round."""
    assert {path.parent.name for path in (ROOT / "tasks").glob("*/__init__.py")} == set(PACKAGES)
    found = {name for path in (ROOT / "tasks" / package).rglob("*.py") for name in packages_imported(path)}
    assert found - {package} <= PACKAGES[package]
    order = list(PACKAGES)
    assert all(order.index(other) < order.index(package) for other in PACKAGES[package])


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_only_the_tracking_room_knows_mlflow(path):
    if path != ROOT / "storage" / "tracking.py":
        assert "mlflow" not in set(imported(path))


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_no_error_is_caught_without_a_name_unless_it_is_raised_again(path):
    for node in ast.walk(tree_of(path)):
        if not isinstance(node, ast.ExceptHandler):
            continue
        kinds = {name.id for name in ast.walk(node.type) if isinstance(name, ast.Name)} if node.type else {""}
        if kinds & {"", "Exception", "BaseException"}:
            last = node.body[-1]
            assert isinstance(last, ast.Raise), f"{name_of(path)}:{node.lineno}"
            assert last.exc is None, f"{name_of(path)}:{node.lineno}"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_importing_a_module_computes_nothing(path):
    """At the top of a module there are definitions; calls there only make constants and loggers."""
    allowed = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Assign)
    allowed += (ast.AnnAssign,)
    for node in tree_of(path).body:
        text = ast.unparse(node)
        if isinstance(node, ast.Expr):
            fine = isinstance(node.value, ast.Constant) or text.startswith("logging.getLogger(")
        elif isinstance(node, ast.If):
            fine = text.startswith(("if __name__ ==", "if TYPE_CHECKING"))
        else:
            fine = isinstance(node, allowed)
        assert fine, f"{name_of(path)}:{node.lineno}: {text.splitlines()[0]}"


def test_a_worker_that_tests_genes_starts_without_pandas():
    """It would spend a third of its start on what it never uses."""
    asked = "import sys, tasks.expression.blocks; print({'pandas', 'pyarrow', 'anndata'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout == "set()\n"
