"""Golden requests: reproduced by a sound bundle, refused when weights, calibration or features changed."""

import dataclasses

import numpy as np
import polars as pl
import pytest

from features.encode import Encoder
from features.golden import TOLERANCE, check_golden, make_golden
from features.online import OnlineFeatures, encode_items
from features.packing import unpack_user
from features.store import StoredUser
from recsys.bundle import Bundle, load_bundle
from recsys.errors import BundleError
from recsys.model.scorer import Scorer


@pytest.fixture(scope="module")
def bundle(bundle_folder) -> Bundle:
    return load_bundle(bundle_folder)


def _sides(bundle, encoder=None):
    encoder = encoder or Encoder.from_config(bundle.config, bundle.encoder)
    online = OnlineFeatures(None, bundle.version, bundle.config, encoder, bundle.manifest.snapshot_at_ms)
    return Scorer(bundle, encode_items(encoder, bundle.items)), online


def test_a_sound_bundle_reproduces_them(bundle):
    report = check_golden(bundle.golden, *_sides(bundle))
    assert report["requests"] == bundle.golden.height > 10
    assert report["max_difference"] < 1e-6
    assert report["min_retrieved_overlap"] == 1.0


def test_they_cover_histories_and_known_users(bundle):
    golden = bundle.golden
    assert (golden["input_history_kinds"].list.max() > 0).any()
    values = [unpack_user(value.encode()) for value in golden["value"]]
    assert any(user.row for user in values)
    assert any(user.crosses for user in values)


def test_no_users_id_is_in_the_file(bundle, shop_chain):
    text = str(bundle.golden.to_dicts())
    users = shop_chain[4].table("users")["user_id"].to_list()
    assert len(users) > 10
    assert not [u for u in users if u in text]


def test_no_users_number_is_in_the_file(bundle):
    names = [f.name for f in _sides(bundle)[1].encoder.features.ids_of("user")]
    numbers = np.array(bundle.golden["input_ids"].to_list()).reshape(bundle.golden.height, len(names))
    assert numbers[:, names.index("user_id")].max() == 0
    assert np.delete(numbers, names.index("user_id"), axis=1).max() > 0


def test_a_changed_weight(bundle):
    name = next(n for n in bundle.weights if n.startswith("ranker.heads.heads.click") and n.endswith("bias"))
    weights = {**bundle.weights, name: bundle.weights[name] + 0.05}
    changed = dataclasses.replace(bundle, weights=weights)
    with pytest.raises(
        BundleError,
        match=r"golden request .*predictions of click differ by .* of their range \(at most 1e-04\)",
    ):
        check_golden(bundle.golden, *_sides(changed))


def test_a_changed_table(bundle):
    table = bundle.weights["table.item_id.weight"]
    changed = dataclasses.replace(
        bundle, weights={**bundle.weights, "table.item_id.weight": table[::-1].copy()}
    )
    with pytest.raises(BundleError, match="golden request"):
        check_golden(bundle.golden, *_sides(changed))


@pytest.mark.parametrize("changed", [{"b": -0.09}, {"items": {"item_click_rate_life": 0.41}}])
def test_a_changed_calibration(bundle, changed):
    click = bundle.manifest.calibration["click"].model_copy(update=changed)
    calibration = {**bundle.manifest.calibration, "click": click}
    manifest = bundle.manifest.model_copy(update={"calibration": calibration})
    with pytest.raises(BundleError, match=r"predictions of .* differ by"):
        check_golden(bundle.golden, *_sides(dataclasses.replace(bundle, manifest=manifest)))


def test_another_index(bundle):
    from recsys.index import ItemIndex

    other = np.random.default_rng(0).normal(size=bundle.index.embeddings_ID.shape).astype(np.float32)
    changed = dataclasses.replace(bundle, index=ItemIndex.build(other))
    with pytest.raises(BundleError, match="of retrieved items agree"):
        check_golden(bundle.golden, *_sides(changed))


def test_a_changed_feature_definition(bundle):
    encoder = Encoder.from_config(bundle.config, bundle.encoder)
    numbers = tuple(
        dataclasses.replace(f, transform="raw") if f.name == "user_impressions_life" else f
        for f in encoder.features.numbers
    )
    altered = dataclasses.replace(encoder, features=dataclasses.replace(encoder.features, numbers=numbers))
    with pytest.raises(BundleError, match=r"encode differently here.*feature code changed"):
        check_golden(bundle.golden, *_sides(bundle, altered))


def test_a_changed_age_of_events(bundle, monkeypatch):
    import features.online

    monkeypatch.setattr(features.online, "age_buckets", np.ones_like)
    with pytest.raises(BundleError, match="encode differently"):
        check_golden(bundle.golden, *_sides(bundle))


def test_a_prediction_that_is_no_number(bundle):
    scorer, online = _sides(bundle)

    class Broken:
        user_side, retrieve, past, tasks = scorer.user_side, scorer.retrieve, scorer.past, scorer.tasks

        def predict(self, user, context, rows):
            return {task: np.full(rows.size, np.nan) for task in scorer.predict(user, context, rows)}

    with pytest.raises(BundleError, match=r"predictions of .* differ by inf"):
        check_golden(bundle.golden, Broken(), online)


def test_they_cover_what_users_took(bundle):
    golden = bundle.golden
    assert golden["taken_rows"].list.len().max() > 5
    assert golden["item_item_scores"].list.len().max() > 5


def test_another_table_of_neighbours(bundle):
    table = dataclasses.replace(bundle.item_item, weights=bundle.item_item.weights * np.float32(1.01))
    with pytest.raises(
        BundleError, match=r"item_item scores from the user's past differ by .* from the stored"
    ):
        check_golden(bundle.golden, *_sides(dataclasses.replace(bundle, item_item=table)))


def test_a_past_that_is_read_otherwise(bundle):
    changed = bundle.golden.with_columns(pl.col("taken_at_ms").list.eval(pl.element() + 1))
    with pytest.raises(BundleError, match="stored values encode differently"):
        check_golden(changed, *_sides(bundle))


def test_a_bundle_of_before_has_no_past_to_check(bundle):
    older = bundle.golden.drop(pl.selectors.starts_with("taken_", "item_item_", "repeat_"))
    assert check_golden(older, *_sides(bundle))["requests"] > 0


def test_a_difference_within_the_tolerance_passes(bundle):
    shifted = bundle.golden.with_columns(
        pl.col("prediction_click").list.eval(pl.element() + TOLERANCE["fp32"] / 2)
    )
    assert check_golden(shifted, *_sides(bundle))["max_difference"] > 0


@pytest.mark.parametrize(("task", "width"), [("click", 1), ("rating", 4)])
@pytest.mark.parametrize("mode", TOLERANCE)
def test_the_tolerance_is_a_share_of_the_tasks_range(bundle, task, width, mode):
    """Stars lie from 1 to 5: a step of bfloat16 is .016 there, and .004 between .5 and 1."""

    def check(shares):
        moved = pl.col(f"prediction_{task}").list.eval(pl.element() + shares * TOLERANCE[mode] * width)
        return check_golden(bundle.golden.with_columns(moved), *_sides(bundle), mode)

    assert check(0.9)["max_difference"] == pytest.approx(0.9 * TOLERANCE[mode], rel=0.01)
    with pytest.raises(BundleError, match=f"predictions of {task} differ"):
        check(1.1)


def test_events_of_one_instant_do_not_change_places(bundle):
    """Their ids are left out of the file, their order is not."""
    scorer, online = _sides(bundle)
    at_ms = bundle.manifest.snapshot_at_ms
    items = bundle.items["item_id"].to_list()
    tail = [[at_ms - 9000, f"f{n}", items[n], "click", None, None] for n in (2, 0, 1)]
    import json

    value = json.dumps([{"impressions_life": 3}, tail, {}, {}]).encode()
    golden = make_golden(scorer, online, [("u", value)], [{}], len(items), at_ms + 60_000)
    seen = online.assemble(StoredUser(value, ()), "u", at_ms + 60_000).history
    assert [e.feedback_id for e in seen] == ["f2", "f1", "f0"]
    check_golden(golden, scorer, online)
