"""ZeRO-3 without DeepSpeed: weights that are away, hooks that fetch them together, and a rollout in between."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from tiny import tiny_model, tiny_tokenizer

from stepgrpo_lab.method.settings import rollout_settings
from stepgrpo_lab.overthinker.tasks import overthinker_problems
from stepgrpo_lab.training import StepGRPOConfig, StepGRPOTrainer, problems_dataset


class Partitioned:
    """What ZeRO-3 makes of a model: empty parameters, and a hook before each pass in which all processes must meet."""

    def __init__(self, model: Any) -> None:
        self.model = self.module = model
        self.whole = {id(parameter): parameter.data for parameter in model.parameters()}
        self.meetings = 0
        self.gathered = 0
        self.backward_hooks: list[Any] = []
        for parameter in model.parameters():
            parameter.data = torch.empty(0)
            parameter.ds_active_sub_modules = set()
        model.ds_external_parameters = lambda: []
        model.optimizer = SimpleNamespace(parameter_offload=self)
        self._register_deepspeed_module(model)

    def _register_deepspeed_module(self, module: Any) -> None:
        self.forward_hooks = [module.register_forward_pre_hook(self._meet)]

    def _meet(self, *_: Any) -> None:
        self.meetings += 1

    @contextmanager
    def gather(self, parameters: Iterable[torch.nn.Parameter]) -> Iterator[None]:
        """``deepspeed.zero.GatheredParameters``."""
        held = list(parameters)
        self.gathered += 1
        for parameter in held:
            parameter.data = self.whole[id(parameter)]
        try:
            yield
        finally:
            for parameter in held:
                parameter.data = torch.empty(0)


def make_trainer(folder: Path, **changes: Any) -> StepGRPOTrainer:
    settings = {"per_device_train_batch_size": 4, "num_generations": 4, "max_completion_length": 24}
    settings["rollout"] = rollout_settings(markers="paper")
    config = StepGRPOConfig(str(folder), use_cpu=True, max_steps=1, report_to="none", **{**settings, **changes})
    return StepGRPOTrainer(tiny_model(), config, problems_dataset(overthinker_problems("train", 4)), tiny_tokenizer())


def test_a_rollout_gathers_once_and_meets_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make_trainer(tmp_path)
    try:
        trainer.model.train()
        prompts = [trainer.train_dataset[0]["prompt"]] * 4
        expected = trainer.complete(prompts)["completion_ids"]
        trainer._rollouts.clear()
        partitioned = Partitioned(trainer.model)
        deepspeed = ModuleType("deepspeed")
        deepspeed.__spec__ = ModuleSpec("deepspeed", loader=None)  # without metadata: accelerate takes it for absent
        deepspeed.zero = SimpleNamespace(GatheredParameters=partitioned.gather)  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "deepspeed", deepspeed)
        monkeypatch.setattr("trl.distributed.DistributedBackend.is_zero3", property(lambda backend: True))
        assert trainer.complete(prompts)["completion_ids"] == expected
    finally:
        trainer.close()
    assert (partitioned.gathered, partitioned.meetings) == (1, 0)
    assert all(parameter.numel() == 0 for parameter in trainer.model.parameters())
    with pytest.raises(RuntimeError):  # training goes on as ZeRO-3 has it: in every pass all processes meet
        trainer.model(input_ids=torch.tensor([[1]]))
    assert partitioned.meetings == 1


def test_gathering_cannot_be_switched_off(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ds3_gather_for_generation is False"):
        make_trainer(tmp_path, ds3_gather_for_generation=False)
