"""The train job: measure, train, measure again, and leave a run folder that tells it all."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepgrpo_lab.engines.models import load_model
from stepgrpo_lab.engines.processes import is_main_process, main_process_value, process_count
from stepgrpo_lab.evaluation.evaluating import Evaluation, completion_pairs
from stepgrpo_lab.evaluation.grading import Grader
from stepgrpo_lab.evaluation.validation import validation_figures
from stepgrpo_lab.method.presets import RolloutSettings
from stepgrpo_lab.method.records import Problem
from stepgrpo_lab.recipes.building import (
    check_recipe_problems,
    check_settings,
    recipe_model,
    recipe_problems,
    recipe_rollout_settings,
    training_problems,
)
from stepgrpo_lab.recipes.engines import recipe_engine
from stepgrpo_lab.recipes.schema import Recipe
from stepgrpo_lab.run.report_files import read_evaluation
from stepgrpo_lab.run.run_evaluation import evaluate_policy
from stepgrpo_lab.run.run_files import (
    open_folder,
    save_policy,
    says_what_cannot_be_written,
    write_environment,
    write_text,
)
from stepgrpo_lab.run.run_trainers import fine_tuner, reinforcer, select_once, selection_figures
from stepgrpo_lab.training.guard import last_checkpoint

if TYPE_CHECKING:
    from transformers import TrainerCallback

    from stepgrpo_lab.training.engine_weights import SyncedEngine

Tell = Callable[[str], None]

BEFORE, AFTER = "evaluation_before.json", "evaluation_after.json"


def _silent(line: str) -> None:
    pass


@dataclass(frozen=True)
class RunResult:
    """Where a run stands.

    Attributes:
        folder: The run folder.
        finished: False after Ctrl-C: ``train(None, folder, resume=True)`` goes on.
        before, after: The test set before and after training; ``after`` is None if unfinished.
    """

    folder: Path
    finished: bool
    before: Evaluation
    after: Evaluation | None


def train(
    recipe: Recipe | None,
    folder: str | Path,
    *,
    resume: bool = False,
    progress: Tell = _silent,
    progress_every: int = 1,
    callbacks: Sequence[TrainerCallback] = (),
) -> RunResult:
    """Carry a recipe out.

    The run folder holds ``recipe.yaml`` (every value spelt out), ``metrics.jsonl``, ``evaluation_before.json``,
    ``evaluation_after.json``, ``completions.jsonl``, ``checkpoints/``, ``model/``, ``environment.json`` and
    ``report.html``; after supervised fine-tuning also ``selection.json``, the completions that were imitated.

    Args:
        recipe: What to do; None takes the recipe of the run that is resumed.
        folder: The run folder, new or empty unless ``resume``.
        resume: Go on from the last checkpoint; what is done already is not done again.
        progress: Receives one line at a time about the state of affairs.
        progress_every: Steps between two such lines.
        callbacks: More callbacks for the trainer; one that is an ``Interrupt`` takes the place of the run's own.

    Raises:
        ValueError: The folder is in use, there is nothing to resume, or the recipe cannot be carried out here.
        OSError: The run folder cannot be written to, or its disk is full; the last checkpoint is kept.
        FloatingPointError: Loss, logits, rewards or gradients are not finite; the message names step and batch.
        KeyboardInterrupt: Ctrl-C outside training, or twice.

    Example:
        >>> train(load_recipe("overthinker"), "runs/first")  # doctest: +SKIP
    """
    if recipe is not None:
        check_settings(recipe)
    with says_what_cannot_be_written(Path(folder)):
        run = _Run(open_folder(recipe, Path(folder), resume), Path(folder), progress, progress_every, callbacks)
        if process_count() > 1:
            run.join_others()
        with closing(run), Grader(timeout=run.recipe.reward.grading_timeout) as grader:
            return run.carry_out(grader)


def measure_untrained(recipe: Recipe, folder: str | Path, *, progress: Tell = _silent) -> Evaluation:
    """Open a run folder and measure the model before training; ``train(None, folder, resume=True)`` does the rest.

    Args:
        recipe: What to do.
        folder: The run folder, new or empty.
        progress: Receives one line at a time about the state of affairs.

    Raises:
        ValueError: The folder is in use, or the recipe cannot be carried out here.

    Example:
        >>> before = measure_untrained(load_recipe("overthinker"), "runs/first")  # doctest: +SKIP
    """
    check_settings(recipe)
    with says_what_cannot_be_written(Path(folder)):
        run = _Run(open_folder(recipe, Path(folder), False), Path(folder), progress, 1)
        with closing(run), Grader(timeout=recipe.reward.grading_timeout) as grader:
            *_, before = run.begin(grader)
            run.note_environment(None)
    return before


@dataclass
class _Run:
    recipe: Recipe
    folder: Path
    tell: Tell
    tell_every: int
    callbacks: Sequence[TrainerCallback] = ()
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    engine: SyncedEngine | None = None

    def join_others(self) -> None:
        """Meet the other processes that were launched with this one: a single one names the folder and speaks."""
        check_settings(self.recipe)  # a resumed run has not yet met them
        self.folder = Path(main_process_value(str(self.folder)))  # a name may hold the time
        if not is_main_process():
            self.tell = _silent

    def close(self) -> None:
        """Stop the engine, if the recipe has one."""
        if self.engine is not None:
            self.engine.close()

    def begin(self, grader: Grader) -> tuple[Any, Any, list[Problem], Evaluation]:
        """Model, tokenizer, test problems, and the untrained model's evaluation on them."""
        data = self.recipe.data
        self.tell("loading model and problems")
        model, tokenizer = recipe_model(self.recipe)
        self.engine = recipe_engine(self.recipe, model, tokenizer)
        if self.engine is not None and self.recipe.model.lora is None:
            self.engine.push(model)  # a server may hold what an earlier run has trained
        test = recipe_problems(data.test, data.counts.test)
        check_recipe_problems(self.recipe, test, data.test, tokenizer, model, grader)
        before = self._measured(BEFORE, lambda: self._evaluate(model, tokenizer, test, grader, "before"))
        return model, tokenizer, test, before

    def carry_out(self, grader: Grader) -> RunResult:
        model, tokenizer, test, before = self.begin(grader)
        trained = self.folder / "model"
        policy: Any
        if main_process_value(trained.is_dir()):
            section = self.recipe.model
            model, tokenizer = load_model(trained, dtype=section.dtype, quantization=section.quantization)
            if self.engine is not None:
                self.engine.push(model)
            policy = nullcontext(model)
        else:
            trainer = self._trainer(model, tokenizer, grader)
            finished = self._train(trainer)
            self.note_environment(trainer)
            if not finished:
                return RunResult(self.folder, False, before, None)
            save_policy(trainer, trained)
            policy = self._policy_of(trainer)
        with policy as model:
            after = self._measured(AFTER, lambda: self._evaluate(model, tokenizer, test, grader, "after"))
        self.note_environment(None)
        if is_main_process():
            rows = completion_pairs(test, before, after)
            write_text(self.folder / "completions.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
            from stepgrpo_lab.run.report import write_report

            write_report(self.folder)
        return RunResult(self.folder, True, before, after)

    def _trainer(self, model: Any, tokenizer: Any, grader: Grader) -> Any:
        """The trainer of the recipe's method, with everything that happens around its steps."""
        from stepgrpo_lab.training.callbacks import MetricsFile, ProgressLine, TokenBudget, Validation

        data, optimisation = self.recipe.data, self.recipe.optimisation
        problems = training_problems(self.recipe)
        check_recipe_problems(self.recipe, problems, data.train, tokenizer, model, grader)
        held_out = recipe_problems(data.validation, data.counts.validation)
        check_recipe_problems(self.recipe, held_out, data.validation, tokenizer, model, grader)
        if self.recipe.method == "sft":
            with self._timed("rollout"):
                selection = select_once(self.recipe, self.folder, model, tokenizer, problems, grader, self.tell)
            trainer: Any = fine_tuner(self.recipe, self.folder, model, tokenizer, selection)
        else:
            trainer = reinforcer(self.recipe, self.folder, model, tokenizer, problems, grader, self.engine)

        truncated = self.recipe.method == "grpo" and self.recipe.rollout.dynamic
        rollout = recipe_rollout_settings(self.recipe) if truncated else None

        def validate(trainer: Any) -> dict[str, float]:
            with self._policy_of(trainer) as policy:
                return validation_figures(
                    lambda settings: self._evaluate(policy, tokenizer, held_out, grader, settings=settings), rollout
                )

        trainer.add_callback(MetricsFile(self.folder / "metrics.jsonl"))  # first: it clears the file for the others
        budget = optimisation.token_budget if self.recipe.method == "grpo" else None
        trainer.add_callback(ProgressLine(self.tell, every=self.tell_every, token_budget=budget))
        trainer.add_callback(Validation(trainer, validate, every=self.recipe.evaluation.every))
        if self.recipe.method == "sft":
            trainer.add_callback(selection_figures(trainer))
        if budget:
            trainer.add_callback(TokenBudget(budget))
        return trainer

    def _policy_of(self, trainer: Any) -> AbstractContextManager[Any]:
        """The policy as it is now, whole; an engine that samples for it gets its weights."""
        from stepgrpo_lab.training.engine_weights import gathered_policy

        if self.engine is not None:
            trainer.sync_weights()
        return gathered_policy(trainer)

    def _train(self, trainer: Any) -> bool:
        """Train to the end; False if Ctrl-C stopped it."""
        from stepgrpo_lab.training.callbacks import Interrupt

        own = [callback for callback in self.callbacks if isinstance(callback, Interrupt)]
        interrupt = own[0] if own else Interrupt(self.tell)
        for callback in dict.fromkeys((*self.callbacks, interrupt)):
            trainer.add_callback(callback)
        found = last_checkpoint(self.folder / "checkpoints", self.tell) if is_main_process() else None
        checkpoint = main_process_value(found)  # a damaged one is removed once
        try:
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        finally:
            interrupt.restore()
            for phase, seconds in trainer.seconds.items():
                self.seconds[phase] += seconds
        return not interrupt.interrupted or trainer.state.global_step >= trainer.state.max_steps

    def _evaluate(
        self,
        model: Any,
        tokenizer: Any,
        problems: Sequence[Problem],
        grader: Grader,
        when: str = "",
        settings: RolloutSettings | None = None,
    ) -> Evaluation:
        def told(done: int, total: int) -> None:
            if when and done % max(1, total // 20 if self.tell_every == 1 else total) == 0:
                self.tell(f"test problems {when} training: {done}/{total}")

        with self.engine.awake() if self.engine else nullcontext() as engine:
            policy = (self.recipe, model, tokenizer)
            return evaluate_policy(
                *policy, problems, grader, test=bool(when), settings=settings, engine=engine, progress=told
            )

    def _measured(self, name: str, measure: Callable[[], Evaluation]) -> Evaluation:
        """An evaluation from its file, or made now and written there."""
        path = self.folder / name
        stored = main_process_value(read_evaluation(path) if is_main_process() and path.exists() else None)
        if stored is not None:
            return stored
        with self._timed(path.stem):
            evaluation = measure()
        if is_main_process():
            write_text(path, json.dumps(evaluation.to_dict()))
        return evaluation

    @contextmanager
    def _timed(self, phase: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[phase] += time.perf_counter() - started

    def note_environment(self, trainer: Any) -> None:
        """Write what the run took so far."""
        if is_main_process():
            write_environment(self.folder, self.seconds, str(trainer.accelerator.device) if trainer else None)
            self.seconds.clear()
