"""The text that the example jobs learn from."""

import os
import subprocess
import sys
from collections import Counter

import pytest

from gpusched.jobs.workloads import corpus


@pytest.fixture(scope="module")
def text():
    return corpus.load()


def test_training_and_validation_share_no_source_file(text):
    assert {p.source for p in text.training}.isdisjoint(p.source for p in text.validation)


def test_no_passage_occurs_twice(text):
    counts = Counter(p.text for p in (*text.training, *text.validation))
    assert max(counts.values()) == 1


def test_a_validation_passage_repeats_less_than_half_of_its_phrases_from_training(text):
    def phrases(passage):
        found = passage.text.split()
        return [tuple(found[i : i + 5]) for i in range(len(found) - 4)]

    known = {phrase for passage in text.training for phrase in phrases(passage)}
    repeated = [sum(phrase in known for phrase in phrases(p)) / len(phrases(p)) for p in text.validation]
    assert max(repeated) < 0.5


def test_every_family_has_passages_to_learn_from_and_to_validate_on(text):
    for part, least in ((text.training, 300), (text.validation, 50)):
        counts = Counter(p.label for p in part)
        assert sorted(counts) == list(range(len(corpus.FAMILIES)))
        assert min(counts.values()) >= least


def test_no_family_is_so_common_that_always_answering_it_would_do(text):
    counts = Counter(p.label for p in text.validation)
    assert max(counts.values()) / len(text.validation) < 0.35


def test_limit_bounds_the_passages_of_each_family():
    small = corpus.load(limit=40)
    assert max(Counter(p.label for p in small.training).values()) == 40
    assert max(Counter(p.label for p in small.validation).values()) == 10


def test_the_corpus_does_not_depend_on_the_hash_seed():
    code = (
        "import hashlib; from gpusched.jobs.workloads.corpus import load, Vocabulary; c = load();"
        "print(hashlib.sha256(repr((c, Vocabulary.of(c.training).words)).encode()).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1


def test_a_python_without_source_files_is_told_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr("sysconfig.get_paths", lambda: {"stdlib": str(tmp_path)})
    with pytest.raises(corpus.CorpusError, match=r"too little source text of the family `networking`.*\.py files"):
        corpus.load()


def test_words_are_split_where_names_are_joined():
    assert corpus.words("get_HTTPReply2(aFile)") == ["get", "http", "reply", "2", "a", "file"]


def test_the_vocabulary_knows_words_that_occur_twice_and_pads_what_is_short():
    vocabulary = corpus.Vocabulary.of([corpus.Passage("tea tea milk"), corpus.Passage("sugar tea milk")])
    assert vocabulary.words == ["tea", "milk"]
    codes = vocabulary.encode("milk sugar tea")
    assert codes[:4] == [vocabulary.CLS, 4, vocabulary.UNKNOWN, 3]
    assert codes[4:] == [vocabulary.PAD] * (corpus.PASSAGE_WORDS[1] - 3)
    assert len(vocabulary.encode("tea " * 500)) == corpus.PASSAGE_WORDS[1] + 1
