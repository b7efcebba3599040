"""Launches of one experiment with several folders, which have one tracking store in common."""

import threading
from pathlib import Path

import pytest

from capsnet.errors import InputError
from experiments import leases
from experiments.locks import Launchers
from experiments.tracking import LEASE, Store
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
    store.tag(parent, {LEASE + launchers.identity: "1700000000 here:/long/ago"})
    assert launched(tmp_path / "other", TINY).finished == 4


def test_it_gives_signs_of_life_and_takes_them_back(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "BEAT", 0.05)
    store = opened(shared)
    parent, launchers = begun(store, shared)
    with leases.held(store, parent, launchers):
        name = LEASE + launchers.identity
        store.untag(parent, name)
        for _ in range(200):
            if noted(store, parent):
                break
            threading.Event().wait(0.05)
        assert [*noted(store, parent)] == [name]
    assert not noted(store, parent)


def test_a_store_in_the_folder_needs_no_notes(mlruns: Path) -> None:
    store = opened(mlruns)
    parent, launchers = begun(store, mlruns)
    with leases.held(store, parent, launchers):
        assert not noted(store, parent)
