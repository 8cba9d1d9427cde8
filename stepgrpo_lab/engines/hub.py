"""The Hugging Face hub: asked only for what is not on this machine, and given up on in seconds if it is silent."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypedDict

from stepgrpo_lab.engines.files import SMALL, read_json
from stepgrpo_lab.engines.paths import cache_folder, data_path
from stepgrpo_lab.method.names import did_you_mean, shown
from stepgrpo_lab.method.records import from_json

EMBEDDED = ("overthinker", "overthinker-2", "overthinker-2-step-grpo")
"""Names of the embedded models wherever a model path is asked for; each is also its folder in the package's data."""

FETCHED = ("smollm2-135m",)
"""Names of the pretrained models that ``stepgrpo fetch`` brings, wherever a model path is asked for."""

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"

SECONDS = 5.0
"""How long the hub may take to answer at all; its own library would try for a minute."""

MOST_PATH = 4000
"""Most characters of a path in a file."""

_HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", re.ASCII)


def model_location(path_or_id: str | Path) -> str:
    """The folder or Hugging Face id that a model path stands for.

    The name of an embedded or a fetched model stands for its folder, and a run folder for the model that it trained.

    Raises:
        ValueError: The model has not been fetched, or the run has not been trained to its end.

    Example:
        >>> model_location("some/model")
        'some/model'
    """
    if str(path_or_id) in EMBEDDED:
        return str(data_path(str(path_or_id)))
    if str(path_or_id) in FETCHED:
        return str(_fetched(str(path_or_id)))
    folder = Path(path_or_id)
    if not (folder / "recipe.yaml").is_file() or any(
        (folder / name).is_file() for name in ("config.json", ADAPTER_CONFIG)
    ):
        return str(path_or_id)
    if not (folder / "model").is_dir():
        raise ValueError(f"{folder} holds no trained model yet: give a finished run (--resume goes on with this one)")
    return str(folder / "model")


def fetched_folder(name: str) -> Path | None:
    """Where a fetched model of this name lies, or would; None without a cache folder."""
    caches = cache_folder()
    return caches and caches / "models" / name


def _fetched(name: str) -> Path:
    folder = fetched_folder(name)
    if folder is None or not (folder / "config.json").is_file():
        raise ValueError(f"model {name!r} is not on this machine: stepgrpo fetch {name}")
    return folder


def loading_options(path_or_id: str | Path) -> dict[str, Any]:
    """Check that a model can be found, before anything of it is loaded.

    Returns:
        What ``from_pretrained`` is to be told: whether the files of this machine are all there is. A folder is never
        looked for on the hub, and neither is a model of an earlier download while the hub does not answer.

    Raises:
        ValueError: No such folder, a folder without a model, or an id that the hub does not know or cannot be asked
            for; the message says which.

    Example:
        >>> loading_options("overthinker")
        {'local_files_only': True}
    """
    location = model_location(path_or_id)
    folder = Path(location)
    try:
        if folder.is_dir():
            return _local_options(folder)
        if not _HUB_ID.fullmatch(location):
            raise ValueError(
                f"there is no such folder, and it is no Hugging Face id{did_you_mean(location, (*EMBEDDED, *FETCHED))}"
            )
        return _hub_options(location)
    except (ValueError, OSError) as error:
        raise ValueError(
            f"model {shown(str(path_or_id))} cannot be loaded: {error} (give a folder with config.json and "
            "*.safetensors, or a Hugging Face id that can be reached)"
        ) from error


def _local_options(folder: Path) -> dict[str, Any]:
    if (folder / "config.json").is_file():
        return {"local_files_only": True}
    if not (folder / ADAPTER_CONFIG).is_file():
        raise ValueError(f"{folder} holds no config.json")
    base = read_json(folder / ADAPTER_CONFIG, base_of_adapter, "correct it, or save the adapter again with peft", SMALL)
    if is_adapter(base):
        raise ValueError(f"its base model {shown(base)} is an adapter itself: merge that with stepgrpo export")
    return loading_options(base)


def base_of_adapter(config: Any) -> str:
    """The folder or Hugging Face id of the model below an adapter, from its configuration's plain values.

    Raises:
        ValueError: It names none.

    Example:
        >>> base_of_adapter({"base_model_name_or_path": "some/model"})
        'some/model'
    """
    named = from_json(_Named, config)["base_model_name_or_path"]
    if not named or len(named) > MOST_PATH or "\0" in named:
        raise ValueError("field 'base_model_name_or_path' names no model: write the base model's path")
    return model_location(named)


class _Named(TypedDict):
    base_model_name_or_path: str


def is_adapter(location: str) -> bool:
    """Whether a folder holds an adapter and no whole model."""
    folder = Path(location)
    return (folder / ADAPTER_CONFIG).is_file() and not (folder / "config.json").is_file()


def _hub_options(hub_id: str) -> dict[str, Any]:
    from huggingface_hub import HfApi, try_to_load_from_cache

    here = any(isinstance(try_to_load_from_cache(hub_id, name), str) for name in ("config.json", ADAPTER_CONFIG))
    silent = hub_silence()
    if silent and not here:
        near = did_you_mean(hub_id, (*EMBEDDED, *FETCHED))
        raise ValueError(
            f"it is neither a folder nor an earlier download, and the hub cannot be asked ({silent}){near}"
        )
    if not here:
        try:
            HfApi().model_info(hub_id, timeout=2 * SECONDS)
        except Exception as error:  # the errors of its HTTP client have no base class of ours
            raise ValueError(f"it is no folder, and the hub says: {first_line(error)}") from error
    return {"local_files_only": silent is not None}


def hub_silence() -> str | None:
    """Why the hub cannot be asked; None if it answers."""
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    try:
        get_session().head(constants.ENDPOINT, timeout=SECONDS)
    except Exception as error:  # as above
        return f"{constants.ENDPOINT} does not answer: {first_line(error)}"
    return None


@contextmanager
def asking_the_hub() -> Iterator[str | None]:
    """Let ``datasets`` ask the hub; where it cannot be asked, earlier downloads are all there is.

    Yields:
        Why the hub cannot be asked, as :func:`hub_silence`.
    """
    import datasets
    from huggingface_hub import constants

    silent = hub_silence()
    holders: list[Any] = [constants, getattr(datasets, "config", constants)]
    before = [holder.HF_HUB_OFFLINE for holder in holders]
    try:
        for holder in holders if silent else ():
            holder.HF_HUB_OFFLINE = True
        yield silent
    finally:
        for holder, value in zip(holders, before, strict=True):
            holder.HF_HUB_OFFLINE = value


def first_line(error: BaseException) -> str:
    """What an error of another library says, on one line."""
    lines = (str(error).strip() or type(error).__name__).splitlines()
    return " ".join(line.strip() for line in lines[: 2 if lines[0].endswith(":") else 1])[:500]
