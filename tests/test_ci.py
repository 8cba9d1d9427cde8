"""The stages of ``.ci/run``, and the workflow that calls them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
WORKFLOW = ROOT / ".github" / "workflows" / "ci.yml"


def ci(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", ROOT / ".ci" / "run", *arguments], capture_output=True, encoding="utf-8")


@pytest.fixture(scope="module")
def stages() -> set[str]:
    listed = ci("--list")
    assert listed.returncode == 0, listed.stderr
    return {line.split()[0] for line in listed.stdout.splitlines()}


def test_the_workflow_calls_stages_that_there_are(stages: set[str]) -> None:
    jobs = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))["jobs"]
    called = {
        stage
        for job in jobs.values()
        for step in job["steps"]
        if (found := re.fullmatch(r"bash \.ci/run (.+)", step.get("run", "")))
        for stage in found[1].split()
    }
    others = {stage for stage in stages if stage.startswith("python")}  # the workflow's matrix has them
    assert called == stages - others


def test_every_supported_python_has_a_job_and_a_stage(stages: set[str]) -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    supported = set(re.findall(r"Programming Language :: Python :: (3\.\d+)", project))
    jobs = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))["jobs"]
    assert set(jobs["all"]["strategy"]["matrix"]["python"]) == supported
    assert len({stage for stage in stages if stage.startswith("python")}) >= len(supported) - 1  # but the default one


def test_actions_are_pinned_to_a_commit_with_its_version_beside_it() -> None:
    used = re.findall(r"uses: (.*)", WORKFLOW.read_text(encoding="utf-8"))
    assert used
    assert all(re.fullmatch(r"[\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+(\.\d+)*", action) for action in used)


@pytest.mark.parametrize("argument", ["tset", "--lst"])
def test_an_unknown_stage_is_refused_before_anything_runs(argument: str) -> None:
    refused = ci(argument)
    assert refused.returncode == 2 and argument in refused.stdout
