"""Capsule networks of "Dynamic Routing Between Capsules" (Sabour, Frosst, Hinton, NIPS 2017), and how one is trained.

Importing the package, or :mod:`capsnet.config`, imports no torch: a plan, a ``--help`` or a refused value answers at once.
"""
