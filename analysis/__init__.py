"""Tracked runs become tables, plots and pictures: every number with its n, its interval and its origin.

``cells`` groups one row per run into cells, ``statistics`` estimates each, ``published`` knows what others reported, and
``comparisons`` judges them against each other; ``tables`` and ``plots`` write files, ``figures`` shows what a ``trained``
network sees, and ``report`` has it all on one page. What they write depends on the runs alone: not on their order, the date or
chance.
"""
