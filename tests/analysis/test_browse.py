"""What MLflow's pages show of an experiment: the tags, and in a browser that MLflow understands them."""

import json
import shutil
from pathlib import Path

import pytest

from analysis import browse
from analysis.report import Asked
from analysis.runs import read_runs
from capsnet.config import make_config
from capsnet.metrics import EpochMetrics
from experiments.record import Ending, now
from experiments.tracking import NOTE, Store
from tests.analysis.reports import Shelf, made
from tests.experiments.conftest import logged

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
TABLE = "| r | error |\n| - | ----: |\n| 1 |  0.29 |"
HISTORY = [EpochMetrics(n, n, 0.5 / n, 0.4, None, 30.0, 25.0 / n, 1e-3, 2.0, 30.0) for n in (1, 2)]


@pytest.fixture
def runs(make_runs):
    return make_runs({"routing_iterations": [1, 3], "lr_schedule": ["constant", "cosine"]}, seeds=2)


def state_of(tags, key):
    return json.loads(json.loads(tags[browse.SHARED + key])["state"])


def test_the_columns_are_results_and_then_what_was_varied(runs):
    state = state_of(browse.tags(runs, {}, TABLE, 5), browse.RUNS)
    assert state["selectedColumns"] == [
        "metrics.`test_error`",
        "metrics.`validation_error`",
        "params.`routing_iterations`",
        "params.`lr_schedule`",
        "params.`seed`",
    ]
    assert state["searchFilter"] == "tags.kind = 'run'"


def test_means_are_grouped_by_what_was_varied_but_not_by_seed(runs):
    state = state_of(browse.tags(runs, {}, TABLE, 5), browse.MEANS)
    assert state["groupBy"]["aggregateFunction"] == "average"
    keys = [(key["mode"], key["groupByData"]) for key in state["groupBy"]["groupByKeys"]]
    assert keys == [("param", "routing_iterations"), ("param", "lr_schedule")]


def test_runs_of_one_configuration_are_not_grouped(make_runs):
    assert browse.means(make_runs({}, seeds=3))["groupBy"] is None


def test_the_description_has_question_table_and_where_the_report_is(runs):
    note = browse.tags(runs, {"quick": "Do *r* or schedule matter?\n"}, TABLE + "\n", 5)[NOTE]
    assert note.startswith("quick: Do *r* or schedule matter?\n\n| r | error |")
    assert note.endswith("is an artifact of the run *quick*.")


@pytest.mark.parametrize("where", ["table", "question"])
def test_a_description_that_is_too_long_is_cut_and_says_so(runs, where):
    long = "x" * 30_000
    note = browse.note({"quick": long if where == "question" else "Why?"}, long if where == "table" else TABLE)
    assert len(note) < 20_000, "MLflow refuses a longer one"
    assert "too long for this page" in note
    assert note.endswith("is an artifact of the run *quick*.")


def test_the_tags_are_the_same_every_time(runs):
    assert browse.tags(runs, {"g": "Why?"}, TABLE, 5) == browse.tags(runs, {"g": "Why?"}, TABLE, 5)


def test_a_store_that_is_away_is_said(runs):
    [fault] = browse.log(made(runs, Shelf("http://me:secret@there", away=True)), [], TABLE)
    assert fault == "the experiment quick is not described in MLflow: http://me:***@there does not answer"


@pytest.fixture
def store(tmp_path, migrated, monkeypatch):
    """A grid of two finished runs and a failed one."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = tmp_path / "mlruns"
    folder.mkdir()
    shutil.copy(migrated, folder)
    made = Store.open("e", folder, create=True)
    parent = made.parent("g", "description: Why?\nbase: {epochs: 2}\naxes: {routing_iterations: [1, 3, 5]}", "Why?")
    for r, error in ((1, 0.5), (3, 0.25), (5, None)):
        ending = (
            Ending("FINISHED", now(), results={"test_error": error}) if error else Ending("FAILED", now(), "diverged", "nan")
        )
        logged(
            made, folder, make_config({"epochs": 2, "routing_iterations": r}, "here"), ending, HISTORY, {"grid": "g"}, parent
        )
    return made, folder


def test_with_a_real_store(store):
    made, folder = store
    found = read_runs("e", folder)
    asked = [Asked("g", "e", ["Why?"], ""), Asked("other", "another experiment", ["No."], "")]
    assert browse.log(found, asked, TABLE) == []
    tags = made.client.get_experiment(made.experiment_id).tags
    assert tags[NOTE].startswith("g: Why?\n\n| r |")
    assert "No." not in tags[NOTE]
    assert tags["mlflow.experimentKind"] == "custom_model_development"


def test_each_run_says_what_came_out(store):
    made, _ = store
    notes = {run.params["routing_iterations"]: made.client.get_run(run.run_id).data.tags[NOTE] for run in made.runs()}
    assert notes["3"] == "Test error **0.25 %** after 2 epochs.\n\nr, of *g*"
    assert notes["5"] == "**diverged** after 2 epochs: nan\n\nr, of *g*"


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt-get install chromium")
def test_mlflow_shows_it(store, mlflow_server):
    """The format of saved views is nowhere documented: that this version reads it has to be seen."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: make setup")
    made, folder = store
    assert browse.log(read_runs("e", folder), [Asked("g", "e", ["What of routing?"], "")], TABLE) == []
    server = mlflow_server(f"sqlite:///{Path(folder) / 'mlflow.db'}")
    with playwright.sync_playwright() as running:
        chromium = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": 1600, "height": 900})
        page.goto(f"{server.uri}/{browse.address(made.experiment_id)}")
        grid = page.get_by_role("grid").or_(page.get_by_role("treegrid")).first
        grid.get_by_text("0.25", exact=True).wait_for(timeout=60_000)
        words = page.inner_text("body")
        chromium.close()
    assert "All runs, by configuration" in words
    assert "What of routing?" in words
    assert "3 matching runs" in words, "not the grid's own"
    for column in ("test_error", "validation_error", "seed"):
        assert column in words
