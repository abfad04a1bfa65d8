"""One door to LightGBM: columns by name, the unknown missing, the same trees whatever the order of rows."""

import threading

import lightgbm as lgb
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.boosting import (
    Crew,
    Encoder,
    Growing,
    canonical_order,
    contributions,
    day_numbers,
    gain_shares,
    said_by_trees,
    save,
    train,
)  # fmt: skip

nan = np.nan
LAWS = settings(max_examples=20, deadline=None)
PARAMS = {"objective": "binary", "num_leaves": 7, "bagging_fraction": 0.7, "bagging_freq": 1, "feature_fraction": 0.6}


def inputs(n, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 4)).astype(np.float32)
    X[rng.random((n, 4)) < 0.1] = nan
    frame = pd.DataFrame(X, columns=list("abcd"))
    frame["mode"] = rng.choice(["air", "sea", "road"], n)
    return frame, (np.nan_to_num(X[:, 0]) + (frame["mode"] == "sea") + rng.normal(0, 1, n) > 0.5).to_numpy(float)


def test_text_becomes_its_place_in_the_vocabulary_and_the_rare_unknown_or_missing_is_missing():
    X = pd.DataFrame({"mode": ["air"] * 3 + ["sea"] * 3 + ["pigeon", None], "age": np.arange(8.0)})
    encoder = Encoder(min_count=2).fit(X)
    new = pd.DataFrame({"mode": ["sea", "air", "pigeon", "rocket", None, nan], "age": [1, 2, nan, 4, 5, 6]})
    expected = np.array([[1, 1], [0, 2], [nan, nan], [nan, 4], [nan, 5], [nan, 6]], np.float32)
    np.testing.assert_array_equal(encoder.transform(new), expected)
    assert encoder.categorical == [0]


def test_columns_are_found_by_name_a_lacking_one_is_missing_and_a_new_one_left_out():
    X, _ = inputs(50)
    encoder = Encoder().fit(X)
    block = encoder.transform(X)
    assert block.dtype == np.float32
    assert block.flags.c_contiguous
    np.testing.assert_array_equal(encoder.transform(X[list(X.columns)[::-1]].assign(extra=1)), block)
    without = encoder.transform(X.drop(columns="b"))
    assert np.isnan(without[:, 1]).all()
    np.testing.assert_array_equal(np.delete(without, 1, axis=1), np.delete(block, 1, axis=1))


@pytest.mark.parametrize("came", [["7", "n/a"], [7, None], [7.0, "–"]], ids=str)
def test_a_column_of_numbers_that_comes_as_text_is_read_as_numbers(came):
    """One attribute like "n/a" turns a whole column of numbers into text."""
    encoder = Encoder().fit(pd.DataFrame({"attribute_days": [5.0, 7.0]}))
    read = encoder.transform(pd.DataFrame({"attribute_days": pd.Series(came, dtype=object)}))
    np.testing.assert_array_equal(read, np.array([[7], [nan]], np.float32))


def test_an_encoder_is_its_dict():
    X, _ = inputs(200)
    encoder = Encoder().fit(X)
    again = Encoder.from_dict(encoder.to_dict())
    assert again.to_dict() == encoder.to_dict()
    np.testing.assert_array_equal(again.transform(X), encoder.transform(X))


@LAWS
@given(seed=st.integers(0, 1000), n=st.integers(0, 60))
def test_the_canonical_order_depends_on_what_the_rows_hold_alone(seed, n):
    rng = np.random.default_rng(seed)
    block = rng.choice(np.array([0, -0.0, 1, 2.5, nan], np.float32), (n, 3))
    y = rng.integers(0, 2, n).astype(float)
    shuffle = rng.permutation(n)
    once, again = canonical_order(block, y), canonical_order(block[shuffle], y[shuffle])
    assert sorted(once) == list(range(n))
    np.testing.assert_array_equal(block[once], block[shuffle][again])
    np.testing.assert_array_equal(y[once], y[shuffle][again])


def test_missing_days_are_one_number():
    days = np.array(["2024-01-08", "NaT", "NaT"], "datetime64[D]")
    assert day_numbers(days)[0] == 19730
    assert len(set(day_numbers(days)[1:])) == 1
    assert list(day_numbers(pd.Series(days))) == list(day_numbers(days))


def fitted(X, y, threads=1):
    encoder = Encoder().fit(X)
    block = encoder.transform(X)
    order = canonical_order(block, y)
    return train(
        block[order], y[order], PARAMS, rounds=8, seed=3, threads=threads, categorical=encoder.categorical
    ), encoder


def trees(booster):
    return booster.model_to_string().split("\nparameters:")[0]


def test_shuffled_rows_grow_the_same_trees():
    X, y = inputs(1200)
    shuffle = np.random.default_rng(1).permutation(len(X))
    assert trees(fitted(X, y)[0]) == trees(fitted(X.iloc[shuffle], y[shuffle])[0])


def test_one_thread_or_two_give_the_same_scores_and_the_same_file(tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    X, y = inputs(1200)
    (one, encoder), (two, _) = fitted(X, y), fitted(X, y, threads=2)
    assert "[num_threads: 2]" in two.model_to_string()
    block = encoder.transform(X)
    said = one.predict(block, num_threads=1)
    np.testing.assert_array_equal(said, two.predict(block, num_threads=2))
    save(one, tmp_path / "one")
    save(two, tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    np.testing.assert_array_equal(lgb.Booster(model_file=tmp_path / "two").predict(block), said)


def test_contributions_add_up_to_the_raw_score():
    X, y = inputs(600)
    booster, encoder = fitted(X, y)
    block = encoder.transform(X)
    np.testing.assert_allclose(contributions(booster, block).sum(axis=1), booster.predict(block, raw_score=True))


def test_gain_shares_add_up_to_one_largest_first():
    X, y = inputs(600)
    booster, encoder = fitted(X, y)
    shares = gain_shares(booster, encoder.columns_)
    assert shares.sum() == pytest.approx(1)
    assert shares.is_monotonic_decreasing
    assert set(shares.index[:2]) == {"a", "mode"}


@pytest.mark.parametrize(("objective", "expected"), [("binary", 0.5), ("multiclass", 1 / 3)])
def test_learnt_from_nothing_every_class_is_as_likely(objective, expected):
    params = {"objective": objective} | ({"num_class": 3} if objective == "multiclass" else {})
    booster = train(np.empty((0, 2), np.float32), np.empty(0), params, rounds=2, seed=1)
    np.testing.assert_allclose(booster.predict(np.ones((2, 2))), expected)
    assert booster.predict(np.ones((0, 2))).size == 0


def test_a_column_whose_every_text_is_rare_is_no_hindrance():
    X, y = inputs(300)
    X["po_note"] = [f"note {k}" for k in range(len(X))]
    booster, encoder = fitted(X, y)
    assert encoder.vocabularies_["po_note"] == []
    assert np.isfinite(booster.predict(encoder.transform(X))).all()


def test_rows_that_tie_go_by_what_comes_then():
    block, z = np.zeros((6, 2), np.float32), np.array([1.0, 2.0, 1.0, 2.0, 1.0, 2.0])
    weight = np.array([3.0, 1.0, 2.0, 5.0, 1.0, 4.0])
    order = canonical_order(block, z, then=weight)
    shuffled = np.array([5, 2, 0, 3, 1, 4])
    again = shuffled[canonical_order(block[shuffled], z[shuffled], then=weight[shuffled])]
    np.testing.assert_array_equal(order, again)
    np.testing.assert_array_equal(z[order], z[canonical_order(block, z)])


def test_another_number_of_threads_waits_until_those_at_work_have_ended(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    crew, seen = Crew(), []

    def work(threads):
        with crew.of(threads) as size:
            seen.append(size)

    with crew.of(1):
        work(1)
        other = threading.Thread(target=work, args=(2,))
        other.start()
        other.join(0.2)
        assert seen == [1]
    other.join(10)
    assert seen == [1, 2]


@pytest.mark.parametrize("between", [1, 2])
def test_trees_grow_on_as_if_nobody_had_worked_with_other_threads_between(between):
    rng = np.random.default_rng(0)
    block = rng.random((4000, 12), dtype=np.float32)
    y = (block[:, 0] + block[:, 1] * rng.random(4000) > 1).astype(float)
    alone = train(block, y, {"objective": "binary"}, rounds=40, seed=1, threads=1)
    growing = Growing(block, y, {"objective": "binary"}, seed=1, threads=1)
    growing.upto(20)
    said_by_trees(alone, block, threads=between)
    np.testing.assert_array_equal(said_by_trees(growing.upto(40), block), said_by_trees(alone, block))
