from __future__ import annotations

import json

import pytest

from storage.errors import InputError
from storage.gene_sets import read_gene_sets


def test_sets_are_read_in_order_with_each_symbol_once(tmp_path):
    path = tmp_path / "sets.json"
    path.write_text(json.dumps({"b": ["Y", "X", "Y"], "a": ["Z"]}))
    read = read_gene_sets(path)
    assert list(read) == ["b", "a"]
    assert read == {"b": ("X", "Y"), "a": ("Z",)}


@pytest.mark.shared_data
def test_the_published_sets_can_be_read(shared_data):
    sets = read_gene_sets(shared_data / "gene_sets" / "k562_set-mapping.json")
    assert len(sets) == 25
    assert len(sets["1-mitochondrial respiratory chain"]) == 15


def test_everything_wrong_is_in_one_message(tmp_path):
    path = tmp_path / "sets.json"
    path.write_text('{"a": ["X"], "a": ["Y"], " ": ["X"], "b": [], "c": "X", "d": ["X", 3, ""]}')
    with pytest.raises(InputError) as error:
        read_gene_sets(path)
    assert error.value.problems == (
        "set 'a' is there 2 times",
        "a set has an empty name",
        "set 'b' is not a list of gene symbols, or an empty one",
        "set 'c' is not a list of gene symbols, or an empty one",
        "set 'd' has 2 members that are no symbols: [3, '']",
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "the file holds a list; a JSON object of sets is needed"),
        ("{}", "the file holds an empty object"),
    ],
)
def test_other_files_are_refused(tmp_path, text, message):
    (tmp_path / "sets.json").write_text(text)
    with pytest.raises(InputError, match=message):
        read_gene_sets(tmp_path / "sets.json")
    with pytest.raises(InputError, match="cannot be read"):
        read_gene_sets(tmp_path / "elsewhere.json")
