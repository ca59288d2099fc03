"""A served score is the trained score: same bundle, same inputs, both paths."""

import dataclasses
import threading

import numpy as np
import pytest

from features.build import item_rows
from features.encode import Encoder
from features.online import encode_items
from features.sequences import history_slices, minutes_of
from recsys.bundle import load_bundle
from recsys.calibration import Platt, PlattItems
from recsys.errors import BundleError
from recsys.inputs import ContextInputs, CrossInputs, ItemInputs, UserInputs
from recsys.item_terms import item_weights
from recsys.mask import Mask
from recsys.model.item_rows import ItemRows
from recsys.model.scorer import Scorer, calibrate, ranker_from
from training.data import ScoredRows
from training.predict import BundlePredictor

ROWS = 150


@pytest.fixture(scope="module")
def bundle(bundle_folder):
    return load_bundle(bundle_folder)


@pytest.fixture(scope="module")
def scorer(bundle):
    return Scorer(bundle, encode_items(Encoder.from_config(bundle.config, bundle.encoder), bundle.items))


@pytest.fixture(scope="module")
def predictor(bundle):
    return BundlePredictor(bundle)


@pytest.fixture(scope="module")
def encoded(predictor, shop_chain, config):
    return predictor.encode_day(shop_chain, 5, config.tasks)


@pytest.fixture(scope="module")
def request_of(encoded, shop_chain, config):
    """Give a maker of one row's request, as the online read would assemble it."""
    items = item_rows(shop_chain[4], shop_chain[5])
    categories = [*items["category"], "no item"]

    def make(row):
        user = encoded.users.take(encoded.user_row[[row]])
        history = history_slices(
            encoded.start[[row]],
            encoded.stop[[row]],
            config.features.history_length,
            encoded.shown_at[[row]],
            1000 * config.features.ingestion_lag,
            encoded.events,
        )
        inputs = UserInputs(
            ids=user.ids[0],
            numbers=user.numbers[0],
            history_items=history.items,
            history_kinds=history.kinds,
            history_ages=history.ages,
            history_minutes=minutes_of(encoded.events.at[history.events]),
            crosses=tuple(_cross(encoded, table, row, categories) for table in encoded.crosses),
        )
        return inputs, ContextInputs(ids=encoded.contexts.ids[row], numbers=encoded.contexts.numbers[row])

    return make


def _cross(encoded, table, row, categories):
    """Give one user's pairs of a day's table under their names."""
    names = dict(zip(table.item_codes.tolist(), categories, strict=True))
    user, code = np.divmod(table.keys, table.num_codes)
    own = np.flatnonzero(user == encoded.user_row[row])
    return CrossInputs(
        tuple(str(names.get(c, "no item")) for c in code[own].tolist()),
        np.concatenate([table.numbers[own], table.numbers[-1:]]),
    )


def test_served_logits_are_the_training_paths(scorer, predictor, encoded, request_of):
    offline = predictor.logits(encoded)
    seen = 0
    for row in np.random.default_rng(0).permutation(encoded.size)[:ROWS]:
        item = scorer.item_rows([encoded.frame["item_id"][int(row)]])
        if item[0] < 0:
            continue  # new today: served from the overlay
        user, context = request_of(int(row))
        online = scorer.logits(scorer.user_side(user), context, item)
        for task in offline:
            assert online[task][0] == pytest.approx(offline[task][row], abs=1e-5)
        seen += 1
    assert seen > ROWS / 2
    assert np.std(offline["click"]) > 0.05, "the model must have learned something for this to mean something"


def test_predictions_are_calibrated_the_same_way(scorer, predictor, encoded, request_of):
    row = int(np.argmax(encoded.stop - encoded.start))
    user, context = request_of(row)
    item = scorer.item_rows([encoded.frame["item_id"][row]])
    online, offline = scorer.predict(scorer.user_side(user), context, item), predictor.predictions(encoded)
    for task in online:
        assert online[task][0] == pytest.approx(offline[task][row], abs=1e-5)
    assert (offline["purchase"] <= offline["click"]).all()
    assert offline["rating"].min() >= 1
    assert offline["rating"].max() <= 5
    assert ((offline["click"] > 0) & (offline["click"] < 1)).all()


def test_a_term_of_the_item_is_in_every_path(bundle, scorer, predictor, encoded, shop_chain):
    """The bundle's click has one: evaluation adds it, and serving to items of the catalogue alike."""
    weights = item_weights(bundle.manifest.calibration["click"])
    plain = BundlePredictor(dataclasses.replace(bundle, manifest=_without_terms(bundle.manifest)))
    term = ScoredRows.of(encoded, predictor.encoder).items.term(weights)
    assert term.std() > 0.1
    added = predictor.logits(encoded)["click"] - plain.logits(encoded)["click"]
    np.testing.assert_allclose(added, term, atol=1e-5)
    np.testing.assert_array_equal(predictor.logits(encoded)["rating"], plain.logits(encoded)["rating"])
    assert scorer.network.term_FC is not None


def _without_terms(manifest):
    click = Platt(a=0.9, b=-0.1)
    return manifest.model_copy(update={"calibration": manifest.calibration | {"click": click}})


def test_a_calibration_of_other_inputs_is_refused(bundle):
    other = PlattItems(a=1.0, b=0.0, items={"item_stock": 1.0})
    manifest = bundle.manifest.model_copy(
        update={"calibration": bundle.manifest.calibration | {"click": other}}
    )
    with pytest.raises(BundleError, match="'item_stock', which is no number of an item"):
        ranker_from(bundle.manifest.inputs, dataclasses.replace(bundle, manifest=manifest))


def test_many_candidates_are_scored_as_each_alone(scorer, encoded, request_of):
    user, context = request_of(int(np.argmax(encoded.stop - encoded.start)))
    side = scorer.user_side(user)
    rows = np.arange(0, 100, 7)
    together = scorer.logits(side, context, rows)
    for n, row in enumerate(rows):
        alone = scorer.logits(side, context, np.array([row]))
        for task in together:
            assert alone[task][0] == pytest.approx(together[task][n], abs=1e-5)
    assert scorer.logits(side, context, np.zeros(0, np.int64))["click"].shape == (0,)


def test_the_indexed_vectors_are_the_scorers(scorer, bundle):
    np.testing.assert_allclose(scorer.item_embeddings, bundle.index.embeddings_ID, atol=1e-6)
    assert scorer.similar(3, 1, None).tolist() == [3]


def test_retrieval_respects_what_is_allowed(scorer, encoded, request_of):
    user, _ = request_of(0)
    allowed = np.zeros(len(scorer.item_embeddings), bool)
    allowed[[4, 9, 11]] = True
    assert sorted(scorer.retrieve(scorer.user_side(user), 50, Mask.of_bools(allowed)).tolist()) == [4, 9, 11]


@pytest.fixture(scope="module")
def side(scorer, encoded, request_of):
    user, context = request_of(int(np.argmax(encoded.stop - encoded.start)))
    return scorer.user_side(user), context, user


def test_gates_are_those_that_mix_the_experts(scorer, side, monkeypatch):
    rows, seen = np.array([5, 2, 9]), []
    trunk = scorer.network.trunks[0]
    softmax = trunk._softmax
    monkeypatch.setattr(trunk, "_softmax", lambda logits: seen.append(softmax(logits)) or seen[-1])
    scorer.logits(*side[:2], rows)
    expected = dict(zip(trunk.tasks, seen[0].unbind(dim=1), strict=True))
    gates = scorer.gate_weights(*side[:2], rows)
    assert gates.keys() == {task.name for task in scorer.tasks}
    for task, weights in expected.items():
        np.testing.assert_allclose(gates[task], weights.numpy(), rtol=1e-4)
        np.testing.assert_allclose(gates[task].sum(axis=1), 1.0, rtol=1e-5)
        assert gates[task].shape == (3, 3)


@pytest.fixture(scope="module")
def inputs(bundle):
    return encode_items(Encoder.from_config(bundle.config, bundle.encoder), bundle.items)


def _some(inputs, rows):
    return ItemInputs(
        ids=inputs.ids[rows],
        numbers=inputs.numbers[rows],
        text=inputs.text[rows],
        bags=tuple(bag.take(np.array(rows)) for bag in inputs.bags),
        groups=tuple([values[row] for row in rows] for values in inputs.groups),
    )


def test_a_late_item_is_scored_as_if_the_bundle_had_it(scorer, side, inputs):
    """Items 5, 9 and 2 come again, as new ones; item 7 becomes what item 3 is."""
    num = inputs.ids.shape[0]
    with_fresh = scorer.with_items(np.array([num + 1, 7, num]), _some(inputs, [5, 3, 9]))
    with_fresh = with_fresh.with_items(np.array([num + 2]), _some(inputs, [2]))
    asked, same = np.array([num, 0, num + 2, 7, 4, num + 1, 7]), np.array([9, 0, 2, 3, 4, 5, 3])
    got, want = with_fresh.logits(*side[:2], asked), scorer.logits(*side[:2], same)
    for task in want:
        np.testing.assert_allclose(got[task], want[task], atol=1e-6)  # encoded in batches of other sizes
    np.testing.assert_allclose(with_fresh.vectors(asked), scorer.vectors(same), atol=1e-6)
    own = np.arange(num)
    others = with_fresh.logits(*side[:2], own[own != 7])["click"]
    np.testing.assert_allclose(others, scorer.logits(*side[:2], own)["click"][own != 7], atol=1e-6)
    assert with_fresh.logits(*side[:2], np.zeros(0, np.int64))["click"].shape == (0,)
    assert scorer.fresh is None


def test_late_items_are_found_where_they_belong(scorer, side, inputs):
    """Nearest first over old and new ones alike, a replaced one only as it is now, nothing forbidden."""
    num = inputs.ids.shape[0]
    rng = np.random.default_rng(3)
    swapped = rng.permutation(num)[:20]
    with_fresh = scorer.with_items(
        np.array([*swapped, *range(num, num + 30)]), _some(inputs, rng.permutation(50))
    )
    allowed = rng.random(num + 30) < 0.5
    for mask, k in ((None, 15), (allowed, 15), (allowed, 10_000), (np.zeros(num + 30, bool), 5)):
        found = with_fresh.retrieve(side[0], k, None if mask is None else Mask.of_bools(mask))
        closeness = with_fresh.vectors(np.arange(num + 30)) @ side[0].side.embedding_BD[0].numpy()
        passing = np.arange(num + 30) if mask is None else np.flatnonzero(mask)
        best = passing[np.argsort(-closeness[passing], kind="stable")][:k]
        np.testing.assert_allclose(closeness[found], closeness[best], atol=1e-6)
        assert np.unique(found).size == found.size
        assert np.isin(found, passing).all()
    assert with_fresh.similar(num + 3, 1)[0] in np.flatnonzero(
        np.isclose(
            with_fresh.vectors(np.arange(num + 30)) @ with_fresh.vectors(np.array([num + 3]))[0],
            1.0,
            atol=1e-5,
        )
    )


def test_unknown_items_have_no_row(scorer, bundle):
    known = bundle.items["item_id"][2]
    assert scorer.item_rows([known, "never", ""]).tolist() == [2, -1, -1]


def test_threads_share_a_scorer(scorer, encoded, request_of):
    requests = [request_of(row) for row in range(20)]
    rows = np.arange(50)
    expected = [scorer.logits(scorer.user_side(u), c, rows)["click"] for u, c in requests]
    problems = []

    def work():
        for (user, context), want in zip(requests, expected, strict=True):
            if not np.array_equal(scorer.logits(scorer.user_side(user), context, rows)["click"], want):
                problems.append(user)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []


def test_weights_that_do_not_fit(bundle):
    name = next(n for n in bundle.weights if n.startswith("ranker.heads"))
    fewer = {k: v for k, v in bundle.weights.items() if k != name}
    with pytest.raises(BundleError, match="do not fit the model"):
        ranker_from(bundle.manifest.inputs, dataclasses.replace(bundle, weights=fewer))


def test_calibration_goes_parents_first_and_keeps_children_below(config, bundle):
    logits = {t.name: np.linspace(-9, 9, 50).astype(np.float32) for t in config.tasks}
    found = calibrate(logits, config.tasks, bundle.manifest.calibration)
    assert (found["purchase"] <= found["click"]).all()
    assert (found["purchase"] == found["click"]).any(), "Platt's steeper child would overtake its parent"


def test_mapped_rows_score_like_those_in_memory(scorer, side, inputs, bundle, tmp_path):
    """A scorer that maps what another wrote encodes no item, and takes fresh items as any other."""
    scorer.items.write(tmp_path / "rows")
    mapped = Scorer(bundle, item_rows=ItemRows.open(tmp_path / "rows"))
    rows = np.arange(0, 100, 7)
    for one, other in ((scorer, mapped), (_with_two(scorer, inputs), _with_two(mapped, inputs))):
        got = other.logits(mapped.user_side(side[2]), side[1], rows)
        for task, want in one.logits(*side[:2], rows).items():
            np.testing.assert_array_equal(got[task], want)
    np.testing.assert_array_equal(mapped.item_embeddings, scorer.item_embeddings)
    assert mapped.item_embeddings.base is not None, "the vectors are a view of the rows"


def _with_two(scorer, inputs):
    num = inputs.ids.shape[0]
    return scorer.with_items(np.array([num, 7]), _some(inputs, [5, 3]))
