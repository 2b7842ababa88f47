from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest

from tasks.summer.material import Material
from tasks.summer.templates import Prompts


@pytest.fixture
def material(tmp_path) -> Material:
    pd.DataFrame({"source_gene": ["A"], "target_gene": ["B"], "relation": ["binds"]}).to_parquet(
        tmp_path / "edges_string.parquet"
    )
    return Material(
        tmp_path, noncommercial=False, max_links=1000, prompts=Prompts.load(), cell_line="", sets={}
    )


@pytest.mark.parametrize("change", [{"noncommercial": True}, {"max_links": 10}], ids=str)
def test_what_is_read_of_the_knowledge_is_part_of_its_digest(material, change):
    assert replace(material).digests == material.digests
    other = replace(material, **change).digests
    assert other["knowledge"] != material.digests["knowledge"]
    assert {**other, "knowledge": ""} == {**material.digests, "knowledge": ""}


def test_gene_sets_are_nodes_of_the_graph_that_neighbours_are_looked_for_in(material):
    assert not material.graph.members
    with_sets = replace(material, sets={"a set": ("A",)})
    assert with_sets.graph.genes[with_sets.graph.is_set].tolist() == ["a set"]
    assert with_sets.graph.adjacency.shape[0] == material.graph.adjacency.shape[0] + 1
    assert with_sets.digests["gene sets"] != material.digests["gene sets"]
