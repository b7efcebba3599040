"""Launches of one experiment with several folders, which have one tracking store in common."""

import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from capsnet.errors import InputError
from experiments import leases
from experiments.gridding import end_parents
from experiments.locks import Launchers
from experiments.record import LEASE
from experiments.tracking import Store
from tests.experiments.conftest import TINY, launched, opened


@pytest.fixture
def shared(mlruns: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder; the store that it has in common with others lies elsewhere."""
    (tmp_path / "server").mkdir()
    (mlruns / "mlflow.db").rename(tmp_path / "server" / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'server' / 'mlflow.db'}")
    return mlruns


def begun(store: Store, folder: Path) -> tuple[str, Launchers]:
    return store.parent("tiny", TINY, ""), Launchers(folder, store.name, store.key)


def noted(store: Store, parent: str) -> dict[str, str]:
    tags = store.client.get_run(parent).data.tags
    return {name: value for name, value in tags.items() if name.startswith(LEASE)}


def appears(what: Callable[[], object]) -> None:
    """Wait for it, ten seconds at most."""
    for _ in range(200):
        if what():
            break
        threading.Event().wait(0.05)


def test_a_launch_with_another_folder_is_refused_while_this_one_lives(shared: Path, tmp_path: Path) -> None:
    """Even between two runs; and afterwards it knows what this one trained."""
    store = opened(shared)
    with leases.held(store, *begun(store, shared)), pytest.raises(InputError) as refused:
        launched(tmp_path / "other", TINY)
    assert f":{shared}; give both the same --mlruns, or wait for its end" in str(refused.value)
    assert not list(store.runs())
    assert launched(shared, TINY).finished == 4
    assert launched(tmp_path / "other", TINY).before == 4
    assert len(list(store.runs())) == 4


def test_shards_have_one_folder_wherever_it_is_mounted(shared: Path, tmp_path: Path) -> None:
    store = opened(shared)
    (tmp_path / "mounted").symlink_to(shared)
    with leases.held(store, *begun(store, shared)), leases.held(store, *begun(store, tmp_path / "mounted")):
        pass


def test_who_begins_at_the_same_moment_is_seen(shared: Path, tmp_path: Path) -> None:
    """Both have found nobody before they noted themselves; one of them at least goes no further."""
    store, refused, meet = opened(shared), [], threading.Barrier(2)

    def begin(folder: Path) -> None:
        parent, launchers = begun(store, folder)
        leases.refuse(store, launchers)
        meet.wait(10)
        try:
            with leases.held(store, parent, launchers):
                meet.wait(10)
        except InputError as error:
            refused.append(str(error))
            meet.abort()
        except threading.BrokenBarrierError:
            pass

    store.parent("tiny", TINY, "")
    threads = [threading.Thread(target=begin, args=(tmp_path / name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert refused


def test_a_launch_that_died_is_in_nobodys_way_for_long(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = opened(shared)
    parent, launchers = begun(store, shared)
    store.tag(parent, {LEASE + "a": f"1700000000 {launchers.identity} here:/long/ago"})
    assert launched(tmp_path / "other", TINY).finished == 4
    assert not noted(store, parent)


def test_it_gives_signs_of_life_and_takes_them_back(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "BEAT", 0.05)
    store = opened(shared)
    parent, launchers = begun(store, shared)
    with leases.held(store, parent, launchers):
        [name] = noted(store, parent)
        store.untag(parent, name)
        appears(lambda: noted(store, parent))
        assert [*noted(store, parent)] == [name]
    threading.Event().wait(0.2)
    assert not noted(store, parent)


def test_it_goes_on_to_give_signs_of_life_after_the_store_was_away(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "BEAT", 0.05)
    store, away, tried = opened(shared), threading.Event(), []
    parent, launchers = begun(store, shared)
    real = Store.tag

    def tag(self: Store, run_id: str, tags: dict[str, str]) -> None:
        if away.is_set():
            tried.append(run_id)
            raise ConnectionError("nobody is there")
        real(self, run_id, tags)

    monkeypatch.setattr(Store, "tag", tag)
    with leases.held(store, parent, launchers):
        away.set()
        appears(lambda: len(tried) > 1)
        away.clear()
        [name] = noted(store, parent)
        store.untag(parent, name)
        appears(lambda: noted(store, parent))
        assert [*noted(store, parent)] == [name]


@pytest.mark.parametrize(("age", "lives"), [(0, True), (80, True), (100, False), (-80, True), (-100, False), (-1e6, False)])
def test_a_note_is_news_for_some_seconds_by_either_clock(age: float, lives: bool) -> None:
    """One of the future, by a clock that was wrong, would be in the way until then."""
    assert leases.Note("", "", age, "", "").is_news == lives


def test_a_shard_that_ends_leaves_the_others_their_notes(shared: Path, tmp_path: Path) -> None:
    store = opened(shared)
    parent, launchers = begun(store, shared)
    with leases.held(store, parent, launchers):
        with leases.held(store, parent, launchers):
            assert len(noted(store, parent)) == 2
        assert len(noted(store, parent)) == 1
        with pytest.raises(InputError, match="is being launched with another folder"):
            launched(tmp_path / "other", TINY)


def test_a_copy_of_a_folder_is_another_folder(shared: Path, tmp_path: Path) -> None:
    store = opened(shared)
    identity = begun(store, shared)[1].identity
    shutil.copytree(shared, tmp_path / "copy")
    moved = shared.rename(tmp_path / "moved")
    assert begun(store, moved)[1].identity == identity
    with leases.held(store, *begun(store, moved)), pytest.raises(InputError, match="with another folder"):
        leases.refuse(store, begun(store, tmp_path / "copy")[1])


def test_the_folder_that_holds_the_store_is_one_of_several(
    mlruns: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened(mlruns)
    with leases.held(store, *begun(store, mlruns)):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", store.uri)
        with pytest.raises(InputError, match="with another folder"):
            launched(tmp_path / "other", TINY)


def test_sync_with_another_folder_leaves_a_living_launchs_parent_open(shared: Path, tmp_path: Path) -> None:
    store = opened(shared)
    parent, launchers = begun(store, shared)
    with leases.held(store, parent, launchers):
        assert end_parents(store, begun(store, tmp_path / "other")[1]) == []
        assert store.client.get_run(parent).info.status == "RUNNING"
        store.end(parent, "KILLED")  # as somebody may in MLflow
        with pytest.raises(InputError, match="with another folder"):
            launched(tmp_path / "other", TINY)
    assert end_parents(store, launchers) == []


def test_a_store_that_fails_is_told_of_in_a_line(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = opened(shared)
    parent, launchers = begun(store, shared)

    def full(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Store, "tag", full)
    with pytest.raises(InputError, match=r"the tracking store .* failed: disk full"), leases.held(store, parent, launchers):
        pass
