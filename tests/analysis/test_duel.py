"""Two runs image by image, against statsmodels and the files that the runs left."""

import re
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.numpy import load_file
from statsmodels.stats.contingency_tables import mcnemar

from analysis.duel import Compare, main
from capsnet.errors import InputError
from experiments import catalog
from experiments.journal import PREDICTIONS
from experiments.tracking import Store


def stored(gallery, run_id, folder):
    store, _ = catalog.holding(run_id, gallery)
    answers = load_file(store.artifact(run_id, PREDICTIONS, folder))
    return answers["predictions"] != answers["labels"]


def test_two_runs_are_compared_image_by_image(gallery, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    store = Store.open("pictures", gallery, create=False)
    first, *_, second = [run.run_id for run in store.runs()]
    one, other = (stored(gallery, run_id, tmp_path) for run_id in (first, second))
    table = [[(~one & ~other).sum(), (~one & other).sum()], [(one & ~other).sum(), (one & other).sum()]]
    assert main(Compare(first[:8], second, gallery)) == 0
    said = capsys.readouterr().out
    assert f"run {first}: {one.sum()} of {len(one)} test images wrong ({100 * one.mean():.2f} %)" in said
    assert f"wrong in the first alone: {table[1][0]}; in the second alone: {table[0][1]}; in both: {table[1][1]}" in said
    p = mcnemar(table, exact=True).pvalue
    assert (f"p = {p:.2g}" if p >= 1e-4 else "p < 0.0001") in said
    main(Compare(first, first, gallery))
    assert "alone: 0; in both" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("dataset", "digest", "said"),
    [
        ("mnist_40", "a", "different images (digits and mnist_40), so"),
        ("digits", "b", f"different images (SHA-256 {'a' * 64} and SHA-256 {'b' * 64}), so"),
        ("digits", "", ""),  # nothing is known of the other's, so labels have to tell
    ],
)
def test_runs_on_other_data_are_refused_though_their_labels_agree(gallery, monkeypatch, dataset, digest, said) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    first, *_, second = [run.run_id for run in Store.open("pictures", gallery, create=False).runs()]
    holding = catalog.holding

    def changed(run_id, folder):
        store, run = holding(run_id, folder)
        if run_id == first:
            return store, replace(run, data=[("digits", "a" * 64)])
        return store, replace(run, params={**run.params, "dataset": dataset}, data=[(dataset, digest * 64)] if digest else [])

    monkeypatch.setattr(catalog, "holding", changed)
    with pytest.raises(InputError, match=re.escape(said)) if said else nullcontext():
        main(Compare(first, second, gallery))


def test_a_run_that_is_not_there_is_named(gallery, monkeypatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    [first, *_] = [run.run_id for run in Store.open("pictures", gallery, create=False).runs()]
    with pytest.raises(InputError, match="f" * 32):
        main(Compare(first, "f" * 32, gallery))
