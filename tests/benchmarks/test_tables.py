"""What the tables say of what was measured."""

from types import SimpleNamespace

from benchmarks.clock import Spread
from benchmarks.tables import heading, verdict


def test_the_number_of_processes_is_chosen_by_the_rounds_that_agree():
    one = Spread((1.0, 1.0, 1.0))
    assert verdict({1: one, 2: Spread((1.4, 1.5, 1.6)), 4: Spread((1.2, 1.7, 1.3))}) == "most images/s: 2 at once"
    assert verdict({1: one, 2: Spread((0.8, 0.9, 2.0))}) == "most images/s: 1 at once"
    assert verdict({1: one, 2: Spread((0.9, 1.5, 2.0))}).startswith("undecided: in some rounds 2 at once")


def test_a_table_says_once_that_its_code_was_changed():
    machine = {"memory_bytes": 1e9, "device": "a, 2 threads", "processor": "a", "threads": 2, "cores": 2, "load": 0.5}
    machine |= {"torch": "2", "python": "3", "date": "today", "commit": "0123456789abcdef" * 2 + "-dirty-89abcdef"}
    _, second, _ = heading(SimpleNamespace(machine=machine, seconds=1.0))
    assert second == "PyTorch 2, Python 3, commit 0123456-dirty-89abcdef, today, 1 s"
