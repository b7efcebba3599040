"""What a plan says of a grid: every run in its place, costs that add up, and what the seeds can show."""

import itertools
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from statsmodels.stats.multitest import multipletests

from capsnet.config import RunConfig
from capsnet.metrics import EpochMetrics
from experiments import catalog, overview
from experiments.costs import Pace
from experiments.journal import Progress
from experiments.plan import CellPlan, GridPlan, plan_grid, standing
from experiments.record import Ending, TrackedRun
from experiments.significance import ALPHA, smallest_p
from experiments.sources import SHIPPED, Grid, parse_grid, read_grid
from experiments.tracking import Store
from tests.experiments.conftest import logged

CONFIG = RunConfig(train_size=1000, validation_size=0, epochs=10)
TEXT = """
base: {train_size: 1000, validation_size: 0, epochs: 10}
axes: {routing_iterations: [1, 3]}
seeds: 6
"""
HERE, THERE = "1" * 40, "2" * 40  # commits


def nothing(config: RunConfig) -> Progress | None:
    return None


def tracked(status: str, failure: str = "", *, measured: bool = True, commit: str = HERE) -> TrackedRun:
    """A run of 10 epochs of 2 s, at 1,000 images per second."""
    metrics = {"seconds": 1.0, "images_per_second": 1000.0} if measured else {}
    metrics |= {"parameters": 1e6} if status == "FINISHED" else {}
    tags = {"hardware": "a card", "git_commit": commit} | ({"failure": failure} if failure else {})
    return TrackedRun("id", status, {}, metrics, tags, 0, None if status == "RUNNING" else 20_000)


@pytest.mark.parametrize(
    ("run", "journal", "word", "left"),
    [
        (None, None, "new", 10),
        (None, (0, False), "new", 10),
        (None, (4, False), "partly done", 6),  # the server was away
        (None, (0, True), "running", 10),
        (tracked("FINISHED"), None, "done", None),
        (tracked("FINISHED"), (10, False), "done", None),
        (tracked("RUNNING"), None, "running elsewhere", None),
        (tracked("RUNNING"), (4, True), "running", 6),
        (tracked("RUNNING"), (4, False), "partly done", 6),  # it was killed without a word
        (tracked("RUNNING"), (0, False), "new", 10),
        (tracked("RUNNING"), (10, False), "partly done", 0),  # only its test is missing
        (tracked("KILLED"), (4, False), "partly done", 6),
        (tracked("KILLED"), (0, False), "new", 10),
        (tracked("KILLED"), None, "partly done", 10),  # MLflow has epochs, but there is nothing to go on from
        (tracked("KILLED", measured=False), None, "new", 10),
        (tracked("KILLED"), (4, True), "running", 6),
        (tracked("FAILED", "diverged"), None, "diverged", None),
        (tracked("FAILED", "diverged"), (4, False), "diverged", None),
        (tracked("FAILED", "diverged"), (4, True), "running", 6),  # with --retry-failed
        (tracked("FAILED", "out of memory"), (4, False), "out of memory", 6),
        (tracked("FAILED", "out of memory"), None, "out of memory", 10),
        (tracked("FAILED"), None, "error", 10),
    ],
)
def test_what_is_known_of_a_config(
    run: TrackedRun | None, journal: tuple[int, bool] | None, word: str, left: int | None
) -> None:
    found = standing(CONFIG, run, journal and Progress(*journal))
    assert (found.word, found.epochs_left) == (word, left)
    assert found.failed == (run is not None and run.status == "FAILED" and word != "running")


def mixed() -> tuple[Grid, GridPlan]:
    """Of the first cell two are done, one of them at another commit, and the others are each another thing."""
    grid = parse_grid(TEXT, "g", "g.yaml")
    a, b, c, d, e, f = grid.cells[0].configs
    known = {
        a: tracked("FINISHED"),
        b: tracked("FINISHED", commit=THERE),
        c: tracked("KILLED"),
        d: tracked("RUNNING"),
        e: tracked("FAILED", "diverged"),
    }
    journals = {c: Progress(7, training=False), d: Progress(9, training=True)}
    assert f not in known
    return grid, plan_grid(grid, known, journals.get, HERE, 2)


def test_a_run_of_which_other_code_trained_a_part_counts_as_of_other_code() -> None:
    """As it does for --fresh."""
    grid = parse_grid(TEXT, "g", "g.yaml")
    run = tracked("FINISHED")
    begun_there = replace(run, tags={**run.tags, "before": f"to epoch 1: git_commit {THERE}"})
    moved = replace(run, tags={**run.tags, "before": "to epoch 1: hardware another card"})
    known = dict(zip(grid.cells[0].configs, (begun_there, moved, run), strict=False))
    assert plan_grid(grid, known, nothing, HERE, 1).cells[0].other_code == 1


@pytest.mark.parametrize(
    ("tags", "other"), [({"code": "d"}, 0), ({"code": "e"}, 1), ({"code": "d", "before": "to epoch 1: code e"}, 1)]
)
def test_a_commit_that_leaves_the_modules_as_they_are_is_no_other_code(tags: dict[str, str], other: int) -> None:
    grid = parse_grid(TEXT, "g", "g.yaml")
    run = tracked("FINISHED", commit=THERE)
    known = {grid.cells[0].configs[0]: replace(run, tags={**run.tags, **tags})}
    assert plan_grid(grid, known, nothing, HERE, 1, digest="d").cells[0].other_code == other


def test_time_that_may_be_saved_is_said_to_be_the_most(capsys: pytest.CaptureFixture[str]) -> None:
    for more, said in (("", False), ("validation_size: 500, stop_at_error: 0.5", True)):
        grid = parse_grid(TEXT.replace("validation_size: 0", more or "validation_size: 500"), "g", "g.yaml")
        plan = plan_grid(grid, {grid.cells[0].configs[0]: tracked("FINISHED")}, nothing, HERE, 1)
        assert ("at most: runs with stop_at_error" in printed(plan, capsys)) == said


def test_every_run_is_counted_once_and_costs_add_up() -> None:
    grid, plan = mixed()
    first, second = plan.cells
    assert first.states == {"done": 2, "partly done": 1, "running": 1, "new": 1}
    assert first.failures == {"diverged": 1}
    assert first.other_code == 1
    assert first.left == (3, 1, 10)
    assert first.pace == Pace(2.0, 2, whole=True)
    assert first.seconds == 28.0
    artifacts = 4 * 10**6 + 10_000 * 56  # weights; two integers and ten scores for each image
    assert first.disk == 3 * artifacts
    assert second.states == {"new": 6}
    assert (second.left, second.pace, second.seconds, second.disk) == ((10,) * 6, None, None, None)
    assert plan.states.total() + plan.failures.total() == len(list(grid.configs)) == 12
    assert plan.disk == first.disk
    assert plan.checkpoint_bytes == 2 * 24 * 10**6  # two workers, two checkpoints of 12 bytes per parameter each


def test_the_time_is_shared_by_workers_but_no_less_than_the_longest_run() -> None:
    _, plan = mixed()
    assert plan.seconds == max(14.0, 20.0)
    assert replace(plan, workers=1).seconds == 28.0
    longer = replace(plan, cells=(replace(plan.cells[0], left=(10, 10, 10, 10)),))
    assert longer.seconds == 40.0
    assert replace(longer, workers=99).seconds == 20.0


@pytest.mark.parametrize(("workers", "at_once"), [(0, 1), (1, 1), (4, 4)])
def test_no_worker_is_one_run_after_the_other(workers: int, at_once: int) -> None:
    assert plan_grid(parse_grid(TEXT, "g", "g.yaml"), {}, nothing, HERE, workers).workers == at_once


def test_checkpoints_are_of_the_runs_that_train_at_once_and_the_largest() -> None:
    cells = [replace(mixed()[1].cells[0], left=(1, 1), checkpoint_bytes=size) for size in (5, 7, None)]
    plan = GridPlan(tuple(cells), HERE, 3, "a card")
    assert plan.checkpoint_bytes == 7 + 7 + 5
    assert replace(plan, workers=99).checkpoint_bytes == 2 * (7 + 5)


def test_files_of_a_finished_run_are_not_looked_for() -> None:
    grid = parse_grid(TEXT, "g", "g.yaml")
    known = {config: tracked("FINISHED") for _, config in grid.configs}

    def looked(config: RunConfig) -> Progress | None:
        raise AssertionError(config)

    plan = plan_grid(grid, known, looked, HERE, 1)
    assert plan.states == {"done": 12}
    assert (plan.seconds, plan.disk, plan.checkpoint_bytes) == (0.0, 0, 0)
    assert {(cell.seconds, cell.disk) for cell in plan.cells} == {(0.0, 0)}


def test_a_run_whose_test_alone_is_missing_still_leaves_its_files() -> None:
    grid = parse_grid(TEXT, "g", "g.yaml")
    first, second, *_ = grid.cells[0].configs
    journals = {config: (10, False) for _, config in grid.configs if config != first}
    [cell, _] = plan_grid(grid, {first: tracked("FINISHED"), second: tracked("KILLED")}, journals.get, HERE, 1).cells
    assert (cell.left, cell.seconds, cell.disk) == ((0,) * 5, 0.0, 5 * 4_560_000)


@pytest.mark.parametrize("pairs", range(1, 9))
def test_the_smallest_p_is_that_of_an_enumerated_sign_flip_test(pairs: int) -> None:
    """Of differences that all have one sign: the most extreme that there can be."""
    differences = [1.0 + i for i in range(pairs)]
    sums = [abs(sum(s * d for s, d in zip(signs, differences))) for signs in itertools.product((-1, 1), repeat=pairs)]  # noqa: B905
    assert smallest_p(pairs) == sum(total >= sum(differences) for total in sums) / len(sums)


def printed(plan: GridPlan, capsys: pytest.CaptureFixture[str]) -> str:
    overview.show(plan, "g in experiment e")
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("seeds", "line"),
    [
        ("1", "1 seed: a two-sided paired sign-flip test can't go under p = 1; 6 seeds reach 0.03125 < 0.05"),
        ("5", "5 seeds: a two-sided paired sign-flip test can't go under p = 0.0625; 6 seeds reach 0.03125 < 0.05"),
        ("6", "6 seeds: a two-sided paired sign-flip test can reach p = 0.03125 < 0.05"),
        ("[3, 9]", "2 seeds: a two-sided paired sign-flip test can't go under p = 0.5; 6 seeds reach 0.03125 < 0.05"),
    ],
)
def test_a_plan_says_what_its_seeds_can_show(seeds: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    grid = parse_grid(TEXT.replace("seeds: 6", f"seeds: {seeds}"), "g", "g.yaml")
    assert line in printed(plan_grid(grid, {}, nothing, HERE, 1), capsys).splitlines()


SEEDS = "seeds: a two-sided paired sign-flip test"
HOLM = "in 3 comparisons with a reference, corrected by Holm"


@pytest.mark.parametrize(
    ("seeds", "line"),
    [
        (5, f"5 {SEEDS} can't go under p = 0.0625; 7 seeds reach 0.04688 < 0.05 {HOLM}"),
        (6, f"6 {SEEDS} can reach p = 0.03125 < 0.05, but {HOLM}, no less than 0.09375; 7 seeds reach 0.04688 < 0.05"),
        (7, f"7 {SEEDS} can reach p = 0.01562 < 0.05, and {HOLM}, 0.04688"),
    ],
)
def test_a_plan_says_what_its_seeds_can_show_in_a_table_of_several_differences(
    seeds: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """As statsmodels corrects them: with all of the three at the smallest p, or one of them."""
    text = TEXT.replace("seeds: 6", f"seeds: {seeds}").replace("[1, 3]", "[1, 2, 3, 4]")
    plan = plan_grid(parse_grid(text, "g", "g.yaml"), {}, nothing, HERE, 1)
    assert line in printed(plan, capsys).splitlines()
    smallest = smallest_p(seeds)
    for others in (smallest, 1.0):
        significant, *_ = multipletests([smallest, others, others], method="holm")
        assert bool(significant[0]) == (seeds >= 7)


FEW = {
    "paper",
    "mnist-small",
    "mnist-cells",
}  # whose axes of two values can be claimed, but no cell's difference to a reference


@pytest.mark.parametrize("name", sorted(p.stem for p in SHIPPED.glob("*.yaml")))
def test_a_shipped_grid_has_seeds_enough_to_claim_a_difference(name: str) -> None:
    grid = read_grid(name)
    plan = plan_grid(grid, {}, nothing, HERE, 1)
    able = plan.comparisons * smallest_p(plan.paired_seeds) <= ALPHA
    assert able == (name not in FEW) or len(grid.cells) == 1
    if name in FEW:
        assert smallest_p(plan.paired_seeds) <= ALPHA


def test_differences_are_corrected_together_on_one_data_set() -> None:
    grid = parse_grid(
        "axes: {routing_iterations: [1, 2, 3]}\nalso: [{dataset: fashion_mnist}, {dataset: fashion_mnist, epochs: 3}]",
        "g",
        "g.yaml",
    )
    assert plan_grid(grid, {}, nothing, HERE, 1).comparisons == 2


def test_differences_on_further_test_sets_are_corrected_together(capsys: pytest.CaptureFixture[str]) -> None:
    """As in the table of robustness: affnist's three cells beside the reference, on two test sets."""
    plan = plan_grid(read_grid("affnist"), {}, nothing, HERE, 1)
    assert (plan.own_comparisons, plan.comparisons) == (3, 6)
    said = "in 6 comparisons with a reference on further test sets, corrected by Holm, 0.04688"
    assert said in printed(plan, capsys)
    plan = plan_grid(read_grid("affnist-small"), {}, nothing, HERE, 1)
    assert plan.comparisons == plan.own_comparisons, "one test set is no more than the own"
    assert "on further test sets" not in printed(plan, capsys)
    plan = plan_grid(read_grid("corruptions"), {}, nothing, HERE, 1)
    assert (plan.own_comparisons, plan.comparisons) == (4, 24), "all levels of a corruption are one comparison"


def elsewhere(pace: Pace) -> Pace:
    return replace(pace, elsewhere=True)


def test_what_the_experiment_does_not_tell_of_costs_others_do(capsys: pytest.CaptureFixture[str]) -> None:
    """Its own runs come first; others count only if they ran on the same hardware, and are asked only if needed."""
    grid = parse_grid(TEXT, "g", "g.yaml")
    r1, r3 = (cell.configs[0] for cell in grid.cells)
    slow = replace(tracked("FINISHED"), end=40_000)
    beside = {replaced(r1, seed=50): slow, replaced(r3, seed=50): slow}
    plan = plan_grid(grid, {r1: tracked("FINISHED")}, nothing, HERE, 1, lambda: beside)
    assert [cell.pace for cell in plan.cells] == [Pace(2.0, 1, whole=True), elsewhere(Pace(4.0, 1, whole=True))]
    assert (plan.cells[1].disk, plan.cells[1].checkpoint_bytes) == (6 * 4_560_000, 24 * 10**6)
    said = printed(plan, capsys)
    assert "4.0 min 1 (c)" in " ".join(said.split())
    assert "(c) from runs of other experiments" in said
    assert plan.hardware == "a card"
    other = {config: replace(run, tags=run.tags | {"hardware": "another"}) for config, run in beside.items()}
    assert plan_grid(grid, {r1: tracked("FINISHED")}, nothing, HERE, 1, lambda: other).cells[1].pace is None
    alone = plan_grid(grid, {}, nothing, HERE, 1, lambda: other)
    assert (alone.cells[0].pace, alone.hardware) == (elsewhere(Pace(4.0, 1, whole=True)), "another")

    def asked() -> dict[RunConfig, TrackedRun]:
        raise AssertionError

    known = {r1: tracked("FINISHED"), r3: tracked("FINISHED")}
    assert "(c)" not in printed(plan_grid(grid, known, nothing, HERE, 1, asked), capsys)


def replaced(config: RunConfig, **values: object) -> RunConfig:
    return RunConfig.model_validate(dict(config) | values)


def test_pairs_are_of_seeds_that_all_cells_have(capsys: pytest.CaptureFixture[str]) -> None:
    cells = parse_grid(TEXT, "g", "g.yaml").cells
    some = replace(cells[1], configs=cells[1].configs[3:])
    plan = plan_grid(Grid("g", "", "", (cells[0], some)), {}, nothing, HERE, 1)
    assert plan.paired_seeds == 3
    assert "3 seeds common to all cells (of 3 to 6): a two-sided paired sign-flip test can't go under p = 0.25" in printed(
        plan, capsys
    )
    apart = replace(cells[0], configs=cells[0].configs[:3])
    assert "no seed is common to all cells" in printed(
        plan_grid(Grid("g", "", "", (apart, some)), {}, nothing, HERE, 1), capsys
    )


def test_a_plan_can_be_read_without_colours_at_100_columns(capsys: pytest.CaptureFixture[str]) -> None:
    _, plan = mixed()
    said = printed(plan, capsys)
    assert "\x1b" not in said
    assert max(len(line.rstrip()) for line in said.splitlines()) <= 100
    rows = [line.split() for line in said.splitlines() if line.strip().startswith("routing_iterations=")]
    assert [row[:4] for row in rows] == [["routing_iterations=1", "6", "2", "1"], ["routing_iterations=3", "6", "0", "6"]]
    for words in (
        "1 partly done,",
        "28 s",
        "2 cells, 12 runs, 2 finished, 1 running, 1 partly done, 7 new, 1 diverged",
        "1 finished that other code than 1111111 trained; --fresh trains them again",
        "diverged: would do so again; only --retry-failed trains it again",
        "time: about 20 s with 2 runs at once, 28 s if one after the other",
        "not counted: 1 of 2 cells, since no run of a like config is measured",
        "measured on a card, validation, test and logging included",
        "disk: 13.7 MB of weights and test predictions, and up to 48.0 MB of checkpoints while they train",
        "not counted: 1 of 2 cells, since no run of the same network has finished",
    ):
        assert words in said
    assert "next launch" not in said


def test_a_failure_of_another_kind_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    grid = parse_grid(TEXT, "g", "g.yaml")
    failed = tracked("FAILED", "out of memory", measured=False)
    said = printed(plan_grid(grid, {grid.cells[0].configs[0]: failed}, nothing, HERE, 1), capsys)
    assert "1 out of memory" in said
    assert "out of memory: failed, and goes on at the next launch" in said
    assert "--retry-failed" not in said


def test_long_labels_and_all_that_can_be_said_of_a_cell_fit(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["routing_iterations=1", "reconstruction_weight=0.0005", "lr_schedule=exponential(gamma=0.5,every=50)", "x=[b]"]
    states = Counter(dict.fromkeys(("done", "running", "running elsewhere", "partly done", "new"), 11))
    failures = Counter({"diverged": 11, "out of [b]": 11})
    pace = Pace(1000.0, 1000, whole=False, scaled=True)
    cell = CellPlan(" ".join(words), frozenset(range(77)), states, failures, 11, (10,) * 44, pace, 10**9, 10**9)
    said = printed(GridPlan((cell,), HERE + "-dirty", 4, "a card"), capsys)
    table = said[: said.index("1 cell,")].splitlines()
    assert max(len(line.rstrip()) for line in table) <= 100
    column = slice(1, next(line.index("runs") for line in table if "cell" in line))
    assert "".join(words) in "".join("".join(line[column].split()) for line in table)  # folded, but whole
    for word in ("11 running elsewhere,", "11 partly done,", "11 out of [b]", "5.1 days", "1000 (b)", "44.0 GB"):
        assert any(word in line for line in table)
    assert "1111111-dirty" in said
    assert "running elsewhere: MLflow says so, and no files of it are here; not counted in time and disk" in said


@pytest.mark.parametrize(
    ("status", "images", "mark", "said", "unsaid"),
    [
        ("FINISHED", 1000, "60 s 1 ", "validation, test and logging included", "training alone"),
        ("KILLED", 1000, "50 s 1 (a)", "(a) training alone", "included"),
        ("FINISHED", 2000, "25 s 1 (b)", "(b) training alone, in proportion", "included"),
    ],
)
def test_what_a_time_rests_on_is_said(
    status: str, images: int, mark: str, said: str, unsaid: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Five runs of ten epochs are left; the measured one had 1,000 or 2,000 images."""
    grid = parse_grid(TEXT.replace("[1, 3]", "[3]"), "g", "g.yaml")
    first = grid.cells[0].configs[0]
    measured = RunConfig.model_validate(dict(first) | {"train_size": images, "seed": 99})
    known = {measured: replace(tracked(status), end=12_000 if images == 1000 else 30_000)}
    known |= {first: tracked("FINISHED", measured=False)}
    if images == 2000:
        known[measured] = replace(known[measured], metrics={"images_per_second": 2000.0})
    text = printed(plan_grid(grid, known, nothing, HERE, 1), capsys)
    assert mark in " ".join(text.split())
    assert said in text
    assert unsaid not in text
    assert {m for m in ("(a)", "(b)") if m in text} == {m for m in ("(a)", "(b)") if m in mark}


def test_without_a_measure_no_number_is_made_up(capsys: pytest.CaptureFixture[str]) -> None:
    said = printed(plan_grid(parse_grid(TEXT, "g", "g.yaml"), {}, nothing, HERE, 1), capsys)
    assert "time: unknown (no run of a like config is measured)" in said
    assert "disk: unknown (no run of the same network has finished)" in said
    assert " s " not in said
    assert "MB" not in said


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (119, "119 s"), (120, "2.0 min"), (7199, "120 min"), (7200, "2.0 h"), (172_799, "48 h"), (2e6, "23 days")],
)
def test_durations(seconds: float, text: str) -> None:
    assert overview.duration(seconds) == text


def test_planning_imports_neither_mlflow_nor_torch() -> None:
    code = (
        "import sys, experiments.plan, experiments.overview\nassert not {'mlflow', 'torch', 'ray', 'numpy'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


Command = Callable[..., "subprocess.CompletedProcess[str]"]


def test_the_command_finds_runs_of_other_experiments(command: Command, tiny: Path, mlruns: Path) -> None:
    """The latest ones, and none of the experiment itself."""
    first = parse_grid(tiny.read_text(), "g", "g.yaml").cells[0].configs[0]
    tags = {"grid": "g", "cell": "c", "git_commit": HERE, "hardware": "a card", "versions": "v"}
    for name, seed in (("before", 50), ("before", 51), ("mine", 52)):
        store = Store.open(name, mlruns, create=True)
        assert store is not None
        last = EpochMetrics(1, 1_700_000_000_000, 0.5, 0.4, 200.0, 30.0, 25.0, 1e-3, 2.0, 30.0)
        ending = Ending("FINISHED", 1_700_000_001_000, results={"test_error": 1.0, "parameters": 5})
        logged(store, mlruns, replaced(first, seed=seed), ending, [last], tags, "parent")
    assert [run.params["seed"] for run in catalog.runs_beside("mine", mlruns)] == ["50", "51"]
    assert [run.params["seed"] for run in catalog.runs_beside("mine", mlruns, most=1)] == ["51"]
    assert len(catalog.runs_beside("new", mlruns)) == 3
    assert catalog.runs_beside("new", mlruns / "nowhere") == []
    said = command("plan", str(tiny), "--experiment", "new").stdout
    assert "(c) from runs of other experiments" in said
    assert "measured on a card" in said


def test_the_command_takes_workers_and_refuses_less_than_none(command: Command, tiny: Path) -> None:
    assert "2 cells, 4 runs, 0 finished, 4 new" in command("plan", str(tiny), "--workers", "2").stdout
    refused = command("plan", str(tiny), "--workers", "-1")
    assert refused.returncode == 2
    assert "--workers" in refused.stderr


def filled(mlruns: Path, runs: int) -> str:
    """Finished runs, all begun in the same millisecond: one is logged, the others are its copies. Returns their grid."""
    text = f"base: {{epochs: 1}}\naxes: {{train_size: {list(range(1, runs // 5 + 1))}}}\nseeds: 5"
    store = Store.open("e", mlruns, create=True)
    assert store is not None
    tags = {"grid": "g", "cell": "c", "git_commit": HERE, "hardware": "a card", "versions": "v"}
    last = EpochMetrics(1, 1_700_000_000_000, 0.5, 0.4, 200.0, 30.0, 25.0, 1e-3, 2.0, 30.0)
    ending = Ending("FINISHED", 1_700_000_001_000, results={"test_error": 1.0, "parameters": 5})
    run_id = logged(store, mlruns, RunConfig(train_size=1, epochs=1), ending, [last], tags, "parent")
    database = sqlite3.connect(mlruns / "mlflow.db")
    for table in ("runs", "params", "tags", "latest_metrics"):
        found = database.execute(f"SELECT * FROM {table} WHERE run_uuid = ?", [run_id])
        names = [column[0] for column in found.description]
        rows = [dict(zip(names, row, strict=True)) for row in found]
        copies = []
        for i in range(1, runs):
            params = {"train_size": str(1 + i // 5), "seed": str(i % 5)} if table == "params" else {}
            for row in rows:
                changed = {"value": params[row["key"]]} if params and row["key"] in params else {}
                copies.append(tuple((row | {"run_uuid": f"{i:032x}"} | changed).values()))
        database.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(names))})", copies)
    database.commit()
    database.close()
    return text


TIMED = """
import sys, time
from pathlib import Path
from experiments.known import by_config
from experiments.overview import show
from experiments.plan import plan_grid
from experiments.sources import parse_grid
from experiments.tracking import Store

store = Store.open("e", Path(sys.argv[1]), create=False)
start = time.process_time()
found = list(store.runs())
search, text, plans = time.process_time() - start, sys.stdin.read(), []
for _ in range(3):
    start = time.process_time()
    grid = parse_grid(text, "g", "g.yaml")
    show(plan_grid(grid, by_config(found), lambda config: None, "another commit", 1), "g")
    plans.append(time.process_time() - start)
print(search, min(plans))
"""


@pytest.mark.slow
@pytest.mark.parametrize("runs", [2500, 10_000])
def test_a_plan_adds_at_most_a_quarter_to_the_search_and_leaves_no_run_out(mlruns: Path, runs: int) -> None:
    """With the grid's reading and the table's printing; in a process of its own, where shapes are not checked.

    Processor time, because a busy machine makes either wait; of the plan, the best of three.
    """
    text = filled(mlruns, runs)
    words = [sys.executable, "-c", TIMED, str(mlruns)]
    done = subprocess.run(words, input=text, capture_output=True, text=True, check=True)
    *said, times = done.stdout.splitlines()
    rows = [line.split()[1:] for line in said if line.strip().startswith("train_size=")]
    assert rows == 3 * [["5", "5", "5"]] * (runs // 5)  # runs, done, other code
    assert said.count(f"{runs // 5} cells, {runs} runs, {runs} finished") == 3
    search, added = map(float, times.split())
    assert added <= 0.25 * search
