"""The one line with which every notebook begins: what runs here, on what, and in which size."""

from __future__ import annotations

import html
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from typing import TypeVar

FAST_VARIABLE = "STEPGRPO_FAST"
"""Environment variable: "1" runs the notebooks in the size in which they are tested."""
PACKAGES = ("stepgrpo-lab", "torch", "transformers", "trl", "peft", "ipywidgets", "plotly")

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
        cells = (f"<b>{html.escape(name)}</b> {html.escape(value)}" for name, value in self._facts())
        return f"<p>{' · '.join(cells)}</p>"

    def _facts(self) -> list[tuple[str, str]]:
        place = "Google Colab" if self.colab else "this machine"
        size = f"tested size ({FAST_VARIABLE}=1)" if self.fast else "full size"
        device = self.gpu or f"{os.cpu_count()} CPU cores, no GPU"
        return [("runs on", f"{place}, {device}"), ("size", size), ("Python", self.python), *self.versions.items()]


def setup() -> Lab:
    """Make a notebook ready; it may be called again at any time.

    On Colab it lets widgets from outside Google load. Nothing heavy is imported.

    Raises:
        ValueError: ``STEPGRPO_FAST`` has a value that means nothing.

    Example:
        >>> lab = setup()
        >>> lab.versions["plotly"] != "missing"
        True
    """
    colab = "google.colab" in sys.modules
    if colab:
        from google.colab import output

        output.enable_custom_widget_manager()
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
        told = subprocess.run(
            [tool, "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return told.stdout.strip().partition("\n")[0]
