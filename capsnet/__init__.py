"""Capsule networks of "Dynamic Routing Between Capsules" (Sabour, Frosst, Hinton, NIPS 2017), and how one is trained.

Importing the package, or :mod:`capsnet.config`, imports no torch: a plan, a ``--help`` or a refused value answers at once.
"""

import os

# Read when torch is imported, which is why they stand here.
# Threads that wait for work sleep instead of spinning: beside one other busy process on 2 cores, a small network's epoch takes
# 0.11 s instead of 0.70 s (r = 1), and alone it is as fast.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# cuBLAS is deterministic only with a workspace of fixed size.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
