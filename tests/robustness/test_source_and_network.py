"""Our own source evaluates, unpickles and serves nothing; telemetry is off, and no test leaves the machine."""

from __future__ import annotations

import ast
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import stepgrpo_lab
from stepgrpo_lab.recipes import load_recipe
from stepgrpo_lab.training import StepGRPOConfig
from stepgrpo_lab.training.fine_tuning import FineTuneConfig

PACKAGE = Path(stepgrpo_lab.__file__).parent

CALLS = {"eval", "exec", "compile", "__import__", "os.system", "torch.load", "torch.save", "yaml.load", "pickle.loads"}
CALLS |= {"pickle.load", "joblib.load", "numpy.load", "np.load", "marshal.loads", "subprocess.getoutput"}
MODULES = {"pickle", "marshal", "shelve", "dill", "socket", "socketserver", "http", "urllib", "requests", "httpx"}
LIBRARIES = {"wandb", "tensorboard", "mlflow", "comet_ml", "trackio", "uvicorn", "fastapi", "flask", "aiohttp"}


EXECUTING = PACKAGE / "authoring" / "notebooks" / "_submission.py"
"""The one module that runs other people's code: the notebooks that are graded, in a process of their own."""
CONNECTING = PACKAGE / "engines" / "vllm_server.py"
"""The one module that opens connections, to the server whose address it is given."""


def forbidden(source: str) -> list[str]:
    """What a module does that none of ours may do: evaluate, unpickle, open a connection, serve, trust remote code."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.partition(".")[0] in MODULES | LIBRARIES]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found += [node.module] if (node.module or "").partition(".")[0] in MODULES | LIBRARIES else []
        elif isinstance(node, ast.Call):
            found += [ast.unparse(node.func)] if ast.unparse(node.func) in CALLS else []
            shell = [word for word in node.keywords if word.arg in ("shell", "trust_remote_code")]
            found += [ast.unparse(word) for word in shell if ast.unparse(word.value) != "False"]
    return found


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_module_evaluates_unpickles_connects_or_serves(path: Path) -> None:
    found = [name for name in forbidden(path.read_text(encoding="utf-8")) if name != "urllib.parse"]  # it only parses
    if path == EXECUTING:
        assert found and set(found) <= {"exec", "eval", "compile"}
    elif path == CONNECTING:
        assert found and all(name.partition(".")[0] in ("urllib", "http") for name in found)
    else:
        assert found == []


@pytest.mark.parametrize(
    "source",
    ["import pickle", "from urllib.request import urlopen", "eval('1')", "torch.load(x)", "f(trust_remote_code=True)"],
)
def test_the_reader_of_the_source_sees_what_is_forbidden(source: str) -> None:
    assert len(forbidden(source)) == 1


# ---- network and telemetry -------------------------------------------------------------------------------------------


def test_tests_cannot_reach_the_network() -> None:
    with socket.socket() as outside, pytest.raises(ConnectionRefusedError, match="no test may leave this machine"):
        outside.connect(("192.0.2.1", 80))
    with pytest.raises(ConnectionRefusedError, match="no test may leave this machine"):
        socket.getaddrinfo("huggingface.co", 443)
    with socket.socket() as server, socket.socket() as client:
        server.bind(("127.0.0.1", 0))
        server.listen()
        client.connect(server.getsockname())


EVERYTHING = """
import socket, sys
sys.path.insert(0, {tests!r})
tried = []
def refuse(*arguments, **options):
    tried.append(arguments)
    raise OSError("no network here")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = socket.create_connection = refuse
import importlib, pkgutil, stepgrpo_lab, transformers  # transformers first: then our environment variables come late
for found in pkgutil.walk_packages(stepgrpo_lab.__path__, "stepgrpo_lab."):
    if not found.name.endswith("__main__"):
        importlib.import_module(found.name)
from robustness.test_safety import make_trainer
trainer = make_trainer({folder!r})
trainer.train()
trainer.close()
import huggingface_hub.utils._telemetry as telemetry
if hasattr(telemetry, "_TELEMETRY_QUEUE"):
    telemetry._TELEMETRY_QUEUE.join()  # whatever was queued has been sent
assert trainer.args.report_to == [], trainer.args.report_to
print("tried", tried)
"""


def test_importing_everything_and_training_opens_no_connection(tmp_path: Path) -> None:
    program = EVERYTHING.format(tests=str(Path(__file__).parent.parent), folder=str(tmp_path))
    environment = {key: value for key, value in os.environ.items() if "TELEMETRY" not in key and "OFFLINE" not in key}
    environment = {key: value for key, value in environment.items() if key != "CI"}  # TRL tells nobody of CI
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**environment, "PYTHONPATH": str(PACKAGE.parent)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.stdout.splitlines()[-1:] == ["tried []"], done.stdout + done.stderr


def test_nobody_is_reported_to_unless_asked_for(tmp_path: Path) -> None:
    assert load_recipe("overthinker").report_to == "none"
    assert StepGRPOConfig(output_dir=str(tmp_path), use_cpu=True, save_strategy="no").report_to == []
    assert FineTuneConfig(output_dir=str(tmp_path), use_cpu=True).report_to == []
