"""What must hold of the installed wheel: run with its Python, outside the repository."""

import sys
import time

start = time.perf_counter()
import stepgrpo_lab  # noqa: E402  (timed)

seconds = time.perf_counter() - start
print(f"import took {seconds:.3f} s from {stepgrpo_lab.__file__}")
if not stepgrpo_lab.__file__.startswith(sys.prefix):
    sys.exit("this is not the installed wheel")
if "torch" in sys.modules or seconds > 1:
    sys.exit("importing stepgrpo_lab must be instant and leave torch alone")
for name in stepgrpo_lab.__all__:
    getattr(stepgrpo_lab, name)
print("data in", stepgrpo_lab.data_path("overthinker"))
from stepgrpo_lab import widgets  # noqa: E402

for name in widgets.__all__:
    getattr(widgets, name)()
