"""What loading sets for the whole process."""

import os
import subprocess
import sys


def test_numpy_multiplies_with_as_many_threads_as_the_config_says():
    """In a process of its own, as the setting stays."""
    code = (
        "import numpy, threadpoolctl as t; from serving.loading import use_threads; use_threads(1);"
        "print({i['num_threads'] for i in t.threadpool_info() if i['user_api'] == 'blas'})"
    )
    two = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "2")
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, **two}
    )
    assert done.stdout.strip() == "{1}"
