"""Keep the libraries underneath from writing where a person reads: the status line, or a notebook."""

from __future__ import annotations

import logging
import os
import warnings


def hush() -> None:
    """What :func:`quiet` does before any of the libraries is imported, which a recipe's check may do."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module="torch")
    for chatty in ("bitsandbytes", "huggingface_hub"):
        logging.getLogger(chatty).setLevel(logging.ERROR)


def quiet() -> None:
    """Switch off the progress bars and warnings of transformers, huggingface_hub, bitsandbytes and torch.

    For programs and notebooks; the library itself never calls it.
    """
    hush()
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
