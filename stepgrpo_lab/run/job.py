"""The train job: measure, train, measure again, and leave a run folder with the whole record."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepgrpo_lab.engines.distributed import broadcast, is_main_process
from stepgrpo_lab.engines.files import write_atomically
from stepgrpo_lab.engines.models import load_model
from stepgrpo_lab.engines.writers import Writer
from stepgrpo_lab.evaluation.evaluating import validation_figures
from stepgrpo_lab.evaluation.grading import Grader
from stepgrpo_lab.evaluation.results import Evaluation, completion_pairs
from stepgrpo_lab.method.records import Problem
from stepgrpo_lab.method.rewards import BatchReward, GroupReward
from stepgrpo_lab.method.settings import RolloutSettings
from stepgrpo_lab.method.steps import Segmenter
from stepgrpo_lab.recipes._building import (
    Parts,
    note_passed,
    recipe_engine,
    recipe_model,
    recipe_parts,
    trainer_config,
)
from stepgrpo_lab.recipes.loading import check_recipe
from stepgrpo_lab.recipes.schema import Recipe
from stepgrpo_lab.run._kept import evaluation_key, measured_once
from stepgrpo_lab.run._policy import evaluate_policy, fine_tuner, reinforcer, select_once
from stepgrpo_lab.run._start import Problems, check_fit, check_machine, check_optimiser, gone_if_refused
from stepgrpo_lab.run.folder import (
    check_unused,
    disk_errors_named,
    errors_logged,
    new_parts,
    read_evaluation,
    save_policy,
    start_folder,
    stored_recipe,
    write_environment,
)
from stepgrpo_lab.training._guard import last_checkpoint

if TYPE_CHECKING:
    from transformers import TrainerCallback

    from stepgrpo_lab.training._engine_weights import SyncedEngine

Progress = Callable[[str], None]

BEFORE, AFTER = "evaluation_before.json", "evaluation_after.json"
LAST = "report.html"
"""What a run writes last."""


def _silent(line: str) -> None:
    pass


@dataclass(frozen=True)
class RunResult:
    """Where a run stands.

    Attributes:
        folder: The run folder.
        finished: False after Ctrl-C, SIGTERM or SIGHUP: ``train(None, folder, resume=True)`` goes on.
        before, after: The test set before and after training; ``after`` is None if unfinished.
        signal: Number of the signal that stopped it, if one did.
    """

    folder: Path
    finished: bool
    before: Evaluation
    after: Evaluation | None
    signal: int | None = None


def train(
    recipe: Recipe | None,
    folder: str | Path,
    *,
    reward: GroupReward | BatchReward | None = None,
    segmenter: Segmenter | None = None,
    resume: bool = False,
    progress: Progress = _silent,
    progress_every: int = 1,
    callbacks: Sequence[TrainerCallback] = (),
) -> RunResult:
    """Run a recipe.

    The run folder holds ``recipe.yaml`` (every value spelt out), ``metrics.jsonl``, ``evaluation_before.json``,
    ``evaluation_after.json``, ``completions.jsonl``, ``checkpoints/``, ``model/``, ``environment.json`` and
    ``report.html``; after supervised fine-tuning also ``selection.json``, the completions that were imitated.

    Args:
        recipe: What to do; None takes the recipe of the run that is resumed.
        folder: The run folder, new or empty unless ``resume``.
        reward: A reward of your own in place of the recipe's: a function of one group (see
            :class:`~stepgrpo_lab.method.rewards.GroupReward`). A resumed run needs it again; one that the recipe names
            as ``reward.function: "module:name"`` is found again.
        segmenter: What a semantic step is, in place of the recipe's markers; as with ``reward``, or
            ``rollout.segmenter: "module:name"``.
        resume: Go on from the last checkpoint; what is done already is not done again.
        progress: Receives one line at a time about the state of affairs.
        progress_every: Steps between two such lines.
        callbacks: More callbacks for the trainer; one that is an ``Interrupt`` takes the place of the run's own.

    Raises:
        ValueError: The folder holds something else, there is nothing to resume, or the recipe cannot run here.
        InUseError: Another process is writing there; the message names it, and nothing was touched.
        OSError: The run folder cannot be written to, or its disk is full; the last checkpoint is kept.
        FloatingPointError: Loss, logits, rewards or gradients are not finite; the message names step and batch.
        KeyboardInterrupt: Ctrl-C (or SIGTERM, SIGHUP) outside training, or twice.

    An error that nobody foresaw leaves its traceback in ``error.log``.

    Example:
        >>> train(load_recipe("overthinker"), "runs/first")  # doctest: +SKIP
    """
    with disk_errors_named(Path(folder)), _opened(recipe, Path(folder), resume, reward, segmenter) as run:
        run.progress, run.progress_every, run.callbacks = progress, progress_every, callbacks
        with Grader(timeout=run.recipe.reward.grading_timeout) as grader:
            return run.train(grader)


def measure_untrained(
    recipe: Recipe,
    folder: str | Path,
    *,
    reward: GroupReward | BatchReward | None = None,
    segmenter: Segmenter | None = None,
    progress: Progress = _silent,
) -> Evaluation:
    """Open a run folder and measure the model before training; ``train(None, folder, resume=True)`` does the rest.

    Args:
        recipe: What to do.
        folder: The run folder, new or empty.
        reward, segmenter: As in :func:`train`, which needs them again.
        progress: Receives one line at a time about the state of affairs.

    Raises:
        ValueError: The folder is in use, or the recipe cannot run here.

    Example:
        >>> before = measure_untrained(load_recipe("overthinker"), "runs/first")  # doctest: +SKIP
    """
    with disk_errors_named(Path(folder)), _opened(recipe, Path(folder), False, reward, segmenter) as run:
        run.progress = progress
        with Grader(timeout=recipe.reward.grading_timeout) as grader:
            *_, before = run.begin(grader)
            run.note_environment(None)
    return before


@contextmanager
def _opened(recipe: Recipe | None, folder: Path, resume: bool, reward: Any, segmenter: Any) -> Iterator[_Run]:
    """Refuse what cannot run before anything is written or loaded, then open the folder, as its only writer."""
    if resume:
        recipe = stored_recipe(folder)
    elif recipe is None:
        raise ValueError("no recipe given: pass one, or resume a run")
    else:
        recipe = note_passed(recipe, reward, segmenter)
    made: list[Path] | None = None
    if not resume:
        check_recipe(recipe)
        if is_main_process():
            check_unused(folder)
            made = new_parts(folder)
    parts = recipe_parts(recipe, reward, segmenter)
    problems = check_machine(recipe)
    config = trainer_config(recipe, folder)  # processes that were launched together meet here
    check_optimiser(recipe, config)
    with Writer.in_folder(folder) if is_main_process() else nullcontext():
        if not resume and is_main_process():
            start_folder(recipe, folder)
        folder = Path(broadcast(str(folder)))  # a name may hold the time
        config.output_dir = str(folder / "checkpoints")
        with errors_logged(folder), closing(_Run(recipe, folder, config, parts, problems, made)) as run:
            yield run


@dataclass
class _Run:
    recipe: Recipe
    folder: Path
    config: Any
    parts: Parts
    problems: Problems
    made: list[Path] | None
    progress: Progress = _silent
    progress_every: int = 1
    callbacks: Sequence[TrainerCallback] = ()
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    reused: dict[str, float] = field(default_factory=dict)
    engine: SyncedEngine | None = None
    stopped_by: int | None = None

    def _say(self, line: str) -> None:
        """Report a line of progress, from one process of several."""
        if is_main_process():
            self.progress(line)

    def close(self) -> None:
        """Stop the engine, if the recipe has one."""
        if self.engine is not None:
            self.engine.close()

    def begin(self, grader: Grader) -> tuple[Any, Any, list[Problem], Evaluation]:
        """Model, tokenizer, test problems, and the untrained model's evaluation on them."""
        with gone_if_refused(self.folder, self.made):
            self._say("loading model and problems")
            model, tokenizer = recipe_model(self.recipe)
            check_fit(self.recipe, self.problems, model, tokenizer, grader)
            self.engine = recipe_engine(self.recipe, model, tokenizer)
            if self.engine is not None and (self.recipe.model.lora is None or hasattr(model, "peft_config")):
                self.engine.push(model)  # a server may hold what an earlier run has trained
        test = self.problems["test"]
        before = self._measured(BEFORE, lambda: self._untrained(model, tokenizer, test, grader))
        return model, tokenizer, test, before

    def _untrained(self, model: Any, tokenizer: Any, test: list[Problem], grader: Grader) -> Evaluation:
        """Measured now, or by an earlier run on the same; not where code of your own or another engine takes part."""

        def measure() -> Evaluation:
            return self._evaluate(model, tokenizer, test, grader, "before")

        if self.engine is not None or self.parts.segmenter is not None:
            return measure()
        evaluation, seconds = measured_once(
            lambda: evaluation_key(self.recipe, model, tokenizer, test), measure, self._say
        )
        if seconds is not None:
            self.reused["evaluation_before"] = seconds
        return evaluation

    def train(self, grader: Grader) -> RunResult:
        model, tokenizer, test, before = self.begin(grader)
        trained = self.folder / "model"
        policy: Any
        if broadcast(trained.is_dir()):
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
                return RunResult(self.folder, False, before, None, self.stopped_by)
            save_policy(trainer, trained)
            policy = self._policy_of(trainer)
        with policy as model:
            after = self._measured(AFTER, lambda: self._evaluate(model, tokenizer, test, grader, "after"))
        self.note_environment(None)
        if is_main_process():
            rows = completion_pairs(test, before, after)
            write_atomically(self.folder / "completions.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
            from stepgrpo_lab.run.report import write_report

            write_report(self.folder)
        return RunResult(self.folder, True, before, after)

    def _trainer(self, model: Any, tokenizer: Any, grader: Grader) -> Any:
        """The trainer of the recipe's method, with everything that happens around its steps."""
        from stepgrpo_lab.training.callbacks import LearningSignal, MetricsFile, ProgressLine, TokenBudget, Validation

        problems, held_out = self.problems["train"], self.problems["validation"]
        if self.recipe.method == "sft":
            with self._timed("rollout"):
                source = (self.folder, self.parts.segmenter, model, tokenizer, problems, grader)
                selection = select_once(self.recipe, *source, self._say)
            trainer: Any = fine_tuner(self.recipe, self.config, model, tokenizer, selection)
        else:
            made_of = (self.config, self.parts, model, tokenizer, problems, grader)
            trainer = reinforcer(self.recipe, *made_of, self.engine)
            if self.progress is not _silent:
                trainer.notice = self._say

        truncated = self.recipe.method == "grpo" and self.recipe.rollout.dynamic
        rollout = self.recipe.rollout.settings if truncated else None

        def validate(trainer: Any) -> dict[str, float]:
            with self._policy_of(trainer) as policy:
                return validation_figures(
                    lambda settings: self._evaluate(policy, tokenizer, held_out, grader, settings=settings), rollout
                )

        trainer.add_callback(MetricsFile(self.folder / "metrics.jsonl"))  # first: it clears the file for the others
        budget = self._token_budget
        trainer.add_callback(ProgressLine(self._say, every=self.progress_every, token_budget=budget))
        trainer.add_callback(Validation(trainer, validate, every=self.recipe.evaluation.every))
        if self.recipe.method == "sft":
            from stepgrpo_lab.training.fine_tuning import SelectionFigures

            trainer.add_callback(SelectionFigures(trainer))
        if self.recipe.method == "grpo":
            trainer.add_callback(LearningSignal(self._say, self.recipe.optimisation.stop_without_signal))
        if budget:
            trainer.add_callback(TokenBudget(budget))
        return trainer

    @property
    def _token_budget(self) -> int | None:
        """Decoded tokens that end training; supervised fine-tuning spends them before it."""
        return self.recipe.optimisation.token_budget if self.recipe.method == "grpo" else None

    def _policy_of(self, trainer: Any) -> AbstractContextManager[Any]:
        """The policy as it is now, whole; an engine that samples for it gets its weights."""
        from stepgrpo_lab.training._engine_weights import gathered_policy

        if self.engine is not None:
            trainer.sync_weights()
        return gathered_policy(trainer)

    def _train(self, trainer: Any) -> bool:
        """Train to the end; False if Ctrl-C or another signal stopped it."""
        from stepgrpo_lab.training.callbacks import Interrupt, is_over

        own = [callback for callback in self.callbacks if isinstance(callback, Interrupt)]
        interrupt = own[0] if own else Interrupt(self._say)
        for callback in dict.fromkeys((*self.callbacks, interrupt)):
            trainer.add_callback(callback)
        verify = self.recipe.checkpoint.verify
        found = last_checkpoint(self.folder / "checkpoints", self._say, verify) if is_main_process() else None
        checkpoint = broadcast(found)  # a damaged one is removed once
        try:
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        finally:
            interrupt.restore()
            self.stopped_by = interrupt.signal
            for phase, seconds in trainer.seconds.items():
                self.seconds[phase] += seconds
        return not interrupt.interrupted or is_over(trainer.state, self._token_budget)

    def _evaluate(
        self,
        model: Any,
        tokenizer: Any,
        problems: Sequence[Problem],
        grader: Grader,
        when: str = "",
        settings: RolloutSettings | None = None,
    ) -> Evaluation:
        def progress(done: int, total: int) -> None:
            if when and done % max(1, total // 20 if self.progress_every == 1 else total) == 0:
                self._say(f"test problems {when} training: {done}/{total}")

        with self.engine.awake() if self.engine else nullcontext() as engine:
            return evaluate_policy(
                *(self.recipe, model, tokenizer, problems, grader),
                test=bool(when),
                settings=settings,
                segmenter=self.parts.segmenter,
                engine=engine,
                progress=progress,
            )

    def _measured(self, name: str, measure: Callable[[], Evaluation]) -> Evaluation:
        """An evaluation from its file, or made now and written there."""
        path = self.folder / name
        stored = broadcast(read_evaluation(path) if is_main_process() and path.exists() else None)
        if stored is not None:
            return stored
        with self._timed(path.stem):
            evaluation = measure()
        if is_main_process():
            write_atomically(path, json.dumps(evaluation.to_dict()))
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
            device = str(trainer.accelerator.device) if trainer else None
            write_environment(self.folder, self.seconds, device, self.reused)
            self.seconds.clear()
