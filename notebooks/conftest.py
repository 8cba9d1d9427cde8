"""How the notebooks are tested: in their tested size, each in a kernel of its own, the scripts left alone.

python -m pytest --nbval-lax --nbval-current-env notebooks
"""

import os

collect_ignore = ["sources"]
os.environ.setdefault("STEPGRPO_FAST", "1")
