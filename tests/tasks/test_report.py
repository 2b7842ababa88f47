import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from tasks.expression.calibration import small_p_share
from tasks.labels.label_tables import make_labels
from tasks.report import drawing
from tasks.report.calibration_figures import null_calibration, truth_figure
from tasks.report.comparison_sections import comparison_sections, leaderboard_table, published_table
from tasks.report.evidence_section import evidence_section
from tasks.report.knock_down_figure import idle_guides, knock_down
from tasks.report.label_sections import label_sections
from tasks.report.page import Report, Section, format_value, report_html, write_report
from tasks.report.predictor_figures import leaderboard_figure, rate_by_score_tenth, reliability
from tasks.report.screen_figures import de_genes_per_perturbation, most_responsive, volcano
from tasks.report.set_section import set_section
from tasks.scoring.intervals import leaderboard
from tasks.scoring.metrics import auroc_per_gene

EVIL = "<script>$x$_&\"'"
#: What makes a pair DE.
RULE = {"fdr": 0.05, "min_log2_fold_change": 0.1}


def de_tests(perturbations=8, genes=60, seed=0):
    rng = np.random.default_rng(seed)
    pert, gene = np.divmod(np.arange(perturbations * genes), genes)
    p_value = rng.random(len(pert)) ** (1 + 6 * (rng.random(len(pert)) < 0.2))
    p_value[0] = 0.0
    fold_change = rng.normal(size=len(pert))
    return pd.DataFrame(
        {
            "pert": np.array([f"G{i}" for i in pert], dtype=object),
            "gene": np.array([f"G{i}" for i in gene], dtype=object),
            "n_pert": 50,
            "n_control": 500,
            "mean_pert": 1.0,
            "mean_control": 1.0,
            "log2_fold_change": fold_change,
            "direction": np.sign(fold_change),
            "log10_p_value": np.log10(np.maximum(p_value, 1e-320)),
            "u_statistic": 0.0,
            "p_value": p_value,
            "p_adj": np.minimum(1, p_value * 20),
        }
    )


def perturbation_table(perturbations=8):
    number = np.arange(perturbations)
    excluded = number % 7 == 6
    return pd.DataFrame(
        {
            "perturbation": [f"G{i}" for i in number],
            "n_cells": 20 + 13 * number,
            "n_guides": 2,
            "target_measured": number != 1,
            "target_log2_fold_change": np.where(number == 1, np.nan, -1.5),
            "target_remaining": np.where(number == 1, np.nan, (number % 10) / 8),
            "status": np.where(excluded, "excluded", "kept"),
            "reason": np.where(excluded, "fewer than 40 cells", ""),
            "n_up": np.where(excluded, np.nan, number * 3),
            "n_down": np.where(excluded, np.nan, number),
        }
    )


def evidence_table(perturbations=8):
    table = perturbation_table(perturbations)
    number = np.arange(perturbations)
    known = {"n_not_de": 30 + number, "n_uncertain": 5, "n_unmeasured": 20 - number % 20}
    return table.assign(**known, guides_compared=2, guide_agreement=np.where(number % 3, 0.8, np.nan))


AGREEMENT = {"guide_agreement": 0.75, "guide_agreement_pairs": 1234, "guide_agreement_not_de": 0.25}

SETS = pd.DataFrame(
    {
        "gene_set": ["cell cycle", "tiny"],
        "n_genes": [6, 4],
        "n_measured": [3, 1],
        "missing": ["A1, A2, A3", "B1, B2, B3"],
        "status": ["kept", "excluded"],
        "reason": ["", "1 of 4 genes measured, fewer than 3"],
        "n_up": pd.array([7, pd.NA], "Int64"),
        "n_down": pd.array([2, pd.NA], "Int64"),
    }
)


def text_of(*sections):
    return re.sub(r"\s+", " ", report_html(Report("t", sections=sections)))


def guide_table(perturbations):
    return pd.DataFrame(
        {
            "perturbation": perturbations["perturbation"],
            "guide": perturbations["perturbation"] + "_1",
            "n_cells": perturbations["n_cells"] // 2,
            "target_remaining": perturbations["target_remaining"],
        }
    )


def scored_pairs(signal, n=400, seed=0):
    rng = np.random.default_rng(seed)
    label = (rng.random(n) < 0.3).astype(np.int8)
    return pd.DataFrame(
        {
            "pert": [f"P{i}" for i in np.arange(n) // 20],
            "gene": [f"G{i}" for i in np.arange(n) % 20],
            "label": label,
            "score": signal * label + rng.normal(size=n),
        }
    )


TRUTH = pd.DataFrame(
    {
        "group": ["all", "0-0.5", "0.5+"],
        "n_true": [90, 60, 30],
        "n_called": [50, 20, 25],
        "false_discovery_rate": [0.1, np.nan, np.nan],
        "power": [0.5, 0.3, 0.8],
    }
)


def task_sections(predictors, *, published=None, task="de", name=""):
    return comparison_sections(
        task,
        leaderboard({name: [fit] for name, fit in predictors.items()}, draws=20),
        scored_by_predictor=predictors,
        per_gene={predictor: auroc_per_gene(scored) for predictor, scored in predictors.items()},
        published=published,
        name=name,
    )


def full_report():
    perturbations = perturbation_table()
    sections = label_sections(
        de_tests(),
        perturbations,
        **RULE,
        guides=guide_table(perturbations),
        null_tests=de_tests(seed=1),
        truth_check=TRUTH,
        counts={"cells": 12345},
    )
    predictors = {"graph": scored_pairs(1.0), EVIL: scored_pairs(0.2)}
    sections += task_sections(predictors, published={"SUMMER": 0.62, "graph": 0.55}, name="K562")
    return Report("A screen", ["first line", "second line"], [("cells", 12345), ("seed", 0)], sections)


@pytest.fixture(scope="module")
def html():
    return report_html(full_report())


def test_nothing_is_loaded_and_nothing_runs(html):
    assert "http:" not in html
    assert "https:" not in html
    assert "<script" not in html
    assert "<link" not in html
    assert "@import" not in html
    loads = re.findall(r'(?:src|href|xlink:href)="([^"]*)"|url\(([^)]*)\)', html)
    assert loads
    assert all((first or second).startswith(("#", "data:image/png;base64,")) for first, second in loads)


def test_ids_are_unique_and_every_reference_has_one(html):
    ids = re.findall(r'\bid="([^"]*)"', html)
    assert len(ids) == len(set(ids))
    references = set(re.findall(r'href="#([^"]*)"', html)) | set(re.findall(r"url\(#([^)]*)\)", html))
    assert references <= set(ids)


def test_every_figure_is_well_formed_svg(html):
    drawings = re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL)
    assert len(drawings) == 8
    for drawn in drawings:
        ElementTree.fromstring(drawn)


def test_the_page_holds_its_parts(html):
    for part in (
        "12,345",
        "second line",
        "fewer than 40 cells",
        "SUMMER",
        "K562, DE or not: scores",
        "Known truth",
    ):
        assert part in html
    assert "prefers-color-scheme: dark" in html
    assert "@media print" in html


def test_names_are_escaped(html):
    assert "&lt;script&gt;$x$_&amp;" in html


def test_the_same_input_gives_the_same_bytes(tmp_path, html):
    report = full_report()
    first = write_report(tmp_path / "a.html", report).read_bytes()
    assert first == html.encode()
    assert write_report(tmp_path / "b" / "again.html", report).read_bytes() == first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.html", "b"]


def test_missing_parts_are_left_out():
    sections = label_sections(de_tests(), perturbation_table().drop(index=6), **RULE)
    assert [section.title for section in sections] == ["Screen", "Knock-down", "Differential expression"]
    sections += task_sections({"only": scored_pairs(0.5)}, task="dir")
    html = report_html(Report("t", sections=sections))
    assert "Up or down: scores" in html
    assert "Excluded perturbations" not in html
    assert "Hollow diamonds" not in html


def test_a_report_may_be_empty():
    assert "<h1>t</h1>" in report_html(Report("t"))


@pytest.mark.filterwarnings("error")
def test_no_gene_with_both_classes_is_shown_as_a_dash():
    predictors = {"a": scored_pairs(1.0).assign(label=0), "b": scored_pairs(0.0).assign(label=0)}
    sections = task_sections(predictors)
    table = leaderboard_table(leaderboard({name: [fit] for name, fit in predictors.items()}, draws=5))
    assert list(table["95% interval"]) == ["-", "-"]
    html = report_html(Report("t", facts=[("best", np.nan)], sections=sections))
    assert "<dd>-</dd>" in html
    assert "no gene with both classes" in html
    assert ">nan<" not in html


def test_an_unknown_task_is_refused():
    with pytest.raises(ValueError, match="task must be one of de, dir"):
        comparison_sections("both", pd.DataFrame(), scored_by_predictor={}, per_gene={})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.62349, "0.623"),
        (-1.2345, "-1.23"),
        (45.67, "45.7"),
        (12345.6, "12,346"),
        (310385, "310,385"),
        (np.int64(1000), "1,000"),
        (3.21e-9, "3.2e-09"),
        (0.0, "0"),
        (np.nan, "-"),
        (np.inf, "inf"),
        (None, "-"),
        (pd.NA, "-"),
        (True, "yes"),
        ("TP53", "TP53"),
    ],
)
def test_values_are_written_with_three_digits(value, text):
    assert format_value(value) == text


def test_long_tables_are_cut_and_say_so():
    table = ("rows", pd.DataFrame({"n": range(1000)}), "A note.")
    html = report_html(Report("t", sections=[Section("s", tables=[table])]))
    assert "A note. The first 300 of 1,000 rows are shown." in html
    assert html.count("<tr>") == 301
    assert '<td class="number">299</td>' in html


def test_tables_without_rows_say_none():
    html = report_html(Report("t", sections=[Section("s", tables=[("c", pd.DataFrame({"a": []}), "")])]))
    assert "<td colspan=" in html


@pytest.mark.parametrize("perturbations", [8, 60])
def test_screen_figures_take_small_and_large_screens(perturbations):
    table = perturbation_table(perturbations)
    for figure in (
        de_genes_per_perturbation(table),
        knock_down(table, guide_table(table)),
        knock_down(table),
        volcano(de_tests(perturbations), [f"G{i}" for i in range(6)], **RULE),
    ):
        assert isinstance(figure, Figure)
        assert len(drawing.svg_text(figure, "f")) > 1000


@pytest.mark.filterwarnings("error")
def test_figures_of_nothing_say_so():
    table = perturbation_table()
    none = table.head(0)
    for figure in (
        volcano(de_tests().head(0), [], **RULE),
        de_genes_per_perturbation(none),
        knock_down(none, guide_table(none)),
        null_calibration(de_tests().head(0)),
        truth_figure(TRUTH.assign(power=np.nan, false_discovery_rate=np.nan), fdr=0.05),
    ):
        assert re.search(r">no |nothing to count", drawing.svg_text(figure, "f"))


def test_volcano_shows_the_perturbations_asked_for():
    text = drawing.svg_text(volcano(de_tests(), ["G3", "G5"], **RULE), "f")
    assert "G3: " in text
    assert "G5: " in text
    assert "G4: " not in text


@pytest.mark.parametrize("rule", [RULE, {"fdr": 0.3, "min_log2_fold_change": 0.8}])
def test_volcano_titles_count_what_the_label_rule_counts(rule):
    tests = de_tests()
    made = make_labels(tests.groupby("pert"), **rule, negative_min_p=0.5)
    shown = drawing.svg_text(volcano(tests, ["G2", "G5"], **rule), "f")
    counts = made.counts.set_index("perturbation")
    for name in ("G2", "G5"):
        assert f"{name}: {counts['n_up'][name]} up, {counts['n_down'][name]} down" in shown


def test_the_text_names_the_rule_that_made_the_calls():
    rule = {"fdr": 0.1, "min_log2_fold_change": 0.5}
    page = text_of(*label_sections(de_tests(), perturbation_table(), **rule, truth_check=TRUTH))
    assert "adjusted p-value is below 0.1 and their log2 fold change is at least 0.5" in page
    assert "below 0.05" not in page
    assert "nominal: 10%" in page


@pytest.mark.parametrize(("share", "warned"), [(0.3, True), (0.05, False), (None, False), (np.nan, False)])
def test_a_shift_of_the_median_gene_in_many_perturbations_is_warned_of(share, warned):
    calibration = AGREEMENT | {"perturbations_shifted": share}
    table = evidence_table(8)
    page = text_of(*label_sections(de_tests(), table, **RULE, calibration=calibration))
    assert ("Caution: in 30% of the perturbations the median" in page) == warned


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("perturbations", [8, 60])
def test_the_evidence_behind_labels_is_counted_and_worded(perturbations):
    table = evidence_table(perturbations)
    section = evidence_section(table, AGREEMENT, detectable=1.0, guides_known=True)
    text = text_of(section)
    assert "the test finds a log2 fold change of 1, up or down, in four of five cases" in text
    assert (
        "In 75% of 1,234 DE calls all guides of the perturbation change the gene in the same direction"
        in text
    )
    assert "against 25% of the pairs that are not DE, about what chance gives" in text
    kept = table[table["status"] == "kept"]
    shown = section.tables[0][1].set_index("kind of pair")["pairs"]
    assert shown["not measured well enough"] == kept["n_unmeasured"].sum()
    assert shown["DE"] == kept["n_up"].sum() + kept["n_down"].sum()
    assert section.tables[0][1]["share"].sum() == pytest.approx(1)


def test_the_report_says_where_guides_or_what_could_be_seen_are_not_known():
    none = {"guide_agreement": None, "guide_agreement_pairs": 0, "guide_agreement_not_de": None}
    table = evidence_table().assign(guide_agreement=np.nan)
    unknown = text_of(evidence_section(table, none, detectable=0.0, guides_known=False))
    assert "Which guide is in which cell is not known (--guide-key names its column)" in unknown
    assert "may be labelled 0 even if no change could have been detected (--detectable 0)" in unknown
    assert "no guides could be compared" in unknown
    few = text_of(evidence_section(table.head(0), none, detectable=1.0, guides_known=True))
    assert "No perturbation with DE genes has two guides with enough cells" in few
    assert "no perturbation was kept" in few


def test_gene_sets_are_listed_with_what_is_missing():
    text = text_of(set_section(SETS, {"set_null_share_p_below_05": 0.031, "set_null_de_calls": 2}))
    assert "3.1% of the sets&#39; p-values are below 0.05 (5% expected) and 2 sets are called DE" in text
    for words in ("cell cycle", "A1, A2, A3", ">7<", "1 of 4 genes measured, fewer than 3"):
        assert words in text
    assert "false perturbations" not in text_of(set_section(SETS, {}))


def test_the_perturbations_drawn_are_those_with_the_most_de_genes():
    table = perturbation_table(9)
    assert most_responsive(table)["perturbation"].tolist()[:3] == ["G8", "G7", "G5"]


def test_guides_that_leave_their_target_are_listed_worst_first():
    guides = pd.DataFrame({"guide": list("abcd"), "target_remaining": [0.7, 0.1, 1.2, np.nan]})
    assert list(idle_guides(guides)["guide"]) == ["c", "a"]


def test_share_of_small_p_values():
    # The last gene is not expressed: its p-value says nothing.
    means = {"mean_pert": [1, 1, 1, 0, 2, 0], "mean_control": [1, 0, 1, 3, 1, 0]}
    tests = pd.DataFrame({"p_value": [0.01, 0.5, np.nan, 0.9, 0.04, 1.0]} | means)
    assert small_p_share(tests) == 0.5
    assert np.isnan(small_p_share(tests.iloc[[2, 5]]))


def test_tenths_of_the_score_keep_equal_scores_together():
    scored = pd.DataFrame({"label": [0, 1] * 50, "score": [0.0] * 80 + [1.0] * 20})
    tenths = rate_by_score_tenth(scored)
    assert list(tenths["n"]) == [80, 20]
    assert list(tenths["rate"]) == [0.5, 0.5]
    assert list(tenths["centre"]) == pytest.approx([0.4, 0.9])
    even = rate_by_score_tenth(scored_pairs(1.0))
    assert list(even["n"]) == [40] * 10
    assert ((even["low"] < even["rate"]) & (even["rate"] < even["high"])).all()


def test_many_predictors_get_a_panel_each():
    predictors = {f"p{i}": scored_pairs(0.1 * i, seed=i) for i in range(7)}
    assert sum(ax.get_visible() for ax in reliability(predictors).axes) == 7


def test_a_published_method_shares_the_row_of_its_namesake():
    table = leaderboard({"GAT": [scored_pairs(0.5)]}, draws=5)
    figure = leaderboard_figure(table, {"GAT": 0.53, "SUMMER": 0.99})
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == ["SUMMER", "GAT"]


def test_predictors_are_held_against_published_figures():
    board = leaderboard({"GAT": [scored_pairs(0.5)]}, draws=20)
    table = published_table(board, {"SUMMER": 0.62, "MLP": 0.5}).iloc[0]
    assert table["minus SUMMER (0.62)"] == pytest.approx(board["auroc"].iloc[0] - 0.62)
    assert "MLP" not in " ".join(map(str, table.index))
    titles = [caption for caption, *_ in _sections(board, {"SUMMER": 0.62})[0].tables]
    assert titles == ["Scores, best first", "Against published figures"]
    assert len(_sections(board, None)[0].tables) == 1


def _sections(board, published):
    scored = {"GAT": scored_pairs(0.5)}
    per_gene = {name: auroc_per_gene(pairs) for name, pairs in scored.items()}
    return comparison_sections(
        "de", board, scored_by_predictor=scored, per_gene=per_gene, published=published
    )
