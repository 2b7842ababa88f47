"""The vote parser against what models really write, and against properties that hold for any text."""

from __future__ import annotations

import re

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.summer.votes import OUTCOMES, count_votes, parse_vote, vote_rates

WORDS = {
    "de": {"yes": ("yes",), "no": ("no",), "insufficient": ("insufficient evidence", "insufficient")},
    "dir": {
        "yes": ("increase", "increased", "up-regulated", "upregulation"),
        "no": ("decrease", "decreases", "down-regulated", "downregulation"),
        "insufficient": ("insufficient evidence", "not enough information"),
    },
}
# Prose that holds no choice, in the manner of an explanation.
PROSE = (
    "1. The observed knock-downs of ribosomal genes share a complex with it.",
    "2. MYC targets follow cell growth, so their mRNA is sensitive to stress.",
    "There is no direct path from one to the other, and nobody has shown one.",
    "Notes on the evidence: 3 of 5 observations agree.",
    "- It ends up in the nucleolus, going down the gradient is not needed.",
    "The question asks whether knock-down changes the gene.",
)
# The beginning of a reply in channels: thought, and not the answer.
ANALYSIS = "<|channel|>analysis<|message|>Final answer: no"


@st.composite
def choices(draw):
    task = draw(st.sampled_from(["de", "dir"]))
    outcome = draw(st.sampled_from(["yes", "no", "insufficient"]))
    word = draw(st.sampled_from(WORDS[task][outcome]))
    return task, outcome, draw(st.sampled_from([str.lower, str.capitalize, str.upper]))(word)


@st.composite
def well_formed(draw):
    """An answer as asked for, with the decorations that models add."""
    task, outcome, word = draw(choices())
    before = "\n".join(draw(st.lists(st.sampled_from(PROSE), max_size=4)))
    label = draw(
        st.sampled_from(["Final answer:", "**Final answer:**", "### Final Answer:", "4. Final answer -"])
    )
    mark = draw(st.sampled_from(["{}", "**{}**", "`{}`", '"{}"', "{}.", "[{}]", "({})"]))
    gap = draw(st.sampled_from([" ", "\n", "\n\n", "  "]))
    after = draw(st.sampled_from(["", "\n", "\n\nNote: this rests on few observations, take it with care."]))
    return task, outcome, f"{before}\n{label}{gap}{mark.format(word)}{after}"


@given(well_formed())
@settings(max_examples=200, deadline=None)
def test_an_answer_as_asked_for_is_read_whatever_stands_around_it(case):
    task, outcome, text = case
    assert parse_vote(text, task) == outcome


@given(choices(), st.sampled_from(["{}", "{}.", "**{}**", "(b) {}", "3. {}", "- {}", "The answer is {}."]))
@settings(max_examples=200, deadline=None)
def test_a_bare_choice_is_read_without_its_announcement(case, form):
    task, outcome, word = case
    assert parse_vote(form.format(word), task) == outcome


@given(well_formed(), st.data())
@settings(max_examples=200, deadline=None)
def test_an_answer_cut_off_anywhere_is_never_read_as_another(case, data):
    task, outcome, text = case
    end = data.draw(st.integers(0, len(text)))
    assert parse_vote(text[:end], task, cut_off=True) in {outcome, "unparsed"}


@given(st.text(max_size=400), st.sampled_from(["de", "dir"]), st.booleans())
@settings(max_examples=200, deadline=None)
def test_any_text_has_exactly_one_outcome(text, task, cut_off):
    assert parse_vote(text, task, cut_off=cut_off) in OUTCOMES


@given(well_formed(), choices())
@settings(max_examples=200, deadline=None)
def test_two_different_final_answers_are_none(case, other):
    task, outcome, text = case
    other_task, other_outcome, word = other
    if other_task == task and other_outcome != outcome:
        assert parse_vote(f"{text}\nFinal answer: {word}", task) == "unparsed"


@given(st.permutations(["yes", "no", "insufficient evidence"]), st.sampled_from([" | ", " / ", ", ", " or "]))
def test_choices_that_are_only_listed_again_are_no_answer(order, joint):
    assert parse_vote(f"Final answer: {joint.join(order)}", "de") == "unparsed"
    lines = "\n".join(f"{number}. {choice}" for number, choice in enumerate(order, 1))
    assert parse_vote(f"The choices are:\n{lines}", "de") == "unparsed"
    for choice, outcome in (("yes", "yes"), ("no", "no"), ("insufficient evidence", "insufficient")):
        assert parse_vote(f"The choices are:\n{lines}\n\nFinal answer: {choice}", "de") == outcome
        assert parse_vote(f"Final answer ({joint.join(order)}): {choice}", "de") == outcome


@pytest.mark.parametrize(
    ("text", "task", "outcome"),
    [
        ("", "de", "unparsed"),
        ("   \n\n", "dir", "unparsed"),
        ("I'm sorry, but I cannot help with that.", "de", "unparsed"),
        ("As a language model I have no access to experiments.", "de", "unparsed"),
        ("Both could be argued: yes and no.", "de", "unparsed"),
        ("Final answer: yes or no", "de", "unparsed"),
        ("Answer: yes\nAnswer: no", "de", "unparsed"),
        ("Answer: no\n... on reflection ...\nFinal answer: yes", "de", "yes"),
        ("Final answer: not yes", "de", "unparsed"),
        ("Final answer: no, insufficient evidence", "de", "unparsed"),
        ("Final answer: There is insufficient evidence to say yes or no.", "de", "insufficient"),
        ("Final answer: yes, there is no doubt about it", "de", "yes"),
        ("No, there is no evidence of a link.", "de", "no"),
        ("No gene of this family is known.", "de", "unparsed"),
        ("Final answer: Increase, because the loss of a repressor decreases decay", "dir", "yes"),
        ("Final answer: increase or decrease", "dir", "unparsed"),
        ("Final answer: it goes up after knock-down.", "dir", "yes"),
        ("Final answer: increase after knock-down", "dir", "yes"),
        ("Final answer: increase upon knocking STAT1 down", "dir", "yes"),
        ("Final answer: the knockdown brings it down", "dir", "no"),
        ("Final answer: it is affected by the knock-down", "dir", "unparsed"),
        ("Final answer: it doesn't increase", "dir", "unparsed"),
        ("Final answer: no increase", "dir", "unparsed"),
        ("Final answer: a significant increase", "dir", "yes"),
        ("so we get $\\boxed{\\text{decrease}}$", "dir", "no"),
        ("<think>final answer: no, wait</think>\nFinal answer: yes", "de", "yes"),
        ("<think>it may be that the final answer: no", "de", "unparsed"),
        ("1. Yes\n2. No\n3. Insufficient evidence\n\nNo", "de", "no"),
        ("\uff26inal answer: \uff39es", "de", "yes"),
        ("Final answer: No evidence", "de", "unparsed"),
        ("Final answer: no, the gene does not change", "de", "no"),
        ("Final answer: no the gene does not change", "de", "no"),
        ("Final answer: insufficient evidence to say yes", "de", "insufficient"),
        ("Final answer: insufficient evidence, so no", "de", "unparsed"),
        ("Final answer: increase rather than decrease", "dir", "yes"),
        ("Final answer: it does not decrease but increases", "dir", "yes"),
        ("Final answer: Increase or decrease? Decrease.", "dir", "no"),
        ("Final answer: the gene is not, as one might think, increased", "dir", "unparsed"),
        ("Final answer: <b>Yes</b>", "de", "yes"),
        ("To give a final answer, I weigh whether it increases.\nFinal answer: decrease", "dir", "no"),
        (f"Final answer: yes {',' * 60} x no", "de", "yes"),
    ],
)
def test_what_models_write(text, task, outcome):
    assert parse_vote(text, task) == outcome


@pytest.mark.parametrize(
    ("text", "task", "outcome"),
    [
        ("Final answer: no, wait</think>\nFinal answer: yes", "de", "yes"),
        ("<think>no</think> hm </think>\nyes", "de", "yes"),
        ("[THINK]Final answer: no[/THINK]Final answer: yes", "de", "yes"),
        ("<THINK>Final answer: no", "de", "unparsed"),
        (f"{ANALYSIS}<|end|><|start|>assistant<|channel|>final<|message|>yes<|return|>", "de", "yes"),
        (ANALYSIS, "de", "unparsed"),
    ],
)
def test_hidden_reasoning_is_no_answer(text, task, outcome):
    assert parse_vote(text, task) == outcome


@pytest.mark.parametrize(
    "text",
    [
        "I cannot say yes",
        "I would not say yes",
        "it isn't a yes",
        "it can\u2019t be yes",
        "unlikely to be yes",
        "yes is unlikely",
        "None of the observations suggests yes",
        "I cannot, in good conscience, say yes",
        "I would not go as far as yes",
        "no gene here suggests yes",
        "not yes",
    ],
)
@pytest.mark.parametrize("announced", ["", "Final answer: ", "My answer is: "])
def test_a_yes_that_is_denied_is_none(text, announced):
    assert parse_vote(announced + text, "de") == "unparsed"


@pytest.mark.parametrize("text", ["No doubt, yes", "yes, no doubt", "Yes. There is no question about it."])
@pytest.mark.parametrize("announced", ["", "Final answer: "])
def test_a_yes_without_a_doubt_is_one(text, announced):
    assert parse_vote(announced + text, "de") == "yes"


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("X is downregulated by Y, so its level goes up", "unparsed"),
        ("Y normally downregulates X", "unparsed"),
        ("Y normally downregulates X. Increase.", "yes"),
        ("loss of upregulation", "unparsed"),
        ("loss of upregulation, so decrease", "no"),
        ("decreased Y decreases X", "unparsed"),
        ("decreased Y increases X", "unparsed"),
        ("it increases, because less of it is downregulated", "unparsed"),
        ("increase (Y downregulates it)", "yes"),
        ("loss of the repressor increases it", "yes"),
    ],
)
def test_a_cause_is_not_taken_for_the_effect(text, outcome):
    assert parse_vote(f"Final answer: {text}", "dir") == outcome
    # What holds of one direction holds of the other.
    words = {"increas": "decreas", "upreg": "downreg", "goes up": "goes down"}
    there = words | {new: old for old, new in words.items()}
    mirrored = re.sub("|".join(there), lambda match: there[match.group()], text.lower())
    swapped = {"yes": "no", "no": "yes"}.get(outcome, outcome)
    assert parse_vote(f"Final answer: {mirrored}", "dir") == swapped


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ('{"final_answer": "yes"}', "yes"),
        ('```json\n{\n  "reasoning": "a yes would be odd",\n  "final_answer": "no"\n}\n```', "no"),
        ("final_answer: no", "no"),
        ("insufficient_evidence", "insufficient"),
        ("Final answer: insufficient_evidence", "insufficient"),
        ("<final_answer>yes</final_answer>", "yes"),
        ("It is near.\n<answer>yes</answer>", "yes"),
        ("_Yes_", "yes"),
        ("No clear change.", "no"),
        ("**No significant change.**", "no"),
        ("Final answer: no clear change", "no"),
        ("No clear change was seen after related knock-downs.", "unparsed"),
    ],
)
def test_fields_tags_and_the_questions_own_words_are_read(text, outcome):
    assert parse_vote(text, "de") == outcome


def test_a_word_at_the_very_end_of_a_cut_off_answer_may_be_the_beginning_of_another():
    assert parse_vote("Final answer: no", "de") == "no"
    assert parse_vote("Final answer: no", "de", cut_off=True) == "unparsed"
    assert parse_vote("Final answer: no\nNote: it re", "de", cut_off=True) == "no"
    assert parse_vote("yes\nand the rest of the reason", "de", cut_off=True) == "unparsed"


def votes_of(*outcomes):
    return pd.DataFrame({"pert": "P", "gene": "G", "outcome": list(outcomes)})


@given(st.lists(st.sampled_from([*OUTCOMES, None]), min_size=1, max_size=7), st.randoms())
@settings(max_examples=25, deadline=None)
def test_the_score_is_the_mean_of_the_votes_that_count_in_any_order(outcomes, random):
    row = count_votes(votes_of(*outcomes)).iloc[0]
    counting = [1.0 if outcome == "yes" else 0.0 for outcome in outcomes if outcome in {"yes", "no"}]
    assert row["score"] == pytest.approx(sum(counting) / len(counting) if counting else 0.5)
    everything = [{"yes": 1.0, "no": 0.0}.get(outcome, 0.5) for outcome in outcomes]
    assert row["score_all"] == pytest.approx(sum(everything) / len(everything))
    assert row["answered"] == bool(counting)
    shuffled = list(outcomes)
    random.shuffle(shuffled)
    pd.testing.assert_series_equal(row, count_votes(votes_of(*shuffled)).iloc[0])


def test_votes_are_kept_apart_question_by_question():
    rows = [("A", "x", "yes"), ("A", "x", "no"), ("A", "y", "insufficient"), ("B", "x", None)]
    votes = count_votes(pd.DataFrame(rows, columns=["pert", "gene", "outcome"]))
    assert list(zip(votes["pert"], votes["gene"], votes["score"], strict=True)) == [
        ("A", "x", 0.5),
        ("A", "y", 0.5),
        ("B", "x", 0.5),
    ]
    assert votes["answered"].tolist() == [True, False, False]
    rates = vote_rates(votes)
    assert rates["rate_missing"] == rates["rate_insufficient"] == 0.25
    assert sum(rates[f"rate_{kind}"] for kind in (*OUTCOMES, "missing")) == pytest.approx(1)
    assert rates["rate_answered"] == pytest.approx(1 / 3)
