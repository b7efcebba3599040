"""What the tables say of what was measured."""

from benchmarks.clock import Spread
from benchmarks.tables import verdict


def test_the_number_of_processes_is_chosen_by_the_rounds_that_agree():
    one = Spread((1.0, 1.0, 1.0))
    assert verdict({1: one, 2: Spread((1.4, 1.5, 1.6)), 4: Spread((1.2, 1.7, 1.3))}) == "most images/s: 2 at once"
    assert verdict({1: one, 2: Spread((0.8, 0.9, 2.0))}) == "most images/s: 1 at once"
    assert verdict({1: one, 2: Spread((0.9, 1.5, 2.0))}).startswith("undecided: in some rounds 2 at once")
