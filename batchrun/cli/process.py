"""Load numpy as a process may that is a command's own: without the threads that it starts.

A library must leave them to its user, so this is done here and nowhere below.
"""

from __future__ import annotations

import os

_BLAS_THREADS = "OPENBLAS_NUM_THREADS"


def load_numpy(*, custom: bool = False) -> None:
    """Load numpy, which starts a thread of linear algebra for each further core: 50 ms of CPU time for one.

    Nobody here uses them; they are kept where `custom` code may.
    """
    own = _BLAS_THREADS not in os.environ and not custom
    if own:
        os.environ[_BLAS_THREADS] = "1"
    try:
        import numpy as np  # noqa: F401 - for the threads that it starts
    finally:
        if own:
            del os.environ[_BLAS_THREADS]
