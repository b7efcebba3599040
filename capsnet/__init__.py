"""Capsule networks of "Dynamic Routing Between Capsules" (Sabour, Frosst, Hinton, NIPS 2017), and how one is trained.

Importing the package, or :mod:`capsnet.config`, imports no torch: a plan, a ``--help`` or a refused value answers at once.
"""

import os

# Read when torch is imported, which is why they stand here.
# Threads that wait for work spin for some 20 to 60 us, then sleep. On 2 cores of an EPYC a small network's step takes 8 ms so,
# 13 if they sleep at once, 6.5 if they spin for long. Beside one other busy process it takes 20 ms, and 14 if they sleep at
# once; if they spun for long, a Xeon took seven times as long as with sleep. What isn't GNU's OpenMP knows sleep alone.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
# cuBLAS is deterministic only with a workspace of fixed size.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
