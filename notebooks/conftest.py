"""How the notebooks are tested: in their tested size, each in a kernel of its own, the scripts left alone.

python -m pytest --nbval-lax --nbval-current-env notebooks
"""

import os

collect_ignore = ["sources"]
os.environ.setdefault("STEPGRPO_FAST", "1")
# Two kernels with two threads each on two cores wait for each other: one thread each is several times as fast.
os.environ.setdefault("OMP_NUM_THREADS", "1")
