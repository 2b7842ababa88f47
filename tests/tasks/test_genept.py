"""GenePT: texts become vectors, each text once; the regression is scikit-learn's."""

from __future__ import annotations

import io
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from storage.embeddings import EmbeddingStore, model_digest
from storage.errors import InputError, StorageError
from storage.manifest import file_digest
from tasks.knowledge import KnowledgeGraph, SymbolIndex
from tasks.predictors import genept, make_predictor
from tasks.predictors.genept import GenePTPredictor
from tasks.predictors.protocol import Context
from tasks.predictors.texts import embeddings as text_embeddings
from tasks.predictors.texts.embeddings import (
    find_model,
    gene_descriptions,
    model_vectors,
    tfidf_vectors,
)
from tasks.predictors.texts.pair_regression import PairRegression
from tests.conftest import ROOT

TOPICS = {
    "kinase": "phosphorylates serine and threonine residues of substrates in the cytoplasm",
    "ribosome": "structural constituent of the large subunit which translates messenger RNA",
    "channel": "transports potassium ions across the membrane when voltage changes",
    "helicase": "unwinds double stranded DNA at the replication fork using ATP",
}
WORDS = sorted({word for text in TOPICS.values() for word in text.lower().split()} | set(TOPICS))


def silent(_unit, _done, _total):
    pass


def gene_names(n=80):
    return [f"G{i:02d}" for i in range(n)]


def topic_of(name):
    return list(TOPICS)[int(name[1:]) % len(TOPICS)]


def graph_of(names):
    n = len(names)
    return KnowledgeGraph(
        symbols=SymbolIndex.build(names, {"OLD": "G01"}),
        adjacency=sparse.csr_array((n, n), dtype=np.float32),
        incidence=sparse.csr_array((n, 0), dtype=np.float32),
        terms=np.empty(0, dtype="<U1"),
        term_relations=np.empty(0, dtype="<U1"),
    )


@pytest.fixture
def folder(tmp_path):
    """Texts of all genes but G79; G78 is known by name only."""
    rng, rows = np.random.default_rng(0), []
    for name in gene_names()[:-1]:
        topic = topic_of(name)
        rows.append((name, f"{topic} {name} | gene group: {topic}s; others | protein", "hgnc_name"))
        words = TOPICS[topic].split()
        chosen = " ".join(words[i] for i in sorted(rng.choice(len(words), 6, replace=False)))
        if name != "G78":
            rows.append((name, f"This gene {chosen}.", "refseq_summary"))
    frame = pd.DataFrame(rows, columns=["gene", "description", "source"])
    frame.to_parquet(tmp_path / "gene_text.parquet")
    return tmp_path


def context_of(folder, **more):
    return Context(graph_of(gene_names()), seed=3, threads=1, folder=folder, **more)


def planted(perts, genes, seed=0):
    """1 if perturbation and gene are of the same topic, with a tenth of the labels turned."""
    rng = np.random.default_rng(seed)
    pairs = pd.DataFrame([(p, g) for p in perts for g in genes if p != g], columns=["pert", "gene"])
    same = [topic_of(p) == topic_of(g) for p, g in zip(pairs["pert"], pairs["gene"], strict=True)]
    turned = rng.random(len(pairs)) < 0.1
    return pairs.assign(label=(np.array(same) ^ turned).astype(int), source="own")


@pytest.mark.parametrize("product", [True, False])
@pytest.mark.parametrize("strength", [0.01, 3.0])
def test_regression_is_that_of_scikit_learn(product, strength):
    rng = np.random.default_rng(1)
    pert, gene = rng.normal(2, 3, (12, 4)), rng.gamma(1, 1, (30, 4))
    gene[:, 3] = 7.5
    # Unbalanced, some pairs several times over, so that standardising by table and by row differ.
    rows = rng.choice(12, 700, p=np.arange(1, 13) / 78), rng.integers(30, size=700)
    label = rng.random(700) < 1 / (1 + np.exp(2 - pert[rows[0], 0] * gene[rows[1], 0] / 3))
    label = label.astype(np.float64)
    wide = np.hstack([pert[rows[0]], gene[rows[1]]])
    if product:
        wide = StandardScaler().fit_transform(wide)
        wide = np.hstack([wide, wide[:, :4] * wide[:, 4:]])
    oracle = make_pipeline(StandardScaler(), LogisticRegression(C=strength, tol=1e-10, max_iter=5000))
    oracle.fit(wide, label)
    ours = PairRegression.fit((pert, gene), rows, label, product=product, strength=strength)
    np.testing.assert_allclose(ours.logits((pert, gene), rows), oracle.decision_function(wide), atol=2e-4)
    if not product:
        assert (ours.product == 0).all()


def test_tfidf_keeps_the_cosines_of_words():
    texts = [
        "a kinase of the membrane",
        "membrane channel",
        "kinase channel kinase",
        "nothing shared",
        "kinase",
    ]
    words = TfidfVectorizer(sublinear_tf=True, min_df=2, stop_words="english").fit_transform(texts).toarray()
    # Three words are shared by two texts: with as many factors nothing is lost.
    vectors = tfidf_vectors(texts, n_factors=50)
    assert vectors.dtype == np.float32
    assert vectors.shape == (5, words.shape[1] - 1)
    left, values, right = np.linalg.svd(words, full_matrices=False)
    kept = (left[:, :-1] * values[:-1]) @ right[:-1]
    np.testing.assert_allclose(vectors @ vectors.T, kept @ kept.T, atol=1e-5)
    assert not vectors[3].any()


def test_descriptions_are_name_groups_and_the_better_summary(tmp_path):
    rows = [
        ("A", "alpha one | gene group: Alphas; Ones | gene with protein product", "hgnc_name"),
        ("A", "Refseq on A.", "refseq_summary"),
        ("A", "Other on A. [provided by RefSeq, Jul 2008].", "ncbi_gene_summary_playdata"),
        ("B", "beta | pseudogene", "hgnc_name"),
        ("C", "On C. [provided by RefSeq, Jul 2008]. ##Evidence## more", "ncbi_gene_summary_playdata"),
        ("C", "ignored", "some other source"),
    ]
    frame = pd.DataFrame(rows, columns=["gene", "description", "source"])
    frame.to_parquet(tmp_path / "gene_text.parquet")
    texts, n_summaries = gene_descriptions(tmp_path, np.array(["A", "B", "C", "D"]))
    assert texts == ["alpha one. Alphas; Ones. Refseq on A.", "beta.", "On C.", ""]
    assert n_summaries == 2


def test_texts_that_are_not_there_are_said(tmp_path):
    with pytest.raises(InputError, match="give the knowledge folder"):
        gene_descriptions(None, np.array(["A"]))
    with pytest.raises(InputError, match=r"gene_text\.parquet is not in it"):
        gene_descriptions(tmp_path, np.array(["A"]))
    pd.DataFrame({"gene": ["A"], "text": ["x"]}).to_parquet(tmp_path / "gene_text.parquet")
    with pytest.raises(InputError, match="columns description, source are missing"):
        gene_descriptions(tmp_path, np.array(["A"]))


def test_store_gives_back_what_was_put_in(tmp_path):
    store, other = EmbeddingStore(tmp_path, "one"), EmbeddingStore(tmp_path, "two")
    assert store.find(["a", "b"]) == [None, None]
    vectors = np.arange(6, dtype=np.float64).reshape(3, 2) / 7
    store.add(["a", "b", "ä"], vectors)
    other.add(["a"], np.zeros((1, 5)))
    found = EmbeddingStore(tmp_path, "one").find(["ä", "missing", "a", "a"])
    assert found[1] is None
    np.testing.assert_array_equal(
        np.stack([found[0], found[2], found[3]]), vectors[[2, 0, 0]].astype(np.float32)
    )
    assert found[0].dtype == np.float32
    assert other.find(["a"])[0].shape == (5,)
    block = next(store.folder.glob("*.npz"))
    block.write_bytes(block.read_bytes()[:-40])
    with pytest.raises(StorageError, match="remove it"):
        store.find(["a"])


ADD = """
import sys
import numpy as np
from storage.embeddings import EmbeddingStore
first = int(sys.argv[2])
store = EmbeddingStore(sys.argv[1], "model")
for at in range(first, first + 20):
    store.add([f"text {at} {i}" for i in range(3)], np.full((3, 4), at, dtype=np.float32))
"""


def test_store_takes_two_processes(tmp_path):
    """Both write half of their blocks under the same names."""
    commands = [[sys.executable, "-c", ADD, str(tmp_path), first] for first in ("0", "10")]
    for worker in [subprocess.Popen(command, cwd=ROOT) for command in commands]:
        assert worker.wait() == 0
    store = EmbeddingStore(tmp_path, "model")
    found = store.find([f"text {at} {i}" for at in range(30) for i in range(3)])
    np.testing.assert_array_equal(np.stack(found)[:, 0], np.repeat(np.arange(30), 3))
    assert len(list(store.folder.iterdir())) == 30


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory):
    """A sentence-transformers model of two small random layers, saved as such models are."""
    models = pytest.importorskip("sentence_transformers.sentence_transformer.modules", reason="extra text")
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("tiny")
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=5 + len(WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder / "bert")
    BertTokenizerFast(str(vocabulary)).save_pretrained(folder / "bert")
    word = models.Transformer(str(folder / "bert"))
    SentenceTransformer(modules=[word, models.Pooling(16)]).save(str(folder / "model"))
    return folder / "model"


def test_model_vectors_are_the_mean_of_the_words(tiny_model, tmp_path, monkeypatch):
    import torch
    from transformers import AutoModel, AutoTokenizer

    texts = [*TOPICS.values(), "kinase", "kinase", "ribosome channel"]
    told = []
    options = {"cache": tmp_path, "threads": 1, "progress": lambda *step: told.append(step)}
    vectors = model_vectors(texts, tiny_model, **options)
    assert told == [("texts", 6, 6)]
    tokenizer, model = AutoTokenizer.from_pretrained(tiny_model), AutoModel.from_pretrained(tiny_model).eval()
    for text, vector in zip(texts, vectors, strict=True):
        with torch.no_grad():
            words = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        np.testing.assert_allclose(vector, words.mean(axis=0).numpy(), atol=1e-5)
    # A text's vector does not depend on the company it is embedded in.
    alone = model_vectors(texts[:1], tiny_model, **(options | {"cache": tmp_path / "other"}))
    assert alone.tobytes() == vectors[:1].tobytes()

    def refused(_model):
        raise AssertionError("the model was loaded although every text is known")

    monkeypatch.setattr(text_embeddings, "_load", refused)
    assert model_vectors(texts[::-1], tiny_model, **options).tobytes() == vectors[::-1].tobytes()
    with pytest.raises(AssertionError, match="although"):
        model_vectors(["a new text"], tiny_model, **options)


def test_another_model_in_the_same_place_is_another_model(tiny_model, tmp_path):
    before = model_digest(tiny_model)
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in tiny_model.rglob("*"):
        target = copy / path.relative_to(tiny_model)
        target.mkdir() if path.is_dir() else target.write_bytes(path.read_bytes())
    assert model_digest(copy) == before
    (copy / "config.json").write_text((copy / "config.json").read_text() + " ")
    assert model_digest(copy) != before


def test_models_are_found_in_the_places_named_and_nowhere_else(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"no embedding model 'no-such-model' in .*put the model's folder"):
        find_model("no-such-model", tmp_path)
    inside = tmp_path / "models" / "no-such-model"
    inside.mkdir(parents=True)
    with pytest.raises(InputError, match="no embedding model"):
        find_model("no-such-model", tmp_path)
    (inside / "config.json").write_text("{}")
    assert find_model("no-such-model", tmp_path) == inside
    assert find_model(str(inside), None) == inside
    package = tmp_path / "site" / "packaged_model"
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('finding a model must not run its package')")
    (package / "model" / "config.json").write_text("{}")
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert find_model("packaged-model", tmp_path) == package / "model"
    pytest.importorskip("sentence_transformers", reason="extra text")
    with pytest.raises(InputError, match="not a model that sentence-transformers can load"):
        model_vectors(["a"], inside, cache=tmp_path, threads=1, progress=silent)


@pytest.mark.parametrize("kind", ["tfidf", "model"])
def test_what_is_written_of_genes_predicts(kind, folder, request, tmp_path):
    options = {"embedding_model": "tfidf", "n_factors": 16, "strength": 0.1}
    if kind == "model":
        options |= {
            "embedding_model": str(request.getfixturevalue("tiny_model")),
            "cache": str(tmp_path / "c"),
        }
    names = gene_names()
    asked = planted(names[45:75], names[:40], seed=1)
    auroc = {}
    for product in (True, False):
        predictor = GenePTPredictor(product=product, **options)
        predictor.fit({"de": planted(names[:45], names[:40])}, context_of(folder))
        scores = pd.Series(predictor.predict("de", asked[["pert", "gene"]]))
        # Within a gene, as the benchmark scores.
        auroc[product] = np.mean(
            [roc_auc_score(asked["label"][rows.index], rows) for _, rows in scores.groupby(asked["gene"])]
        )
        if not product:
            # The perturbations' order is the same for every gene.
            table = asked.assign(score=scores).pivot(index="pert", columns="gene", values="score")
            order = table.loc[:, ["G00", "G01", "G02"]].round(9).rank()
            assert order["G00"].equals(order["G01"])
            assert order["G00"].equals(order["G02"])
    assert auroc[True] > 0.75
    assert abs(auroc[False] - 0.5) < 0.1


def test_genes_without_text_get_the_mean_and_are_counted(folder):
    sets = {"pair": ("G00", "OLD", "nowhere"), "strangers": ("nowhere",)}
    names = gene_names()
    rows = planted(names[:30], names[:20])
    rows.loc[len(rows)] = ["G03", "not in the graph", 1, "own"]
    predictor = GenePTPredictor(embedding_model="tfidf", n_factors=16)
    predictor.fit({"de": rows}, context_of(folder, sets=sets))
    # The sets may stand in the graph as genes, as they do for predictors that read links.
    with_sets = replace(context_of(folder, sets=sets), knowledge=graph_of([*names, *sets]))
    same = GenePTPredictor(embedding_model="tfidf", n_factors=16).fit({"de": rows}, with_sets)
    assert same.counts == predictor.counts
    pairs = pd.DataFrame({"pert": ["G40", "G41", "G79"], "gene": ["pair", "strangers", "G02"]})
    np.testing.assert_allclose(same.predict("de", pairs), predictor.predict("de", pairs), rtol=1e-6)
    assert predictor.counts == {"genes": 80, "without_summary": 2, "without_text": 1, "unknown": 1}
    texts, _ = gene_descriptions(folder, np.array(names))
    known = tfidf_vectors(texts[:-1], n_factors=16)
    mean = known.mean(axis=0)
    at = predictor._positions(np.array(["G79", "what", "OLD", "pair", "strangers"]))
    expected = np.stack([mean, mean, known[1], known[:2].mean(axis=0), mean])
    np.testing.assert_allclose(predictor._vectors[at], expected, atol=1e-6)


def test_sets_are_scored_as_their_members_mean(folder):
    names = gene_names()
    tables = {"de": planted(names[:30], names[:20]), "dir": planted(names[:30], names[:20], seed=5)}
    sets = {"kinases": tuple(names[0:20:4]), "one": ("G02",)}
    predictor = GenePTPredictor(embedding_model="tfidf", n_factors=16)
    predictor.fit(tables, context_of(folder, sets=sets))
    perts = names[40:60]
    one = predictor.predict("dir", pd.DataFrame({"pert": perts, "gene": "one"}))
    same = predictor.predict("dir", pd.DataFrame({"pert": perts, "gene": "G02"}))
    np.testing.assert_array_equal(one, same)
    scores = predictor.predict("dir", pd.DataFrame({"pert": perts, "gene": "kinases"}))
    members = [predictor.predict("dir", pd.DataFrame({"pert": perts, "gene": g})) for g in sets["kinases"]]
    # Log odds are linear in the gene's vector.
    np.testing.assert_allclose(scores, np.mean(members, axis=0), atol=1e-6)


def test_state_keeps_all_that_predict_needs(folder):
    names = gene_names()
    tables = {"de": planted(names[:30], names[:20]), "dir": planted(names[:25], names[:20], seed=5)}
    context = context_of(folder, sets={"pair": ("G00", "G01")})
    predictor = GenePTPredictor(embedding_model="tfidf", n_factors=16, strength=0.1, product=False)
    predictor.fit(tables, context)
    turned = {task: rows.sample(frac=1, random_state=2) for task, rows in tables.items()}
    again = GenePTPredictor(embedding_model="tfidf", n_factors=16, strength=0.1, product=False)
    again.fit(dict(reversed(turned.items())), replace(context, knowledge=graph_of(names)))
    file = io.BytesIO()
    np.savez(file, **predictor.state())
    file.seek(0)
    with np.load(file, allow_pickle=False) as arrays:
        loaded = GenePTPredictor.from_state(dict(arrays))
    assert loaded.parameters() == predictor.parameters()
    pairs = pd.DataFrame({"pert": ["G50", "OLD", "what"], "gene": ["pair", "G79", "G03"]})
    for task in tables:
        expected = predictor.predict(task, pairs)
        assert np.isfinite(expected).all()
        for other in (again, loaded):
            assert other.predict(task, pairs).tobytes() == expected.tobytes()


def test_what_is_read_beside_the_graph_is_told_by_digest(folder, monkeypatch):
    """Of an ensemble it is what its members read."""
    texts = file_digest(folder / "gene_text.parquet")
    assert make_predictor("kernel").further_inputs(folder) == {}
    assert GenePTPredictor(embedding_model="tfidf").further_inputs(folder) == {"gene texts": texts}
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text("{}")
    told = {"gene texts": texts, "text model": model_digest(folder / "model")}
    assert GenePTPredictor(embedding_model=folder / "model").further_inputs(folder) == told
    monkeypatch.setattr(genept, "find_model", lambda name, knowledge: folder / "model")
    assert make_predictor("ensemble", members="prior,genept").further_inputs(folder) == told


def test_bad_options_and_models_are_refused(folder):
    with pytest.raises(InputError) as caught:
        GenePTPredictor(strength=0, n_factors=-1)
    assert len(caught.value.problems) == 2
    rows = planted(gene_names()[:10], gene_names()[:10])
    with pytest.raises(InputError, match="no embedding model 'gt-no-such-l6'"):
        GenePTPredictor(embedding_model="gt-no-such-l6").fit({"de": rows}, context_of(folder))


@pytest.mark.shared_data
def test_real_descriptions_speak_of_every_gene_of_a_table(shared_data):
    labels = pd.read_parquet(shared_data / "labels" / "k562-dir.parquet")
    mapped = pd.read_parquet(shared_data / "knowledge" / "benchmark_symbol_map.parquet")
    names = pd.unique(pd.concat([labels["pert"], labels["gene"]]))
    symbols = (
        mapped.set_index("benchmark_symbol")["hgnc_symbol"].reindex(names).fillna(pd.Series(names, names))
    )
    texts, n_summaries = gene_descriptions(shared_data / "knowledge", symbols.to_numpy(dtype=str))
    assert sum(bool(text) for text in texts) >= len(names) - 1
    assert 0.6 * len(names) < n_summaries < len(names)
    assert not any(mark in text for text in texts for mark in ("[provided", "##", "|"))
