"""Bad problems, tokenizers, prompts and recipes: each is one line that names file, key or row, and the remedy."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny import save_tiny, tiny_model, tiny_overrides, tiny_tokenizer

from stepgrpo_lab.cli import main
from stepgrpo_lab.engines.tokenizers import check_tokenizer, long_prompts, prompt_room
from stepgrpo_lab.evaluation.grading import Grader
from stepgrpo_lab.evaluation.problems import check_problems, load_problems, write_problems
from stepgrpo_lab.method.records import Problem
from stepgrpo_lab.method.rollout import rollout_settings
from stepgrpo_lab.recipes import load_recipe
from stepgrpo_lab.recipes._building import trainer_config
from stepgrpo_lab.run import job as run
from stepgrpo_lab.training import StepGRPOConfig, StepGRPOTrainer, problems_dataset

GOOD = '{"id": "first", "problem": "1+1?", "answer": "2"}'


def error_of(work: Callable[[], Any]) -> str:
    """The one line with which a call refuses; any other kind of error fails the test."""
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        work()
    message = str(caught.value)
    assert "\n" not in message and len(message) < 600
    return message


# ---- problem files: what stands in row 2, what is said of it, what helps ---------------------------------------------

ROWS: dict[str, tuple[bytes, str, str]] = {
    "cut off": (b'{"problem": "x?", "ans', "not valid JSON", "write one object a line"),
    "two objects": (GOOD.encode() * 2, "not valid JSON (Extra data, column", "write one object a line"),
    "a list": (b"[1, 2]", "a list, not an object", "write {...}"),
    "a number": (b"7", "a int, not an object", "write {...}"),
    "nested too deeply": (b"[" * 100_000, "nested too deeply", "write one object a line"),
    "no question": (b'{"answer": "2"}', "has none", "needs exactly one of the fields prompt, problem, question"),
    "no answer": (b'{"problem": "x?"}', "field 'answer' is missing", "add it"),
    "answer null": (b'{"problem": "x?", "answer": null}', "field 'answer' is a NoneType", "put it in quotes"),
    "answer a list": (b'{"problem": "x?", "answer": [1]}', "field 'answer' is a list", "put it in quotes"),
    "answer NaN": (b'{"problem": "x?", "answer": NaN}', "field 'answer' is a float", "put it in quotes"),
    "answer empty": (b'{"problem": "x?", "answer": " "}', "field 'answer' is empty", "fill it in or delete the row"),
    "problem a list": (b'{"problem": ["x?"], "answer": "2"}', "field 'problem' is a list", "put it in quotes"),
    "level text": (b'{"problem": "x?", "answer": "2", "level": "3"}', "field 'level' is a str", "make it a int"),
    "same id": (GOOD.encode(), "field 'id' is 'first', as in row 1", "make it unique"),
    "Latin-1": (b'{"problem": "caf\xe9", "answer": "2"}', "not UTF-8 text", "save the file as UTF-8"),
    "half a surrogate": (b'{"problem": "\\ud800", "answer": "2"}', "half a surrogate pair", "write it as UTF-8"),
    "a null byte": (b"\x00\x00", "not valid JSON", "write one object a line"),
}


@pytest.mark.parametrize("name", ROWS)
def test_a_bad_row_is_one_line(tmp_path: Path, name: str) -> None:
    row, what, remedy = ROWS[name]
    path = tmp_path / "mine.jsonl"
    path.write_bytes(GOOD.encode() + b"\n" + row + b"\n")
    message = error_of(lambda: load_problems(path))
    assert message.startswith(f"{path}, row 2: ") and what in message and remedy in message


@pytest.mark.parametrize("content", [b"", b"\n \n\n", b"\xef\xbb\xbf"])
def test_a_file_without_problems_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "empty.jsonl"
    path.write_bytes(content)
    assert error_of(lambda: load_problems(path)) == f"{path}: holds no problems; write one JSON object a line"


@pytest.mark.parametrize("gold", ["\\frac{", "}", "\\text{", "1/0", "9^{9^{9^{9}}}+\\sqrt{2}", "+"])
def test_golds_that_cannot_be_graded_are_named(gold: str) -> None:
    with Grader(timeout=3) as grader:
        [message] = check_problems([Problem("fine", "1+1?", "2"), Problem("odd", "x?", gold)], grader)
    assert message.startswith(f"problem 'odd': gold answer {gold!r} is unusable: ")
    assert message.endswith("; correct it or drop the problem") and "\n" not in message


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model"))


RUNS: dict[str, tuple[Problem, str]] = {
    "gold": (Problem("odd", "x?", "\\frac{"), "gold answer '\\\\frac{' is unusable"),
    "prompt": (Problem("odd", "7+" * 400 + "?", "7"), "its prompt has"),
}


@pytest.mark.parametrize("place", ["test", "train"])
@pytest.mark.parametrize("name", RUNS)
def test_a_run_names_the_problem_before_it_trains(model: Path, tmp_path: Path, name: str, place: str) -> None:
    problem, what = RUNS[name]
    path = tmp_path / "mine.jsonl"
    write_problems(path, [Problem("fine", "1+1?", "2"), problem])
    changes = {f"data.{place}": path, f"data.counts.{place}": "null", "data.counts.test": 1}
    recipe = load_recipe("overthinker", tiny_overrides(model, **{**changes, f"data.counts.{place}": "null"}))
    message = error_of(lambda: run.train(recipe, tmp_path / "run"))
    assert message.startswith(f"{path}, problem 'odd': {what}") and "drop " in message
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_the_room_for_a_prompt_is_exact() -> None:
    tokenizer, settings = tiny_tokenizer(), rollout_settings("official")
    room = prompt_room(tiny_model(), tokenizer, 100, settings)
    assert room is not None and room < 512 - 100
    problems = [Problem(str(size), "7" * size, "7") for size in range(room - 60, room + 5)]
    refused = [line.split("'")[1] for line in long_prompts(problems, tokenizer, room)]
    from stepgrpo_lab.engines.tokenizers import encode_prompt

    assert refused == [p.id for p in problems if len(encode_prompt(tokenizer, p.prompt)) > room]
    assert 0 < len(refused) < len(problems)
    assert list(long_prompts(problems, tokenizer, None)) == []


# ---- tokenizers ------------------------------------------------------------------------------------------------------


def without(name: str) -> Callable[[Any], None]:
    return lambda tokenizer: setattr(tokenizer, name, None)


def closed_thoughts(tokenizer: Any) -> None:
    tokenizer.chat_template = "{{ messages[0].content }}<think></think>"


TOKENIZERS: dict[str, tuple[Callable[[Any], None], str, str]] = {
    "no eos": (without("eos_token"), "no eos_token", "set it to the token that ends an answer"),
    "no template": (without("chat_template"), "no chat_template", "set tokenizer.chat_template"),
    "closes the thoughts": (closed_thoughts, "closes the thoughts", "switch its thinking mode on"),
}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_an_unfit_tokenizer_is_one_line(name: str) -> None:
    change, what, remedy = TOKENIZERS[name]
    tokenizer = copy.deepcopy(tiny_tokenizer())
    change(tokenizer)
    message = error_of(lambda: check_tokenizer(tokenizer))
    assert what in message and remedy in message


def ascii_tokenizer() -> Any:
    """One token for each ASCII character: it can write neither é nor 等."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = [chr(code) for code in range(0x21, 0x7F)] + ["Ġ", "Ċ"]
    bare = Tokenizer(models.BPE(vocab={letter: place for place, letter in enumerate(letters)}, merges=[]))
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bare.decoder = decoders.ByteLevel()
    bare.add_tokens([AddedToken("<think>"), AddedToken("</think>")])
    made = PreTrainedTokenizerFast(tokenizer_object=bare, eos_token="<|end|>", pad_token="<|pad|>")
    made.chat_template = "{{ messages[0].content }}\n"
    return made


def test_markers_that_cannot_be_written_are_named(tmp_path: Path) -> None:
    def make(markers: list[str]) -> StepGRPOTrainer:
        config = StepGRPOConfig(
            output_dir=str(tmp_path),
            use_cpu=True,
            rollout=rollout_settings(markers=markers),
            save_strategy="no",
            report_to="none",
        )
        dataset = problems_dataset([Problem("a", "1+1?", "2")])
        return StepGRPOTrainer(tiny_model(), config, dataset, ascii_tokenizer())

    make(["Wait"]).close()
    message = error_of(lambda: make(["Wait", "等一下"]))
    assert message == "markers: the tokenizer cannot write '等一下', so it would never be seen: leave it out"


# ---- recipes ---------------------------------------------------------------------------------------------------------

RECIPES: dict[str, tuple[str, str]] = {
    "optimisation.lerning_rate=1": ("unknown key 'optimisation.lerning_rate'", "did you mean 'learning_rate'"),
    "rolout.rows=3": ("unknown key 'rolout'", "did you mean 'rollout'"),
    "optimisation.learning_rate=.nan": ("optimisation.learning_rate is nan", "must be at least 0 and at most 1"),
    "optimisation.learning_rate=-1": ("optimisation.learning_rate is -1", "must be at least 0 and at most 1"),
    "optimisation.learning_rate=fast": ("optimisation.learning_rate is 'fast'", "it must be a number"),
    "rollout.temperature=.inf": ("rollout.temperature is inf", "must be at least 0.01 and at most 10"),
    "rollout.temperature=0": ("rollout.temperature is 0", "must be at least 0.01"),
    "rollout.probe_rate=[]": ("rollout.probe_rate is []", "it must be a number"),
    "optimisation.group_size=1": ("optimisation.group_size is 1", "must be at least 2"),
    "optimisation.max_steps=0": ("optimisation.max_steps is 0", "must be at least 1"),
    "optimisation.max_steps=1.5": ("optimisation.max_steps is 1.5", "it must be a whole number"),
    "optimisation.rows_per_pass=7": ("optimisation.rows_per_pass is 7", "it must divide"),
    "optimisation.optimizer=adamw_troch": ("optimisation.optimizer is 'adamw_troch'", "did you mean 'adamw_torch"),
    "optimisation.schedule=zigzag": ("optimisation.schedule is 'zigzag'", "use one of linear, cosine"),
    "optimisation.loss_type=gspo2": ("loss_type is 'gspo2'", "use one of grpo, bnpo"),
    "rollout.markers=[]": ("rollout.markers is []", "must be text or a list of words"),
    "rollout.markers=[Hold on]": ("marker 'Hold on' is not one word", "use words"),
    "rollout.markers=Waite": ("unknown marker set 'Waite'", "use official, paper"),
    "rollout.markers=[等Wait]": ("marker '等Wait' mixes", "use a marker of one script"),
    "rollout.markers=multilingal": ("unknown marker set 'multilingal'", "did you mean 'multilingual'"),
    "rollout.think_budget=-3": ("think_budget", ""),
    "reward.function=fair": ("reward.function is 'fair'", "it must be 'step_aware' or"),
    "model.dtype=float8": ("model.dtype is 'float8'", "it must be 'float32' or"),
    "seed=yes": ("seed is True", "it must be a whole number"),
    "seed=-1": ("seed is -1", "must be at least 0"),
    "data.counts.train=0": ("data.counts.train is 0", "must be at least 1"),
    "evaluation.top_p=0": ("evaluation.top_p is 0", "must be at least 0.01"),
    "data=overthinker": ("data is 'overthinker'", "it must be a section"),
    "=3": ("'=3' is not KEY=VALUE", "write for example"),
}


@pytest.mark.parametrize("override", RECIPES)
def test_an_impossible_recipe_is_one_line(override: str, tmp_path: Path) -> None:
    what, remedy = RECIPES[override]
    message = error_of(lambda: trainer_config(load_recipe("overthinker", [override]), tmp_path))
    assert what in message and remedy in message


FILES: dict[str, tuple[bytes, str]] = {
    "cut off": (b"model: [", "is not YAML"),
    "a list": (b"- 1", "holds no sections"),
    "nothing": (b"", "holds no sections"),
    "Latin-1": (b"name: caf\xe9", "is not UTF-8 text"),
    "control characters": (b"name: \x00", "is not YAML"),
    "an object": (b"name: !!python/object/apply:os.system [true]", "holds the type"),
    "aliases that explode": (b"a: &a [x,x]\nb: &b [*a,*a]\nname: [*b,*b]\n", "holds aliases (*name)"),
    "nested too deeply": (b"name: " + b"[" * 500, "levels deep"),
    "nested without end": (b"name: " + b"[" * 5000, "deep|depth"),  # newer versions of PyYAML have a limit of their own
    "a pickle": (b"\x80\x04\x95.", "is not"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_bad_recipe_file_is_one_line(tmp_path: Path, name: str) -> None:
    content, what = FILES[name]
    path = tmp_path / "mine.yaml"
    path.write_bytes(content)
    message = error_of(lambda: load_recipe(path))
    assert message.startswith(str(path)) and any(part in message for part in what.split("|"))


def test_the_command_line_says_it_in_one_line_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps({"problem": "\x1b[2J", "answer": [1]}))
    overrides = ["--set", f"data.test={path}", "--set", "data.counts.test=null"]
    assert main(["train", "--output", str(tmp_path / "run"), *overrides]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"stepgrpo: error: {path}, row 1: field 'answer' is a list") and error.count("\n") == 1
