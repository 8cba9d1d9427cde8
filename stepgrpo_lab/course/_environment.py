"""The one line with which every notebook begins, and what fits the machine that it finds.

:func:`setup` says what runs here, on what, and in which size; from that follow the recipe of the course's last notebook
and a folder for its run.
"""

from __future__ import annotations

import html
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

from stepgrpo_lab.course import _browser
from stepgrpo_lab.recipes import Recipe, load_recipe

FAST_VARIABLE = "STEPGRPO_FAST"
"""Environment variable: "1" runs the notebooks in the size in which they are tested."""
PACKAGES = ("stepgrpo-lab", "torch", "transformers", "trl", "peft", "ipywidgets", "plotly")

WIDGET_PACKAGES, WIDGET_EXTRA = ("ipywidgets", "anywidget"), "stepgrpo-lab[notebooks]"

T = TypeVar("T")


def fast_mode() -> bool:
    """Whether notebooks run in their tested size.

    Raises:
        ValueError: The variable is neither empty, 0 nor 1.
    """
    value = os.environ.get(FAST_VARIABLE, "")
    if value not in ("", "0", "1"):
        raise ValueError(f"{FAST_VARIABLE} is {value!r}: set it to 1 for the tested size, or remove it")
    return value == "1"


@dataclass(frozen=True)
class Lab:
    """Where a notebook runs.

    Attributes:
        fast: Whether experiments run in their tested size.
        colab: Whether this is Google Colab.
        python: Version of Python.
        versions: Package -> installed version; "missing" where there is none.
        gpu: Name of the first NVIDIA GPU; empty without one.
    """

    fast: bool
    colab: bool
    python: str
    versions: Mapping[str, str] = field(repr=False)
    gpu: str = ""

    def size(self, full: T, fast: T) -> T:
        """The size of an experiment: ``full`` for a reader, ``fast`` for the test.

        Example:
            >>> Lab(fast=True, colab=False, python="3.11", versions={}).size(2000, 50)
            50
        """
        return fast if self.fast else full

    @cached_property
    def device(self) -> str:
        """ "cuda" where torch can use a GPU, else "cpu"; imports torch."""
        import torch

        return "cuda" if torch.cuda.is_available() else "cpu"

    @property
    def precision(self) -> str:
        """What to compute in on this device: "bfloat16", "float16" or "float32".

        A T4 says that it can compute in bfloat16, and only emulates it; the compute capability (8.0 and later) decides.
        """
        from stepgrpo_lab.engines.models import native_dtype

        return native_dtype()

    def __repr__(self) -> str:
        return "\n".join(f"{name}: {value}" for name, value in self._facts())

    def _repr_html_(self) -> str:
        from stepgrpo_lab.widgets._page import FIGURE_RULE

        cells = (f"<b>{html.escape(name)}</b> {html.escape(value)}" for name, value in self._facts())
        return f"<style>{FIGURE_RULE}</style><p>{' · '.join(cells)}</p>"

    def _facts(self) -> list[tuple[str, str]]:
        size = f"tested size ({FAST_VARIABLE}=1)" if self.fast else "full size"
        device = self.gpu or f"{os.cpu_count()} CPU cores, no GPU"
        place = f"{'Google Colab' if self.colab else 'this machine'}, {device}"
        if _browser.in_browser():
            place = "this browser; cells that need torch are skipped"
        facts = [("runs on", place), ("size", size), ("Python", self.python), *self.versions.items()]
        missing = [name for name in WIDGET_PACKAGES if find_spec(name) is None]
        if missing:
            facts.append(("widgets stand still", f"{' and '.join(missing)} missing: pip install '{WIDGET_EXTRA}'"))
        return facts


def setup() -> Lab:
    """Make a notebook ready; it may be called again at any time.

    On Colab it lets widgets from outside Google load. Where torch is missing, as in a browser (Pyodide), cells that
    need it are skipped from here on, with a line. Nothing heavy is imported.

    Raises:
        ValueError: ``STEPGRPO_FAST`` has a value that means nothing.

    Example:
        >>> lab = setup()
        >>> lab.versions["plotly"] != "missing"
        True
    """
    colab = "google.colab" in sys.modules
    if colab:
        from stepgrpo_lab.widgets._base import enable_widgets_on_colab

        enable_widgets_on_colab()
    if (_browser.in_browser() or find_spec("torch") is None) and "IPython" in sys.modules:
        _browser.make_ready(sys.modules["IPython"].get_ipython())
    return Lab(fast_mode(), colab, platform.python_version(), {name: _version(name) for name in PACKAGES}, _gpu_name())


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        if package == "stepgrpo-lab":  # run from a checkout that was not installed
            from stepgrpo_lab import __version__

            return __version__
        return "missing"


def _gpu_name() -> str:
    """From the driver's own tool, which takes less time than importing torch."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ""
    try:
        listed = subprocess.run(
            [tool, "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return listed.stdout.strip().partition("\n")[0]


CPU_RECIPE = "overthinker"
GPU_RECIPE = "qwen3-1.7b-qlora-t4"

TESTED_SIZE = (
    "data.counts.train=16",
    "data.counts.validation=6",
    "data.counts.test=12",
    "optimisation.max_steps=2",
    "optimisation.prompts_per_step=2",
    "optimisation.group_size=4",
    "optimisation.rows_per_pass=8",
    "optimisation.save_every=1",
    "evaluation.every=2",
)
"""Changes to the CPU's recipe with which a test of the notebook takes seconds; nothing can be learned in two steps."""

_MIXED_PRECISION = {"bfloat16": "bf16", "float16": "fp16", "float32": "no"}


def full_run_recipe(lab: Lab, name: str | None = None) -> Recipe:
    """The recipe of the full training run: the Overthinker on a CPU, Qwen3-1.7B with QLoRA on a GPU.

    On a GPU it uses the GPU's native precision (:attr:`Lab.precision`). In the tested size it is always the
    Overthinker, in seconds, so that a test needs neither a GPU nor a download.

    Args:
        lab: Where the notebook runs.
        name: Another recipe, taken as it is; by default the machine decides.

    Raises:
        ValueError: There is no such recipe.

    Example:
        >>> on_a_cpu = Lab(fast=True, colab=False, python="3.11", versions={})
        >>> full_run_recipe(on_a_cpu).optimisation.max_steps
        2
    """
    if lab.fast:
        return load_recipe(CPU_RECIPE, TESTED_SIZE)
    if name is not None or lab.device == "cpu":
        return load_recipe(name or CPU_RECIPE)
    mixed = _MIXED_PRECISION[lab.precision]
    precision = (f"model.dtype={lab.precision}", f'optimisation.mixed_precision="{mixed}"')
    return load_recipe(GPU_RECIPE, precision)


def new_run_folder(lab: Lab, name: str = "full-run", parent: str | Path = "runs") -> Path:
    """A folder that no run has used: ``runs/full-run-1``, ``-2``, ...; in the tested size, a temporary one.

    Args:
        lab: Where the notebook runs.
        name: What the folder's name begins with.
        parent: Where it is to lie.

    Example:
        >>> new_run_folder(Lab(fast=False, colab=False, python="3.11", versions={}), parent="no/such/folder").name
        'full-run-1'
    """
    if lab.fast:
        return Path(tempfile.mkdtemp(prefix="stepgrpo-")) / name
    number = 1
    while (Path(parent) / f"{name}-{number}").exists():
        number += 1
    return Path(parent) / f"{name}-{number}"
