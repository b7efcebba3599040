"""The report as a file: nothing is fetched, nobody's text becomes markup, and the bytes are the same on every build."""

import base64
import hashlib
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from analysis import expenses, report, tables
from analysis.expenses import Expense
from analysis.illustrations import illustrate
from analysis.origins import origins, run_address
from tests.analysis.reports import YAML, Shelf, drawn, failed, made

FETCHING = {
    "src",
    "href",
    "srcset",
    "action",
    "formaction",
    "poster",
    "data",
    "background",
    "cite",
    "ping",
    "manifest",
    "xlink:href",
}
TAGS = {
    *("html", "head", "meta", "title", "link", "style", "script", "body", "header", "nav", "main", "section"),
    *(
        "h1",
        "h2",
        "h3",
        "p",
        "pre",
        "code",
        "strong",
        "span",
        "a",
        "ul",
        "ol",
        "li",
        "dl",
        "div",
        "dt",
        "dd",
        "details",
        "summary",
    ),
    *("figure", "figcaption", "table", "thead", "tbody", "tr", "th", "td", "picture", "source", "img"),
}
EVIL = "<img src=x onerror=alert(1)>'\"&{{ 7*7 }}</script><script>alert(2)</script>"


class Page(HTMLParser):
    """The elements of a page, and their texts in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "img", "source"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))

    def of(self, tag):
        return [text for name, text in self.texts if name == tag]

    @property
    def words(self):
        return " ".join(" ".join(text for tag, text in self.texts if tag not in ("style", "script")).split())

    def attributes(self, name):
        return [values[name] for _, values in self.tags if name in values]


def rendered(found, figures=(), where=(), **flags):
    return report.render(found, tables.judged(found.runs, published=(), **flags), figures, where)


@pytest.fixture
def mixed(make_runs):
    """Two cells with three seeds each: one run diverged, one has not begun."""
    runs = make_runs({"routing_iterations": [1, 3]}, errors=[5.0, 5.2, 5.4, 4.0, 4.2, 4.4], base={"epochs": 8})
    failed(runs, 1, "diverged", "DivergedError: the training loss of epoch 2 is nan")
    failed(runs, 5, "planned")
    return runs


# --- self-contained


def test_nothing_is_fetched(mixed, tmp_path):
    text = rendered(made(mixed), drawn(tmp_path))
    page = Page(text)
    assert page.open == []
    assert {tag for tag, _ in page.tags} <= TAGS
    named = [(tag, name, value) for tag, values in page.tags for name, value in values.items() if name in FETCHING]
    links = [value for tag, name, value in named if (tag, name) == ("a", "href") and not value.startswith("#")]
    assert set(links) == {
        f"http://127.0.0.1:5000/#/experiments/7/runs/run{n:03d}?workflowType=machine_learning" for n in range(5)
    }
    ids = page.attributes("id")
    assert len(set(ids)) == len(ids)
    assert {f"#{i}" for i in ids} >= {value for _, _, value in named if value.startswith("#")}
    rest = [value for tag, name, value in named if tag != "a"]
    assert all(value.startswith("data:") for value in rest)
    assert [tag for tag, _, value in named if value.startswith("data:image/")] == ["img", "source", "img"]
    assert not any(name.startswith("on") or name == "style" for _, values in page.tags for name in values)
    [style], [script] = page.of("style"), page.of("script")
    assert not re.search(r"@import|url\(|@font-face|https?:|//\w", style)
    assert not re.search(r"https?:|fetch|XMLHttp|import\s*\(|eval|innerHTML", script)


def test_the_policy_allows_the_pages_own_style_and_script_and_no_other(mixed):
    page = Page(rendered(made(mixed)))
    [policy] = [values["content"] for tag, values in page.tags if values.get("http-equiv") == "Content-Security-Policy"]
    told = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    for name, element in (("style-src", "style"), ("script-src", "script")):
        [text] = page.of(element)
        assert told[name] == f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
    assert told["default-src"] == told["base-uri"] == told["form-action"] == "'none'"
    assert told["img-src"] == "data:"
    assert len(told) == 6


def test_nobodys_text_becomes_markup(mixed, tmp_path):
    """Whatever a user, a library or a machine can put in is shown as it was put in."""
    mixed = mixed.assign(hardware=EVIL + "hardware", versions=EVIL + "versions")
    mixed["git_commit"] = EVIL + "commit"
    mixed["experiment"] = EVIL
    mixed["lr_schedule"] = ["constant", EVIL + "schedule"] * 3
    mixed["reason"] = EVIL + "reason"
    mixed.loc[1, "failure"] = EVIL + "failure"
    mixed["run_id"] = [f"{EVIL}run{n}" if isinstance(i, str) else None for n, i in enumerate(mixed["run_id"])]
    grid = "description: |\n  " + EVIL + "description\nbase: {epochs: 8} # " + EVIL + "comment\n"
    store = Shelf(
        f"http://me:secret@there/{EVIL}?token=secret", EVIL, {EVIL + "grid": grid}, data=(EVIL + "data", EVIL + "digest")
    )
    image = next(path for path in drawn(tmp_path) if path.suffix == ".gif")
    evil = shutil.copy(image, tmp_path / ("<b onclick=x>'\"&" + "figure.gif"))
    found = made(mixed, store, {EVIL + "stranger": EVIL + "why"})
    comparisons = tables.judged(found.runs, published=())
    comparisons.faults.append(EVIL + "fault")
    page = Page(report.render(found, comparisons, [evil], [EVIL + "where"]))
    assert page.open == []
    assert {tag for tag, _ in page.tags} <= TAGS
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert [tag for tag, _ in page.tags].count("img") == 1
    assert not any(name.startswith("on") for _, values in page.tags for name in values)
    words = page.words
    of_runs = ("hardware", "versions", "commit", "schedule", "reason", "failure", "data", "digest", "stranger", "why")
    for kind in (*of_runs, "grid", "description", "comment", "fault", "where"):
        assert EVIL + kind in words, kind
    assert "<b onclick=x>'\"&figure." in words
    assert "secret" not in words
    assert all(value.startswith(("#", "http://there/")) for value in page.attributes("href") if value != "data:,")
    assert not any("secret" in value for value in page.attributes("href"))
    assert not any(set("<>\"' ") & set(value.partition("/#/")[2]) for value in page.attributes("href"))


def test_halves_of_characters_can_be_written(mixed, tmp_path):
    failed(mixed, 0, "error", "\ud83d half")
    found = made(mixed)
    path = report.write(found, tables.judged(found.runs, published=()), [], tmp_path / "new" / "folder")
    assert "? half" in path.read_text(encoding="utf-8")


# --- the same on every build


def test_two_builds_have_the_same_bytes_whatever_the_order(quick, tmp_path):
    failed(quick, 4, "diverged", "why")
    failed(quick, 9, "killed")
    failed(quick, 30, "planned")
    quick.loc[[3, 20], "git_commit"] = ["fedcba9-dirty-0123", "0000000"]
    figures = drawn(tmp_path)
    first = rendered(made(quick), figures)
    assert first == rendered(made(quick), figures)
    for seed in range(2):
        rows = quick.sample(frac=1, random_state=seed).reset_index(drop=True)
        assert rendered(made(rows), figures[::-1]) == first


# --- what it says


def test_it_tells_what_was_asked_found_and_spent(mixed, tmp_path):
    mixed.loc[0, "git_commit"] = "fedcba9-dirty-0123abcd"
    mixed["in_grid"] = [False] * 3 + [True] * 3
    store = Shelf(metrics={("run001", "seconds"): [(1, 2.0), (2, 3.5)]})
    words = Page(rendered(made(mixed, store, {"run99": "'alien' is unknown"}, 2), drawn(tmp_path))).words
    for said in (
        "Grid quick Does routing pay? It should. The grid as YAML description: | Does routing pay?",
        "The lowest mean test error is 4.10 ± 0.14 % (n=2 of 3; 1 not run), with r = 3.",
        "run001 r = 1 1 diverged DivergedError: the training loss of epoch 2 is nan",
        "1 run of the grid not begun r = 3, seed 2",
        "the figure torn.png can't be read: it is no image",
        # 4 runs of 12.5 s and one of 5.5; 8 epochs of 55,000 images each, and 2
        "5 runs trained for 56 s in all, without validation and test: 1,870,000 images, 33,694 per second.",
        "The energy of graphics cards was not measured.",
        "fedcba9-dirty-0123abcd 1 run the code was changed since this commit",
        "digits, SHA-256 " + "9f74" * 16,
        "Left out run run99: 'alien' is unknown 2 finished runs of configs for which an earlier one speaks "
        "Beside the grid 3 runs of configs that no grid here has any more",
        "To build this report again: make report EXPERIMENT=quick The same runs give the same bytes.",
        "The links work while make ui serves it. All 6 runs",
        "run001 r = 1 1 diverged — 5.5",
        "— r = 3 2 not run — —",
    ):
        assert said in words, said
    assert not re.search(r"\bnan\b(?! DivergedError)|None|NaT|undefined", words.replace("epoch 2 is nan", ""))


def test_it_says_by_what_error_a_network_was_chosen_to_be_shown(make_runs, tmp_path):
    shown, by_training = drawn(tmp_path), "Where there are no validation images, it is the training error of the last epoch: on"
    runs = make_runs({"dataset": ["fashion_mnist", "mnist"]}, base={"validation_size": 100})
    assert by_training not in Page(rendered(made(runs), shown)).words
    runs.loc[runs["dataset"] == "mnist", "validation_error"] = np.nan
    assert f"{by_training} mnist." in Page(rendered(made(runs), shown)).words


def test_several_data_sets_of_one_name_are_a_doubt(mixed):
    found, three = made(mixed), [("digits", "a"), ("digits", "b"), ("x", "c")]
    read = {f"run{i:03d}": [(name, digest * 64)] for i, (name, digest) in enumerate(three)}
    [data] = [origin for origin in origins(replace(found, data=read)) if origin.name == "Data"]
    assert len(data.entries) == 3
    doubt = "other runs read other data of the name digits"
    assert data.doubts == {f"digits, SHA-256 {digest * 64}": doubt for digest in "ab"}


def test_what_is_not_there_has_no_section(make_runs):
    words = Page(rendered(made(make_runs({}, errors=[1.0, 1.2, 1.4])))).words
    assert "Differences to the reference" not in words
    assert "Effects of the axes" not in words
    assert "What the capsules did" not in words
    assert "Figures" not in words
    assert "No run has failed." in words
    assert (
        "The test error is 1.20 ± 0.20 % (n=3). configuration 1 runs finished 3 of 3 seeds 3 test error 1.20 ± 0.20 %" in words
    )
    assert "sign-flip" not in words


def test_what_capsules_did_has_a_section_where_it_is_known(make_runs):
    runs = make_runs({}, errors=[1.0, 1.2, 1.4])
    runs["dead_primary_capsules"] = [10, 20, 30]
    words = Page(rendered(made(runs))).words
    assert "What the capsules did" in words
    assert "20 ± 10" in words.replace("\N{NO-BREAK SPACE}", " ")


def test_many_findings_are_folded(make_runs):
    axes = {"epochs": [*range(1, 15)]}
    page = Page(rendered(made(make_runs(axes, seeds=2))))
    assert "1 more" in page.of("summary")
    assert page.words.count("no difference can be claimed (") == 13


@pytest.mark.parametrize("outcome", ["diverged", "killed", "planned"])
def test_a_report_of_no_result(make_runs, outcome):
    runs = make_runs({"routing_iterations": [1, 3]}, seeds=2)
    for place in range(4):
        failed(runs, place, outcome, "why")
    words = Page(rendered(made(runs))).words
    assert "There is no result yet: 0 of 4 runs have finished; 4 " in words
    assert ("No run has begun." in words) == (outcome == "planned")
    assert ("4 runs of the grid not begun" in words) == (outcome == "planned")
    assert ("Runs that began and have no result." in words) == (outcome != "planned")


def test_an_experiment_without_a_grid(mixed):
    assert "No grid was launched into this experiment." in Page(rendered(made(mixed, Shelf(texts={})))).words


def test_what_was_chosen_is_said(mixed):
    words = Page(rendered(made(mixed), where=["seed=0", "epochs=8"])).words
    assert "Only runs with seed=0, epochs=8." in words
    assert "Only runs" not in Page(rendered(made(mixed))).words


@pytest.mark.parametrize(
    ("names", "where", "reference", "command"),
    [
        (["quick"], [], "", "make report EXPERIMENT=quick"),
        (["it's; rm -rf /"], [], "", """make report EXPERIMENT='it'"'"'s; rm -rf /'"""),
        (["a", "b"], [], "", ".venv/bin/python -m analysis a b --only report"),
        (["a"], ["seed=0", "epochs=8"], "", ".venv/bin/python -m analysis a --only report --where seed=0 --where epochs=8"),
        (["a"], [], "routing_iterations=1", ".venv/bin/python -m analysis a --only report --reference routing_iterations=1"),
    ],
)
def test_the_command_that_builds_it_again(mixed, names, where, reference, command):
    mixed["experiment"] = [names[i % len(names)] for i in range(len(mixed))]
    page = Page(rendered(made(mixed), where=where, reference=reference))
    assert page.of("pre")[-1] == command


@pytest.mark.parametrize(
    ("uri", "address"),
    [
        ("sqlite:///mlruns/mlflow.db", "http://127.0.0.1:5000/#/experiments/7/runs/abc"),
        ("postgresql://me:secret@there/mlflow", "http://127.0.0.1:5000/#/experiments/7/runs/abc"),
        ("http://there:5000", "http://there:5000/#/experiments/7/runs/abc"),
        ("https://me:secret@there/mlflow/?token=secret#x", "https://there/mlflow/#/experiments/7/runs/abc"),
    ],
)
def test_a_runs_address_has_no_password(uri, address):
    assert run_address(Shelf(uri), "abc") == f"{address}?workflowType=machine_learning"  # not the pages for language models


def test_numbers_stay_with_their_signs_on_one_line():
    tied = report._tied("r = 3 has 1.0 ± 0.1 % (95% interval [−1.0, +1.0], p < 0.0001), lr schedule = constant")
    assert tied.replace("\N{NO-BREAK SPACE}", "~") == (
        "r~=~3 has 1.0~±~0.1~% (95% interval [−1.0,~+1.0], p < 0.0001), lr schedule~= constant"
    ).replace("p < 0", "p~<~0")


# --- figures


def test_figures_keep_their_size_and_order(tmp_path):
    found, faults = illustrate(drawn(tmp_path))
    assert [each.alternative for each in found] == ["Figure: test error by axis", "Figure: perturbation"]
    still, moving = found
    # 120 by 60 pixels at 200 dpi, of which an inch is shown in 130 CSS pixels
    assert (still.width, still.height, still.still) == (78, 39, "")
    assert (moving.width, moving.height) == (40, 40)
    assert moving.still.startswith("data:image/png;base64,")
    assert base64.b64decode(still.source.partition(",")[2]) == (tmp_path / "test_error_by_axis.png").read_bytes()
    assert faults == ["the figure torn.png can't be read: it is no image"]


def test_pages_and_runs_are_named(tmp_path):
    source = next(path for path in drawn(tmp_path) if path.name == "test_error_by_axis.png")
    names = ["test_error_by_cell-2.png", "test_error_by_cell-10.png", "figures/0a1b2c3d/routing.png"]
    names += ["history-validation_error.png", "some-body_s.png"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, tmp_path / name)
    found, _ = illustrate([tmp_path / name for name in reversed(names)])
    assert [each.caption for each in found] == [
        "Test error of each cell: its runs, their mean and its intervals. Page 2.",
        "Test error of each cell: its runs, their mean and its intervals. Page 10.",
        "What routing does in a trained network, pass by pass. Run 0a1b2c3d.",
        "The trials of the search in their order, and the best value so far. Objective: validation error.",
        "Some-body s.",
    ]


# --- cost


def test_energy_is_the_mean_power_of_all_cards_times_the_seconds_of_training(make_runs):
    runs = make_runs({}, seeds=2, errors=[1.0, 2.0])
    power = {
        ("run000", f"system/gpu_{card}_power_usage_watts"): [(0, watts), (1, watts + 20)] for card, watts in ((0, 390), (1, 90))
    }
    store = Shelf(metrics=power)
    [cell] = tables.judged(runs, published=()).cells
    spent, faults = expenses.of_runs([cell], {"quick": store})
    assert spent["run000"] == Expense(1, 12.5, 50 * 55_000, 500 * 12.5)
    assert np.isnan(spent["run001"].joules)
    assert faults == []
    assert "not measured" in expenses.lines_of(sum(spent.values(), Expense()))[1]
    said = expenses.lines_of(spent["run000"])
    assert said[0] == "1 run trained for 12 s in all, without validation and test: 2,750,000 images, 220,000 per second."
    assert said[1].startswith("Meanwhile graphics cards took 1.7 Wh.")
    table = expenses.table([cell], {"run000": spent["run000"], "run001": Expense()})
    assert table.header == ["runs", "training (s)", "per run (s)", "images", "images/s", "energy (Wh)"]
    assert table.rows == [["1", "12.5", "12.5", "2,750,000", "220,000", "1.7"]]


def test_a_store_that_is_away_is_asked_once_and_the_report_is_made_all_the_same(quick):
    failed(quick, 3, "killed")
    store = Shelf("http://me:secret@there", away=True)
    words = Page(rendered(made(quick, store))).words
    assert store.asked == 1  # for what its runs took
    assert (
        "What could not be read or drawn: "
        "seconds and power of runs of quick can't be read: no answer from http://me:***@there" in words
    )
    assert "How long 36 runs trained is not known of each of them." in words


# --- kept with the runs


def test_it_is_kept_with_each_parent_run(mixed, tmp_path):
    store, path = Shelf(texts={"one": YAML, "other": YAML}), tmp_path / "report.html"
    path.write_bytes(b"<!doctype html>")
    (tmp_path / "beside.txt").touch()
    assert report.log(made(mixed, store), path) == []
    assert store.kept == [(f"parent-{name}", "report/report.html", b"<!doctype html>") for name in ("one", "other")]


def test_a_store_that_is_away_keeps_no_report_and_that_is_said(mixed, tmp_path):
    (tmp_path / "report.html").touch()
    [fault] = report.log(made(mixed, Shelf("http://me:secret@there", away=True)), tmp_path / "report.html")
    assert fault == "the report is not kept with the runs of quick: http://me:***@there does not answer"


def test_with_a_real_store(tmp_path, migrated, monkeypatch):
    """From the runs in MLflow to the report among the artifacts of their grid."""
    from mlflow.entities import Dataset, DatasetInput

    from analysis.runs import read_runs
    from capsnet.config import make_config
    from capsnet.metrics import EpochMetrics
    from experiments.record import Ending, now
    from experiments.tracking import Store
    from tests.experiments.conftest import logged

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = tmp_path / "mlruns"
    folder.mkdir()
    shutil.copy(migrated, folder)
    store = Store.open("e", folder, create=True)
    parent = store.parent("g", "description: Why?\nbase: {epochs: 2}\naxes: {routing_iterations: [1, 3]}", "")
    store.parent("s", "", "", kind="search")
    history = [EpochMetrics(n, n, 0.5 / n, 0.4, None, 30.0, 25.0 / n, 1e-3, 2.0, 30.0) for n in (1, 2)]
    ends = (
        Ending("FINISHED", now(), results={"test_error": 0.5, "train_seconds": 4.0}),
        Ending("FAILED", now(), "diverged", "nan"),
    )
    ids = [
        logged(store, folder, make_config({"epochs": 2, "routing_iterations": r}, "here"), end, rows, {}, parent)
        for r, end, rows in zip((1, 3), ends, (history, history[:1]), strict=True)
    ]
    data = Dataset("mnist", "abcd", "local", "{}", profile='{"sha256": "abcdef"}')
    store.client.log_inputs(ids[0], [DatasetInput(data)])
    store.client.log_inputs(ids[1], [DatasetInput(Dataset("mnist", "digest only", "local", "{}"))])
    assert list(store.parents()) == [(parent, "g")]

    found = read_runs("e", folder)
    assert found.data == {ids[0]: [("mnist", "abcdef")], ids[1]: [("mnist", "digest only")]}
    assert dict(zip(found.runs["run_id"], found.runs["data_sha256"], strict=True)) == {ids[0]: "abcdef", ids[1]: "digest only"}
    path = report.write(found, tables.judged(found.runs, found.stores), [], tmp_path / "results")
    assert report.log(found, path) == []
    assert report.log(found, path) == []
    kept = store.artifact(parent, "report/report.html", tmp_path)
    assert Path(kept).read_bytes() == path.read_bytes()
    words = Page(path.read_text(encoding="utf-8")).words
    assert "Why?" in words
    assert "2 runs trained for 6 s in all" in words
    assert "mnist, SHA-256 abcdef 1 run" in words
