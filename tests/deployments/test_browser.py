"""What a person sees and does, in a real browser: press Run, read tables, compare two runs, open the report.

``PQA_SCREENSHOTS=docs/images`` puts pictures of the pages there.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import TimeoutError as TooLateError
from playwright.sync_api import sync_playwright

from tests.deployments.served import LONG, ROOT, Up, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3 * LONG)]
SCREEN = "papalexi2021_thp1_crisprko"


@pytest.fixture(scope="module")
def page():
    """A page of Debian's chromium, without a head."""
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("no chromium on this machine; Debian's package is enough")
    with sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = opened.new_page(viewport={"width": 1280, "height": 860})
        page.set_default_timeout(1000 * LONG / 3)
        hosts = page.asked_hosts = set()
        page.on("request", lambda request: hosts.add(urlsplit(request.url).hostname))
        yield page
        opened.close()


def picture(page, name: str) -> None:
    """Keep what the page shows now, where pictures are asked for."""
    if folder := os.environ.get("PQA_SCREENSHOTS"):
        page.wait_for_timeout(1500)
        (ROOT / folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=Path(ROOT / folder, f"{name}.png"))


def box(page, title: str):
    """A form's box by its title, as Prefect draws it."""
    label = page.locator(".schema-form-property__label", has_text=title)
    return page.locator(".p-label").filter(has=label).last


def close_assistant(page) -> None:
    """Close the panel that MLflow opens beside its pages."""
    close = page.locator("[data-assistant-ui]").get_by_role("button", name="Close").first
    # It comes a moment after the page, and not again once it was closed.
    with contextlib.suppress(TooLateError):
        close.click(timeout=5000)


def follow_summary(page, up: Up, run: str, link: str) -> None:
    """Go where a link of a run's summary in Prefect leads."""
    page.goto(f"{up.prefect}/runs/flow-run/{run}")
    page.get_by_text("Artifacts", exact=True).first.click()
    page.get_by_text("summary-small").first.click()
    page.goto(page.get_by_role("link", name=link).get_attribute("href"))


def compare(page, *names: str) -> None:
    """Tick runs in MLflow's list, press Compare, and wait for the chart."""
    for name in names:
        page.get_by_role("row").filter(has_text=name).first.get_by_role("checkbox").first.check(force=True)
    page.get_by_role("button", name="Compare").click()
    page.get_by_text(f"Comparing {len(names)} Runs").first.wait_for()
    chart = page.locator(".js-plotly-plot svg, svg.main-svg").first
    chart.wait_for()
    assert chart.bounding_box()["width"] > 200


@pytest.fixture(scope="module")
def run(up: Up, page, data_folder) -> str:
    """A run of *label a screen* that was filled in and started in the browser; its id, when it has ended."""
    if not (data_folder / "screens").exists():
        pytest.skip("no real screens; set PQA_SHARED to the folder that holds them")
    page.goto(up.prefect)
    page.get_by_text("Deployments", exact=True).first.click()
    page.get_by_role("link", name="label a screen").first.wait_for()
    picture(page, "prefect-deployments")
    page.get_by_role("link", name="label a screen").first.click()
    page.get_by_role("button", name="Run", exact=True).click()
    page.get_by_text("Custom run").click()
    picked = page.get_by_role("button", name="embedded").first
    picked.focus()
    page.keyboard.press("ArrowDown")
    page.get_by_role("option", name=SCREEN).click()
    box(page, "Guide column").locator("textarea").fill("guide_id")
    box(page, "Batch column").locator("textarea").fill("batch")
    page.get_by_role("button", name=SCREEN).first.evaluate("box => box.scrollIntoView({block: 'center'})")
    picture(page, "prefect-form")
    page.get_by_role("button", name="Submit").click()

    def started() -> list[dict]:
        found = up.ask("flow_runs/filter", flow_runs={"parent_task_run_id": {"is_null_": True}})
        return [one for one in found if SCREEN in str(one["parameters"].get("screen"))]

    (pressed,) = wait_for(started)
    given = pressed["parameters"]
    # Boxes that were left empty say nothing.
    assert given["columns"]["guide_key"] == "guide_id"
    assert "layer" not in given["columns"]
    ended = up.end_of(pressed["id"])
    assert ended["state"]["type"] == "COMPLETED", ended["state"]
    return pressed["id"]


def test_a_form_is_filled_in_and_its_run_shows_stages_and_tables(up: Up, page, run):
    page.goto(f"{up.prefect}/runs/flow-run/{run}")
    page.get_by_text(f"label screens/{SCREEN}").first.wait_for()
    page.get_by_text("Finished in state Completed").first.wait_for()
    picture(page, "prefect-run")
    page.get_by_text("Task Runs", exact=True).first.click()
    for stage in ("ingest counts", "quality control", "test expression", "make labels"):
        page.get_by_text(stage).first.wait_for()
    page.get_by_text("Artifacts", exact=True).first.click()
    page.get_by_text(f"quality-{SCREEN.replace('_', '-')}").first.click()
    page.get_by_text("IFNGR1").first.wait_for()
    page.get_by_text("target_remaining").first.wait_for()
    picture(page, "prefect-quality")
    page.go_back()
    page.get_by_text("Artifacts", exact=True).first.click()
    page.get_by_text(f"ledger-{SCREEN.replace('_', '-')}").first.click()
    page.get_by_text("not done before").first.wait_for()


def test_two_runs_are_compared_in_mlflow(up: Up, page, run):
    small = up.start("label a screen", screen="small")
    assert up.end_of(small)["state"]["type"] == "COMPLETED"
    follow_summary(page, up, small, "Beside all other screens")
    page.get_by_text("Model metrics").first.wait_for()
    close_assistant(page)
    page.locator(".js-plotly-plot").first.wait_for()
    picture(page, "mlflow-charts")
    compare(page, f"{SCREEN} wilcoxon", "small wilcoxon")
    page.get_by_text("labels_de").first.wait_for()


def test_figures_of_a_benchmark_are_on_its_runs_page(up: Up, page, compared):
    page.goto(f"{up.prefect}/runs/flow-run/{compared['id']}")
    page.get_by_text("Artifacts", exact=True).first.click()
    page.get_by_text("figures-small").first.click()
    for name in ("leaderboard-de", "leaderboard-dir", "knock-down", "calibration"):
        drawn = page.locator(f"img[alt='{name}']").first
        drawn.wait_for()
        assert drawn.evaluate("image => image.naturalWidth") > 1000
    picture(page, "prefect-figures")


def test_predictors_are_compared_in_mlflow(up: Up, page, compared):
    follow_summary(page, up, compared["id"], "Predictors side by side, task de")
    page.get_by_text("retrieval de").first.wait_for()
    close_assistant(page)
    compare(page, "retrieval de", "gat de", "prior de")
    page.get_by_role("button", name="Clear All").click()
    for at, names in enumerate((["predictor"], ["auroc", "pooled_auroc", "fit_seconds"])):
        for name in names:
            select = page.get_by_role("combobox").nth(at)
            select.click()
            select.fill(name)
            page.get_by_role("option", name=name, exact=True).first.wait_for(state="attached")
            page.keyboard.press("Enter")
        page.keyboard.press("Escape")
    page.locator("svg.main-svg").get_by_text("fit_seconds").first.wait_for()
    picture(page, "mlflow-compare")


def test_the_best_predictor_is_in_the_model_registry(up: Up, page, compared):
    page.goto(f"{up.mlflow}/#/models/perturbqa-small-de?workflowType=machine_learning")
    close_assistant(page)
    page.get_by_text("Version 1").first.wait_for()
    page.get_by_text("@ best").first.wait_for()
    picture(page, "mlflow-model")
    page.get_by_role("link", name="Version 1").first.click()
    page.get_by_text("Inputs (3)").first.wait_for()
    page.get_by_text("Outputs (1)").first.wait_for()


def test_the_report_opens_from_the_run(up: Up, page, run):
    address = up.artifacts(run)[f"report-{SCREEN.replace('_', '-')}"]["data"]
    page.goto(address.partition("(")[2].rstrip(")") or address)
    close_assistant(page)
    report = page.frame_locator("iframe").first
    report.get_by_role("heading", name="Knock-down").first.wait_for()
    picture(page, "report")


def test_nothing_was_asked_of_the_network(page, run):
    assert page.asked_hosts <= {"127.0.0.1", None, ""}
