"""Load numpy and pyarrow as a process may that is a command's own: without what they bring beside.

A library must leave both to its user, so this is done here and nowhere below. The figures are CPU time on two cores.
"""

from __future__ import annotations

import os
import sys

_BLAS_THREADS = "OPENBLAS_NUM_THREADS"


def load_arrow(*, custom: bool = False) -> None:
    """Load numpy and pyarrow, without what they start or load beside and nobody here uses.

    numpy starts a thread of linear algebra for each further core (50 ms for one), which it keeps where `custom` code may use
    them. pyarrow looks for pandas when it is first handed a list, to ask what the list is (0.3 s): it now looks once and finds
    none. Whoever needs pyarrow's pandas conversions later in this process still gets them: it then looks again.
    """
    own = _BLAS_THREADS not in os.environ and not custom
    if own:
        os.environ[_BLAS_THREADS] = "1"
    try:
        import numpy as np  # noqa: F401 - for the threads that it starts
    finally:
        if own:
            del os.environ[_BLAS_THREADS]
    import pyarrow as pa

    if "pandas" in sys.modules:
        return
    finder = _NoPandas()
    sys.meta_path.insert(0, finder)
    try:
        pa.array([0])
    finally:
        sys.meta_path.remove(finder)


class _NoPandas:
    """A finder that says of pandas that it is not installed."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:  # noqa: ARG002 - the import system's
        """Refuse pandas, know nothing else."""
        if name == "pandas":
            raise ModuleNotFoundError(name=name)
