"""Every reader of files, given files broken in every way: it reads, or refuses in one line that names the file.

A mutant is decided by seed, reader and number alone. Each is read in a process of its own kind, which measures what it
costs: processor time, and the memory that the process grew by.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import random
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from stepgrpo_lab.recipes.schema import RecipeError

from .mutations import mutate, restore

MOST_SECONDS, MOST_GROWTH = 2.0, 200 * 2**20
"""Processor time in seconds and bytes of memory that reading one mutant may take."""

PATIENCE, PATIENCE_BUSY = 600, 60
"""Seconds, and seconds of processor time, after which a process that reads one mutant is given up."""

PRELOADED = ("transformers.models.auto.modeling_auto", "transformers.models.qwen3.modeling_qwen3", "peft", "trl")

REFUSALS = (ValueError, FileNotFoundError, OSError, RecipeError)
"""The errors that the command line turns into one line; of these types exactly, not of those derived from them."""

Read = Callable[[Path], Any]


@dataclass(frozen=True)
class Reader:
    """Something that reads files.

    Attributes:
        make: Writes the files, valid, into an empty folder.
        files: Which of them are broken, one at a time.
        read: Reads them.
        share: How many mutants it gets, relative to the others.
    """

    make: Callable[[Path], Any]
    files: Sequence[str]
    read: Read
    share: int = 4


# ---- valid files -----------------------------------------------------------------------------------------------------


def make_run(folder: Path) -> None:
    """A small finished run: both evaluations, metrics, completions, environment and recipe."""
    from stepgrpo_lab.evaluation.results import completion_pairs
    from stepgrpo_lab.method.records import Problem
    from stepgrpo_lab.recipes import load_recipe
    from stepgrpo_lab.recipes.loading import write_recipe

    problems = [Problem(f"p{index}", f"{index}+1?", str(index + 1), "chain") for index in range(6)]
    before, after = (evaluation(problems, tokens) for tokens in (60, 30))
    for name, measured in (("before", before), ("after", after)):
        (folder / f"evaluation_{name}.json").write_text(json.dumps(measured.to_dict()))
    rows = [{"step": step, "reward": 0.5, "exits/early": 0.25, "validation/accuracy": 0.5} for step in range(6)]
    _write_rows(folder / "metrics.jsonl", rows)
    _write_rows(folder / "completions.jsonl", completion_pairs(problems, before, after))
    noted = {"versions": {"torch": "2"}, "platform": "here", "device": "cpu", "seconds": {"training": 1.5}}
    (folder / "environment.json").write_text(json.dumps(noted))
    write_recipe(load_recipe("overthinker"), folder / "recipe.yaml")


def evaluation(problems: Sequence[Any], tokens: int) -> Any:
    """An evaluation of some problems, with probes and texts."""
    from stepgrpo_lab.evaluation.results import Evaluation
    from stepgrpo_lab.method.records import Outcome
    from stepgrpo_lab.method.settings import rollout_settings

    settings = {"samples": 1, "temperature": 0.6, "markers": "paper"}
    return Evaluation(
        [problem.id for problem in problems],
        [problem.family for problem in problems],
        [1, 1, 2, 2, None, None],
        [[Outcome(index % 2 == 0, True, 2, tokens + index, "7", close="natural")] for index in range(len(problems))],
        trial_answers=[(0.9, True), (0.4, False)],
        settings={**settings, "rollout": dataclasses.asdict(rollout_settings("official"))},
        texts={problem.id: "7. Wait, 8.</think>\\boxed{7}" for problem in problems},
    )


def _write_rows(path: Path, rows: Sequence[Any]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def make_problems(folder: Path) -> None:
    from stepgrpo_lab.evaluation.problems import write_problems
    from stepgrpo_lab.overthinker.tasks import overthinker_problems

    write_problems(folder / "problems.jsonl", overthinker_problems("test", 8))


def make_rates(folder: Path) -> None:
    _write_rows(folder / "rates.jsonl", [{"id": f"p{index}", "correct": index, "samples": 8} for index in range(8)])


def make_recording(folder: Path, *, survey: bool = False) -> None:
    from stepgrpo_lab.recordings import load_recordings, load_survey, write_recordings

    groups = load_survey()[::100] if survey else load_recordings()[::6]
    write_recordings(groups, folder / "groups.jsonl.gz")


def make_record(folder: Path) -> None:
    from stepgrpo_lab.engines.paths import data_path

    shutil.copy(data_path("results", "headline.json"), folder / "record.json")


def make_comparison(folder: Path) -> None:
    """A comparison in progress: its plan, a row that is done, and the measurement of a run."""
    from stepgrpo_lab.experiments._measure import Measured
    from stepgrpo_lab.experiments.plan import find_experiment
    from stepgrpo_lab.experiments.record import load_record
    from stepgrpo_lab.method.records import Problem

    (folder / "rows").mkdir()
    (folder / "runs" / "vanilla").mkdir(parents=True)
    plan = dataclasses.asdict(find_experiment("headline").plan)
    (folder / "plan.json").write_text(json.dumps({**plan, "overrides": ["seed=1"]}))
    (folder / "rows" / "vanilla.json").write_text(json.dumps(load_record("headline").rows[0].to_json()))
    (folder / "vanilla_tokens.json").write_text("81.5")
    test = evaluation([Problem(f"p{index}", "?", "1") for index in range(6)], 50)
    measured = Measured(test, {"all": {"needed": 1.0}}, 2.5, harder=test)
    (folder / "runs" / "vanilla" / "measured.json").write_text(json.dumps(dataclasses.asdict(measured)))


def make_selection(folder: Path) -> None:
    from stepgrpo_lab.recordings import load_recordings
    from stepgrpo_lab.training.fine_tuning import Selection

    completions = [member.trajectory for member in load_recordings()[0].members[:3]]
    (folder / "selection.json").write_text(json.dumps(Selection(completions, {"accuracy": 0.5}).to_json()))


def make_tokenizer(folder: Path) -> None:
    """The embedded model's files, but for its weights."""
    from stepgrpo_lab.engines.paths import data_path

    for path in data_path("overthinker").iterdir():
        if path.suffix in (".json", ".jinja") and path.name != "card.json":
            shutil.copy(path, folder / path.name)


def make_model(folder: Path) -> None:
    """A tiny model with random weights and the embedded model's tokenizer."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    make_tokenizer(folder)
    sizes = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"num_key_value_heads": 1, "head_dim": 4, "max_position_embeddings": 64}
    known = json.loads((folder / "config.json").read_text())
    tokens = {name: known[name] for name in ("vocab_size", "eos_token_id", "pad_token_id") if name in known}
    Qwen3ForCausalLM(Qwen3Config(**sizes, **tokens, tie_word_embeddings=True)).save_pretrained(str(folder))


def make_adapter(folder: Path) -> None:
    """A LoRA adapter, and the model that it stands on."""
    from peft import LoraConfig, get_peft_model

    from stepgrpo_lab.engines.models import load_model

    (folder / "base").mkdir()
    make_model(folder / "base")
    model, tokenizer = load_model(folder / "base", device="cpu")
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))
    adapted.save_pretrained(str(folder / "adapter"))
    tokenizer.save_pretrained(str(folder / "adapter"))


def make_progress(folder: Path) -> None:
    (folder / "progress.json").write_text(json.dumps({"updates": 3, "state": "state-3.safetensors"}))


def make_checkpoint(folder: Path) -> None:
    import torch
    from safetensors.torch import save_file

    from stepgrpo_lab.training._proof import MARK, Proof

    place = folder / "checkpoint-4"
    place.mkdir()
    save_file({"weight": torch.zeros(8)}, place / "model.safetensors")
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        torch.save({"state": torch.zeros(4)}, place / name)
    state = {"global_step": 4, "log_history": [{"loss": 0.5}], "stateful_callbacks": {MARK: {"processes": 1}}}
    (place / "trainer_state.json").write_text(json.dumps(state))
    Proof(place, "full").finish()


# ---- readers ---------------------------------------------------------------------------------------------------------


def read_report(folder: Path) -> None:
    from stepgrpo_lab.run.report import headline_svg, summary_markdown, write_report

    write_report(folder)
    headline_svg(folder)
    summary_markdown(folder)


def read_run_files(folder: Path) -> None:
    """What a resumed run and a dashboard read."""
    from stepgrpo_lab.run.folder import read_evaluation, write_environment
    from stepgrpo_lab.training.metrics import read_metrics, run_curves, run_decoded_tokens
    from stepgrpo_lab.viz.curves import series, thinned

    for path in (folder / "evaluation_before.json", folder / "evaluation_after.json"):
        if path.exists():
            read_evaluation(path).mean("tokens")
    rows = read_metrics(folder / "metrics.jsonl")
    thinned([row for row in rows if row["step"] <= 3] * 400)
    series(rows, "reward")
    run_decoded_tokens(folder)
    run_curves(folder, ["reward"])
    write_environment(folder, {"training": 1.0}, None)


def read_recipe(folder: Path) -> None:
    from stepgrpo_lab.run.folder import stored_recipe

    # Asked only where a recipe holds a name that we do not know; importing them is not the reader's cost.
    for module in ("transformers.training_args", "transformers.integrations.integration_utils"):
        import_module(module)
    stored_recipe(folder)


def read_problems(folder: Path) -> None:
    from stepgrpo_lab.evaluation.problems import load_problems

    load_problems(folder / "problems.jsonl")


def read_rates(folder: Path) -> None:
    from stepgrpo_lab.evaluation.selection import read_pass_rates

    for rate in read_pass_rates(folder / "rates.jsonl").values():
        assert 0 <= rate.rate <= 1


def read_recording(folder: Path) -> None:
    from stepgrpo_lab.recordings import load_recordings

    groups = load_recordings(folder / "groups.jsonl.gz")
    for group in groups[:100]:  # a page shows one at a time
        assert group.title and group.most_probed >= 0 and group.watched in (True, False)
        group.pieces(group.members[0].trajectory.completion_ids)
        group.steps(0)
        try:
            group.frames(0)
        except ValueError:  # other tokens than were recorded
            continue


def read_record(folder: Path) -> None:
    from stepgrpo_lab.experiments import record

    found = record.read_record(folder / "record.json")
    record.changes(found)
    record.mean_curves(found)
    [record.verdicts(row) for row in found.rows]


def read_comparison(folder: Path) -> None:
    from stepgrpo_lab.experiments._measure import Measuring
    from stepgrpo_lab.experiments.plan import find_experiment
    from stepgrpo_lab.experiments.rows import VANILLA_ROW
    from stepgrpo_lab.experiments.run import Runs, _keep_plan

    plan = find_experiment("headline").plan
    if (folder / "plan.json").exists():
        _keep_plan(folder, plan, ["seed=1"])
    runs = Runs(folder, plan)
    runs.finished(VANILLA_ROW)
    if (folder / "vanilla_tokens.json").exists():
        runs.vanilla_tokens()
    place = folder / "runs" / "vanilla"
    if (place / "measured.json").exists():
        Measuring(plan).measured(place, None, None)  # type: ignore[arg-type]


def read_selection(folder: Path) -> None:
    from stepgrpo_lab.engines.files import read_json
    from stepgrpo_lab.training.fine_tuning import Selection

    read_json(folder / "selection.json", Selection.from_json, "remove it")


def read_dimensions(folder: Path) -> None:
    import transformers.models.auto.configuration_auto  # noqa: F401  (or its import counts as growth)

    from stepgrpo_lab.planning.sizes import model_dimensions

    assert model_dimensions(str(folder)).parameters > 0


def read_tokenizer(folder: Path) -> None:
    from stepgrpo_lab.engines.models import load_tokenizer
    from stepgrpo_lab.engines.tokenizers import encode_prompt

    encode_prompt(load_tokenizer(folder), "1+1?")


def read_model(folder: Path) -> None:
    from stepgrpo_lab.engines.models import load_model

    load_model(folder, device="cpu")


def read_adapter(folder: Path) -> None:
    from stepgrpo_lab.engines.models import load_model

    load_model(folder / "adapter", device="cpu", merge=True)


def read_checkpoint(folder: Path) -> None:
    from stepgrpo_lab.training._guard import last_checkpoint

    last_checkpoint(folder)


def read_progress(folder: Path) -> None:
    from stepgrpo_lab.authoring.overthinker._fitting import updates_done

    updates_done(folder)


RUN_FILES = ("evaluation_before.json", "evaluation_after.json", "metrics.jsonl", "completions.jsonl")
RUN_FILES += ("environment.json", "recipe.yaml")
COMPARISON_FILES = ("plan.json", "rows/vanilla.json", "vanilla_tokens.json", "runs/vanilla/measured.json")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
MODEL_FILES = ("config.json", "model.safetensors", "generation_config.json")
ADAPTER_FILES = ("adapter/adapter_config.json", "adapter/adapter_model.safetensors")
CHECKPOINT_FILES = (
    "manifest.json",
    "trainer_state.json",
    "model.safetensors",
    "optimizer.pt",
    "scheduler.pt",
    "rng_state.pth",
)

READERS: dict[str, Reader] = {
    "report": Reader(make_run, RUN_FILES, read_report, share=6),
    "run": Reader(make_run, ("evaluation_before.json", "metrics.jsonl", "environment.json"), read_run_files, share=12),
    "recipe": Reader(make_run, ("recipe.yaml",), read_recipe, share=8),
    "problems": Reader(make_problems, ("problems.jsonl",), read_problems, share=8),
    "pass rates": Reader(make_rates, ("rates.jsonl",), read_rates),
    "recordings": Reader(make_recording, ("groups.jsonl.gz",), read_recording, share=8),
    "survey": Reader(partial(make_recording, survey=True), ("groups.jsonl.gz",), read_recording),
    "record": Reader(make_record, ("record.json",), read_record),
    "comparison": Reader(make_comparison, COMPARISON_FILES, read_comparison, share=8),
    "selection": Reader(make_selection, ("selection.json",), read_selection),
    "model sizes": Reader(make_tokenizer, ("config.json",), read_dimensions),
    "tokenizer": Reader(make_tokenizer, TOKENIZER_FILES, read_tokenizer),
    "chat template": Reader(make_tokenizer, ("chat_template.jinja",), read_tokenizer),
    "model": Reader(make_model, MODEL_FILES, read_model),
    "adapter": Reader(make_adapter, ADAPTER_FILES, read_adapter),
    "checkpoint": Reader(make_checkpoint, [f"checkpoint-4/{name}" for name in CHECKPOINT_FILES], read_checkpoint),
    "build": Reader(make_progress, ("progress.json",), read_progress, share=1),
}


# ---- one mutant ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """What came of one mutant.

    Attributes:
        reader, number: Which.
        how: What was broken, and how.
        refused: It was refused; else it was read.
        seconds, growth: Processor time, and bytes of memory.
        fault: What was wrong with that; empty if nothing.
    """

    reader: str
    number: int
    how: str
    refused: bool = False
    seconds: float = 0.0
    growth: int = 0
    fault: str = ""


class Bench:
    """A folder of valid files in which one after the other is broken, read and put back."""

    def __init__(self, reader: str, folder: Path) -> None:
        self.name, self.reader, self.folder = reader, READERS[reader], folder
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self.reader.make(folder)
        self.valid = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        self.reader.read(folder)  # imports, and proves that the valid files are read

    def examine(self, number: int, seed: int) -> Verdict:
        """Break a file, read, and judge; which file, and how, seed and number decide."""
        rng = random.Random(f"{seed}:{self.name}:{number}")
        self.restore()
        path = self.folder / rng.choice(self.reader.files)
        verdict = Verdict(self.name, number, f"{path.name}: {mutate(rng, path)}")
        before, started = _reset_peak(), time.process_time()
        error: BaseException | None = None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.reader.read(self.folder)
        except BaseException as caught:  # a reader must not even end the process
            error = caught
        seconds, growth = time.process_time() - started, max(0, _peak() - before)
        fault = _fault_of(error, path) if error else ""
        return dataclasses.replace(verdict, refused=error is not None, seconds=seconds, growth=growth, fault=fault)

    def restore(self) -> None:
        """Put everything back as it was."""
        for path in [found for found in self.folder.rglob("*") if found not in self.valid and not found.is_dir()]:
            path.unlink()
        for path, content in self.valid.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_symlink() or not path.is_file() or path.read_bytes() != content:
                restore(path, content)


def _fault_of(error: BaseException, path: Path) -> str:
    """What is wrong with an error; empty if it is one line of ours that names the file or its folder."""
    what = f"{type(error).__name__}: {str(error)[:300]}"
    if type(error) not in REFUSALS:
        return f"no error of ours: {what}"
    for message in getattr(error, "mistakes", [str(error)]):  # a recipe's are listed, a line each
        if "\n" in message or len(message) > 1000:
            return f"not one line: {what}"
        if not any(name in message for name in (path.name, path.parent.name)):
            return f"names no file: {what}"
    return ""


def _status(field_: str) -> int:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(field_))


def _reset_peak() -> int:
    """Forget the highest memory use so far; returns the present one in bytes (0 where the system does not tell)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return _status("VmRSS:")
    except OSError:
        return 0


def _peak() -> int:
    try:
        return _status("VmHWM:")
    except OSError:
        return 0


# ---- many ------------------------------------------------------------------------------------------------------------


@dataclass
class Tally:
    """What a campaign has seen of one reader."""

    mutants: int = 0
    refused: int = 0
    slowest_seconds: float = 0.0
    largest_growth_mib: float = 0.0
    faults: list[dict[str, Any]] = field(default_factory=list)

    def add(self, verdict: Verdict) -> None:
        self.mutants += 1
        self.refused += verdict.refused
        self.slowest_seconds = max(self.slowest_seconds, round(verdict.seconds, 2))
        self.largest_growth_mib = max(self.largest_growth_mib, round(verdict.growth / 2**20, 1))
        faults = [verdict.fault] if verdict.fault else []
        faults += [f"{verdict.seconds:.1f} s of processor time"] if verdict.seconds > MOST_SECONDS else []
        faults += [f"{verdict.growth / 2**20:.0f} MiB of memory"] if verdict.growth > MOST_GROWTH else []
        if faults:
            self.faults.append({"number": verdict.number, "how": verdict.how, "fault": "; ".join(faults)})


def shares(count: int) -> dict[str, int]:
    """How many of so many mutants each reader gets."""
    whole = sum(reader.share for reader in READERS.values())
    return {name: -(-count * reader.share // whole) for name, reader in READERS.items()}


def campaign(
    count: int, seed: int, readers: Sequence[str] = (), processes: int = 1, before: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Let every reader read its share of so many mutants, in a process that is replaced when it hangs or dies.

    Args:
        count, seed: Which mutants.
        readers: Only these; none stands for all.
        processes: How many readers to run at once.
        before: The record of an earlier campaign of this count and seed, from which the other readers are taken.
    """
    for module in PRELOADED:  # every process is forked with them
        import_module(module)
    wanted = {name: share for name, share in shares(count).items() if not readers or name in readers}
    tallies: dict[str, Any] = dict((before or {}).get("readers", {}))
    failures = [failure for failure in (before or {}).get("failures", []) if failure["reader"] not in wanted]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(processes) as pool:
        running = [pool.submit(_tallied, name, share, seed, Path(folder)) for name, share in wanted.items()]
        for name, tally in (done.result() for done in as_completed(running)):
            failures += [{"reader": name, **fault} for fault in tally.faults]
            tallies[name] = {**dataclasses.asdict(tally), "faults": len(tally.faults)}
            print(f"{name}: {tallies[name]}", *tally.faults, sep="\n  ", flush=True)
    return {
        "mutants": sum(tally["mutants"] for tally in tallies.values()),
        "limits": {"seconds": MOST_SECONDS, "growth_mib": MOST_GROWTH // 2**20},
        "readers": {name: tallies[name] for name in READERS if name in tallies},
        "failures": failures,
    }


def _tallied(name: str, share: int, seed: int, folder: Path) -> tuple[str, Tally]:
    tally = Tally()
    for verdict in _examined(name, share, seed, folder / name.replace(" ", "-") / "bench"):
        tally.add(verdict)
    return name, tally


def _examined(name: str, share: int, seed: int, folder: Path) -> Iterator[Verdict]:
    done = 0
    while done < share:
        ours, theirs = multiprocessing.Pipe(duplex=False)
        process = multiprocessing.get_context("fork").Process(
            target=_serve, args=(name, range(done, share), seed, folder, theirs), daemon=True
        )
        process.start()
        theirs.close()
        try:
            while done < share and _answers(ours, process):
                yield ours.recv()
                done += 1
        except EOFError:
            pass
        if done < share:  # what it was at has hung it, or killed it
            how = "hung" if process.is_alive() else f"ended the process ({process.exitcode})"
            yield Verdict(name, done, "", refused=True, fault=how)
            done += 1
        process.kill()
        process.join()
        ours.close()


def _answers(pipe: Any, process: Any) -> bool:
    """Wait for a verdict, or for a process's end; whether one came before patience was lost, on a busy machine too."""
    given_up, before = time.monotonic() + PATIENCE, _processor_seconds(process.pid)
    while not pipe.poll(5):
        if time.monotonic() > given_up or _processor_seconds(process.pid) - before > PATIENCE_BUSY:
            return False
    return True


def _processor_seconds(pid: int) -> float:
    """What a process has used; 0 where the system does not tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _serve(name: str, numbers: range, seed: int, folder: Path, pipe: Any) -> None:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)  # what libraries say
    bench = Bench(name, folder)
    for number in numbers:
        pipe.send(bench.examine(number, seed))
