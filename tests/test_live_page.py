"""The live page's scripts in Node against the package itself: tokens, verdicts, problems, random numbers."""

from __future__ import annotations

import itertools
import json
import random
import shutil
import subprocess
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import IM_END
from tiny import save_tiny

from stepgrpo_lab.engines.completions import Decoding
from stepgrpo_lab.engines.lockstep import LockstepEngine
from stepgrpo_lab.engines.models import load_model
from stepgrpo_lab.engines.tokenizers import encode_prompt
from stepgrpo_lab.method.boxes import extract_boxed
from stepgrpo_lab.method.records import Trajectory
from stepgrpo_lab.method.rollout import RolloutSettings, Sampling, TrajectoryMachine
from stepgrpo_lab.method.sampling import SampleKey
from stepgrpo_lab.method.settings import rollout_settings
from stepgrpo_lab.method.steps import MarkerSegmenter
from stepgrpo_lab.method.token_text import THINK_CLOSE, TokenText
from stepgrpo_lab.overthinker import overthinker_problems
from stepgrpo_lab.overthinker.verifier import derived_answers
from stepgrpo_lab.recipes.loading import load_recipe
from stepgrpo_lab.site.live import PAGE_PRESETS, describe_rollout, describe_tokenizer, write_live

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="no node: the page's scripts are tested in Node 18 or newer")

Ask = Callable[..., list[Any]]
LIMIT = load_recipe("overthinker-2").rollout.max_tokens
CLOSE, NEAR_THRESHOLD = 1e-4, 1e-3
"""A difference is excused where the two likeliest tokens are closer, or a score is nearer to the threshold."""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with both embedded models and one of random weights."""
    folder = tmp_path_factory.mktemp("live")
    tiny = save_tiny(folder / "tiny-model", seed=3)
    models = {"second": "overthinker-2", "first": "overthinker", "tiny": str(tiny)}
    return write_live(folder / "page", models).parent


@pytest.fixture
def ask(page: Path, tmp_path: Path) -> Ask:
    """Give the page's scripts jobs; returns one answer for each."""

    def run(*jobs: dict[str, Any]) -> list[Any]:
        file = tmp_path / "jobs.json"
        file.write_text(json.dumps(jobs), encoding="utf-8")
        script = Path(__file__).with_name("live_page.mjs")
        done = subprocess.run([str(NODE), str(script), str(page), str(file)], capture_output=True, encoding="utf-8")
        assert done.returncode == 0, done.stderr
        return list(json.loads(done.stdout))

    return run


def rounded(path: str) -> tuple[Any, Any]:
    """A model with the weights that the page has: rounded to 16 bits, computing in 32."""
    model, tokenizer = load_model(path, device="cpu")
    for weight in model.parameters():  # `model.half()` would round the rotary frequencies too
        weight.data = weight.data.half().float()
    return model, tokenizer


def prompts_of(laboratory: str, count: int) -> list[str]:
    return [problem.prompt for problem in overthinker_problems("test", count, seed=5, laboratory=laboratory)]


def odd_texts(count: int) -> Iterator[str]:
    """Random strings with whatever a tokenizer may trip over."""
    rng = random.Random(0)
    parts = ["Wait", " Alternatively", "</think>", "<think>", "<|im_end|>", "\n", "\r\n", "  ", "\t", "\x85", "\ufeff"]
    parts += ["'S", "'ll", "don't", "é", "e\u0301", "等等", "🙂", "Ω", "٣", "12", "_", "}}", "\\boxed{", "\x00"]
    parts += [" ,", "ﬁ"]
    parts += ["\u00a0", "\u2028", "İ", "</thin", "k>", "\U0001d7d8"]
    for _ in range(count):
        yield "".join(rng.choice([*parts, chr(rng.randrange(32, 127))]) for _ in range(rng.randrange(1, 24)))


# ---- tokenizer -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["second", "first"])
def test_the_page_tokenizes_as_the_package_does(ask: Ask, name: str) -> None:
    laboratory = {"second": "overthinker-2", "first": "overthinker"}[name]
    _, tokenizer = load_model(laboratory, device="cpu")
    texts = [*prompts_of(laboratory, 200), *odd_texts(500)]
    [answers] = ask({"task": "encode", "model": name, "texts": texts})
    assert [answer["ids"] for answer in answers] == [tokenizer.encode(text, add_special_tokens=False) for text in texts]
    assert [answer["text"] for answer in answers] == texts


def test_qwen3s_own_tokenizer_can_be_described(ask: Ask, qwen3_tokenizer: Any) -> None:
    qwen3_tokenizer.backend_tokenizer.normalizer = None  # NFC, which changes none of these texts
    texts = [text for text in odd_texts(200) if "e\u0301" not in text]
    [answers] = ask({"task": "tokenize", "tokenizer": describe_tokenizer(qwen3_tokenizer), "texts": texts})
    assert answers == [qwen3_tokenizer.encode(text, add_special_tokens=False) for text in texts]


def test_tokenizers_of_another_make_are_refused(byte_bpe_tokenizer: Any) -> None:
    with pytest.raises(ValueError, match="pattern"):
        describe_tokenizer(byte_bpe_tokenizer)


# ---- the machine without a model: every trap, and any token ----------------------------------------------------------


def trap_settings(rng: random.Random) -> RolloutSettings:
    return rollout_settings(
        rng.choice(PAGE_PRESETS),
        markers=rng.choice(["official", "paper"]),
        exit_threshold=rng.choice([0.5, 0.8, 0.95, 1.0]),
        max_probes=rng.choice([1, 2, 10]),
        think_budget=rng.choice([12, 0.9, 1.0]),
        near_budget_margin=rng.choice([0, 3, 50]),
        probe_max_tokens=rng.choice([1, 4, 20]),
    )


def tokens_of(text: TokenText, rng: random.Random) -> list[int]:
    """A row of tokens rich in markers, boxes and closes, some of them broken."""
    likely = ["Wait", " Wait", ".Wait", "Waiting", "12 Wait", "Alternatively", "(W", "ait", " ", "\n\n", "7", "so "]
    likely += ["{", "4", "}", "\n", "\\boxed{", "</think>", "</", "think", ">", "\\}", "é", "🙂", "1Wait,Wait."]
    ids: list[int] = []
    while len(ids) < 120:
        ids += [rng.randrange(256)] if rng.random() < 0.1 else text.encode(rng.choice(likely))
    return ids


def driven(text: TokenText, settings: RolloutSettings, limit: int, script: list[tuple[int, float]]) -> dict[str, Any]:
    """What the Python machine makes of a script."""
    machine = TrajectoryMachine(text, limit, settings)
    fed: list[list[int]] = []
    for token, probability in script:
        while not machine.done and machine.choice is None:
            fed.append(list(machine.feed()))
        if machine.done:
            break
        machine.observe(token, -1.0, probability)
    return {"machine": machine, "fed": fed, "phase": machine.phase.value}


@pytest.mark.parametrize("trap", ["byte_bpe_tokenizer", "bytes_tokenizer"])
def test_the_pages_machine_does_what_the_packages_does_on_any_tokens(
    ask: Ask, trap: str, request: pytest.FixtureRequest
) -> None:
    text = TokenText.from_tokenizer(request.getfixturevalue(trap))
    pieces = [text.pieces(index).hex() for index in range(1 + max(text.table))]
    rng = random.Random(trap)
    jobs, expected = [], []
    for _ in range(150):
        settings, limit = trap_settings(rng), rng.choice([20, 40, 90])
        scripts = [
            [(token, rng.choice([1.0, 0.99, 0.9, 0.3, 0.0])) for token in tokens_of(text, rng)] for _ in range(4)
        ]
        described = describe_rollout(settings, limit, text)
        ends = sorted(text.eos_ids)
        jobs.append(
            {
                "task": "scripts",
                "pieces": pieces,
                "end_ids": ends,
                "settings": described,
                "limit": limit,
                "scripts": scripts,
            }
        )
        expected.append([driven(text, settings, limit, script) for script in scripts])
    for answers, wanted in zip(ask(*jobs), expected, strict=True):
        for answer, one in zip(answers, wanted, strict=True):
            assert (answer["phase"], answer["fed"]) == (one["phase"], one["fed"])
            if one["machine"].done:
                assert differences(answer, one["machine"].trajectory([0])) == []


def differences(answer: dict[str, Any], trajectory: Trajectory) -> list[str]:
    """Names of all in which the page's completion is not the package's."""
    pairs = {
        "tokens": (answer["kept"], trajectory.completion_ids),
        "forced": (answer["forced"], trajectory.forced),
        "dropped": (answer["dropped"], trajectory.dropped),
        "close": (answer["close"], trajectory.close),
        "text": (answer["text"], trajectory.text),
        "probe tokens": (answer["probe_tokens"], trajectory.cost.probe_tokens),
        "replayed tokens": (answer["replayed_tokens"], trajectory.cost.replayed_tokens),
        "probes": ([probe_of(each) for each in answer["probes"]], [probe_of(vars(each)) for each in trajectory.probes]),
    }
    found = [name for name, (page, package) in pairs.items() if page != package]
    scores = [
        abs(page["confidence"] - package.confidence)
        for page, package in zip(answer["probes"], trajectory.probes, strict=False)
    ]
    return [*found, *(["confidence"] if max(scores, default=0.0) > CLOSE else [])]


def probe_of(probe: dict[str, Any]) -> tuple[Any, ...]:
    ids = probe["ids"] if "ids" in probe else probe["token_ids"]
    return (*(probe[name] for name in ("position", "step", "marker", "text", "answer", "accepted")), ids)


@pytest.mark.parametrize("trap", ["byte_bpe_tokenizer", "bytes_tokenizer"])
def test_markers_are_found_at_the_same_tokens(ask: Ask, trap: str, request: pytest.FixtureRequest) -> None:
    text = TokenText.from_tokenizer(request.getfixturevalue(trap))
    rng = random.Random(1)
    rows = [tokens_of(text, rng) for _ in range(300)]
    pieces = [text.pieces(index).hex() for index in range(1 + max(text.table))]
    settings = describe_rollout(rollout_settings("paper"), 100, text)
    [answers] = ask({"task": "scan", "pieces": pieces, "settings": settings, "rows": rows})
    for row, answer in zip(rows, answers, strict=True):
        scanner = MarkerSegmenter("paper").scanner(text)
        hits = [scanner.push(token) for token in row]
        assert answer["hits"] == [hit and vars(hit) for hit in hits]
        assert (answer["steps"], answer["closed"]) == (scanner.steps, scanner.closed)


# ---- whole rollouts with a model -------------------------------------------------------------------------------------


def greedy_rollouts(model: Any, tokenizer: Any, prompts: list[str], settings: RolloutSettings | None) -> Any:
    ids = [encode_prompt(tokenizer, prompt) for prompt in prompts]
    decoding = Decoding(LIMIT, settings, Sampling(temperature=0))
    return LockstepEngine(model, tokenizer).generate(
        ids, decoding, keys=[SampleKey(0, "page", 0, place) for place in range(len(ids))]
    )[0]


def page_rollouts(
    ask: Ask, tokenizer: Any, name: str, prompts: list[str], cases: Sequence[RolloutSettings | None]
) -> list[list[dict[str, Any]]]:
    """The page's completions, ``[cases][prompts]``."""
    text = TokenText.from_tokenizer(tokenizer)
    described = [
        {
            "settings": describe_rollout(settings or rollout_settings("paper"), LIMIT, text),
            "probing": settings is not None,
        }
        for settings in cases
    ]
    [answers] = ask({"task": "rollouts", "model": name, "prompts": prompts, "cases": described})
    return list(answers)


def is_close_call(
    model: Any, prompt_ids: list[int], answer: dict[str, Any], trajectory: Trajectory, settings: RolloutSettings
) -> bool:
    """Whether the first difference is one that rounding may make; ``prompt_ids`` are those of the inducing prompt."""
    for page, package in zip(answer["probes"], trajectory.probes, strict=False):
        if abs(package.confidence - settings.exit_threshold) < NEAR_THRESHOLD:
            return True
        if page["ids"] != package.token_ids:
            trial = package.token_ids[: first_difference(page["ids"], package.token_ids)]
            return gap(model, trajectory, [*trajectory.completion_ids[: package.position], *prompt_ids, *trial]) < CLOSE
    place = first_difference(answer["kept"], trajectory.completion_ids)
    return gap(model, trajectory, trajectory.completion_ids[:place]) < CLOSE


def first_difference(one: Sequence[int], other: Sequence[int]) -> int:
    return next((place for place, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), len(one))


@torch.no_grad()
def gap(model: Any, trajectory: Trajectory, completion: list[int]) -> float:
    """How far apart the logits of the two likeliest tokens after a completion are."""
    logits = model(torch.tensor([[*trajectory.prompt_ids, *completion]])).logits[0, -1]
    first, second = logits.topk(2).values.tolist()
    return float(first - second)


def test_greedy_tokens_are_those_of_transformers(ask: Ask) -> None:
    model, tokenizer = rounded("overthinker-2")
    prompts = prompts_of("overthinker-2", 3)
    [answers] = page_rollouts(ask, tokenizer, "second", prompts, [None])
    for prompt, answer in zip(prompts, answers, strict=True):
        ids = encode_prompt(tokenizer, prompt)
        assert answer["prompt_ids"] == ids
        generated = model.generate(torch.tensor([ids]), max_new_tokens=LIMIT, do_sample=False)[0, len(ids) :].tolist()
        if answer["kept"] != generated:
            shared = generated[: first_difference(answer["kept"], generated)]
            assert gap(model, Trajectory(ids, generated, [], "", 1, None, "eos"), shared) < CLOSE


CASES = [(preset, threshold) for preset in PAGE_PRESETS for threshold in (0.95, 0.8)]


def compare(ask: Ask, name: str, source: str, laboratory: str, count: int, cases: list[tuple[str, float]]) -> list[str]:
    """The completions in which page and package differ, one line each; those not excused say so."""
    model, tokenizer = rounded(source)
    prompts = prompts_of(laboratory, count)
    margin = load_recipe("overthinker-2").rollout.near_budget_margin
    settings = [
        rollout_settings(preset, markers="paper", exit_threshold=threshold, near_budget_margin=margin)
        for preset, threshold in cases
    ]
    found = []
    for one, answers in zip(settings, page_rollouts(ask, tokenizer, name, prompts, settings), strict=True):
        trajectories = greedy_rollouts(model, tokenizer, prompts, one)
        for prompt, answer, trajectory in zip(prompts, answers, trajectories, strict=True):
            if unlike := differences(answer, trajectory):
                close = is_close_call(model, tokenizer.encode(one.probe_prompt), answer, trajectory, one)
                excuse = "close call" if close else "NO EXCUSE"
                found.append(f"{one.preset} {one.exit_threshold} {prompt!r}: {', '.join(unlike)} ({excuse})")
    return found


def test_rollouts_equal_the_packages_on_a_few_problems(ask: Ask) -> None:
    assert compare(ask, "second", "overthinker-2", "overthinker-2", 2, CASES) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "source", "count", "cases"),
    [
        ("second", "overthinker-2", 200, CASES[:1]),
        ("second", "overthinker-2", 50, CASES[1:]),
        ("first", "overthinker", 40, CASES),
    ],
)
def test_rollouts_equal_the_packages(
    ask: Ask, name: str, source: str, count: int, cases: list[tuple[str, float]]
) -> None:
    found = compare(ask, name, source, source, count, cases)
    for line in found:
        warnings.warn(line, stacklevel=1)  # pytest lists them at its end
    assert not [line for line in found if "NO EXCUSE" in line], "\n".join(found)
    assert len(found) <= 0.01 * count * len(cases), "\n".join(found)


@pytest.mark.parametrize("preset", PAGE_PRESETS)
@pytest.mark.parametrize("temperature", [0, 1])
def test_probes_that_never_exit_leave_the_completion_identical(
    ask: Ask, page: Path, preset: str, temperature: float
) -> None:
    known = json.loads((page / "data" / "model-second.json").read_text(encoding="utf-8"))
    described = {"settings": known["watching"][preset], "temperature": temperature, "seed": 7}
    cases = [{**described, "probing": True}, {**described, "probing": False}]
    [[watched, plain]] = ask(
        {"task": "rollouts", "model": "second", "prompts": prompts_of("overthinker-2", 2), "cases": cases}
    )
    assert [each["kept"] for each in watched] == [each["kept"] for each in plain]
    assert all(each["probes"] for each in watched if each["steps"] > 1)
    assert sum(each["probe_tokens"] for each in watched) > 0


@pytest.mark.parametrize("source", ["overthinker-2", "overthinker"])
@pytest.mark.slow
def test_verdicts_survive_the_rounding_of_the_weights(source: str) -> None:
    """The page may say that its 16-bit weights think as the package's do."""
    prompts = prompts_of(source, 200)
    settings = rollout_settings("official", markers="paper")
    exact = greedy_rollouts(*load_model(source, device="cpu"), prompts, settings)
    halves = greedy_rollouts(*rounded(source), prompts, settings)
    verdicts = [[probe.accepted for probe in one.probes] == [probe.accepted for probe in other.probes]
                for one, other in zip(exact, halves, strict=True)]  # fmt: skip
    assert sum(verdicts) >= 0.97 * len(verdicts)


# ---- the page's own: random numbers, problems, files -----------------------------------------------------------------


def test_random_numbers_are_even_and_differ_by_seed_and_position(ask: Ask) -> None:
    one, other = ask(*({"task": "numbers", "seed": seed, "count": 20_000} for seed in (1, 2)))
    for numbers in (one, other):
        tenths = [sum(int(number * 10) == tenth for number in numbers) for tenth in range(10)]
        assert all(1800 < count < 2200 for count in tenths)
        pairs = sum(a < 0.5 and b < 0.5 for a, b in itertools.pairwise(numbers))
        assert 4600 < pairs < 5400
    assert len({*one, *other}) > 39_900


def test_tokens_are_drawn_by_their_probabilities(ask: Ask) -> None:
    logits = torch.tensor([0.0, 1.0, -2.0, 3.0, 2.5])
    count = 20_000
    numbers = [(place + 0.5) / count for place in range(count)]
    for temperature in (0.5, 1.0, 2.0):
        [draws] = ask({"task": "draws", "logits": logits.tolist(), "temperature": temperature, "numbers": numbers})
        wanted = (logits / temperature).softmax(0)
        shares = torch.tensor([draws.count(token) for token in range(len(logits))]) / count
        assert (shares - wanted).abs().max() < 2 / count * len(logits)


@pytest.mark.parametrize("laboratory", ["overthinker", "overthinker-2"])
def test_problems_are_read_and_solved(ask: Ask, laboratory: str) -> None:
    problems = overthinker_problems("train", 300, laboratory=laboratory)
    [answers] = ask({"task": "problems", "texts": [problem.prompt for problem in problems]})
    assert [(answer["family"], answer["answer"]) for answer in answers] == [
        (problem.family, problem.answer) for problem in problems
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "What is 2+2?",
        "Start at 12: +1. Which digit, mod 10?",
        "Start at 1: . Which digit, mod 10?",
        "Start at 1: +5*7 -5",
        "Start at 1: /5. Which digit, mod 10?",
        "Which gives 0, mod 10: A 2+3-9, C 3*3+1?",  # a name is left out
        "Which gives 0, mod 10: A 2+3-5, B 3*3+1?",  # two answers
        "Which gives 0, mod 10: A 2+3-9, B 3*3+3?",  # none
    ],
)
def test_what_is_no_problem_of_these_kinds_has_no_gold(ask: Ask, text: str) -> None:
    assert ask({"task": "problems", "texts": [text]}) == [[None]]


def test_answers_are_read_as_the_package_reads_them(ask: Ask) -> None:
    model, tokenizer = rounded("overthinker-2")
    prompts = prompts_of("overthinker-2", 40)
    texts = [trajectory.text for trajectory in greedy_rollouts(model, tokenizer, prompts, None)]
    texts += ["\\boxed{3}", "</think>\\boxed{}", "</think>\\boxed{1} \\boxed{2", "</think>\\boxed{ C }<|im_end|>"]
    [answers] = ask({"task": "answers", "texts": texts, "close": THINK_CLOSE})
    assert answers == [extract_boxed(text) for text in texts]


def test_steps_derive_what_the_verifier_says(ask: Ask) -> None:
    """Where it says something: the verifier also checks that every equation follows from the one before."""
    model, tokenizer = rounded("overthinker-2")
    problems = overthinker_problems("test", 40, seed=5, laboratory="overthinker-2")
    trajectories = greedy_rollouts(model, tokenizer, [problem.prompt for problem in problems], None)
    known = 0
    jobs, wanted = [], []
    for problem, trajectory in zip(problems, trajectories, strict=True):
        steps = [step.text for step in MarkerSegmenter("paper").split(trajectory.text)]
        jobs.append({"task": "derived", "steps": steps, "problem": problem.prompt})
        wanted.append(derived_answers(problem, trajectory.text))
    for answers, expected in zip(ask(*jobs), wanted, strict=True):
        pairs = [(answer, right) for answer, right in zip(answers, expected, strict=True) if right is not None]
        known += len(pairs)
        assert all(answer == right for answer, right in pairs)
    assert known > 80


def test_a_page_names_every_file_it_needs(page: Path) -> None:
    manifest = json.loads((page / "data" / "live.json").read_text(encoding="utf-8"))
    assert [model["name"] for model in manifest["models"]] == ["second", "first", "tiny"]
    for model in manifest["models"]:
        assert (page / "data" / model["weights"]).is_file()
        assert (page / "data" / model["description"]).is_file()
    families = {(problem["family"], problem["level"]) for problem in manifest["problems"]}
    assert len(families) == 9
    settings = json.loads((page / "data" / "model-second.json").read_text(encoding="utf-8"))["presets"]
    recipe = load_recipe("overthinker-2").rollout
    assert settings["official"]["exit_threshold"] == recipe.exit_threshold
    assert settings["paper"]["think_budget"] == int(recipe.think_budget * recipe.max_tokens)


@pytest.mark.parametrize(
    ("models", "message"),
    [({}, "at least one model"), ({"../up": "overthinker"}, "file name"), ({"gone": "no/such-model"}, "no/such-model")],
)
def test_a_page_that_cannot_be_written_says_why(tmp_path: Path, models: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_live(tmp_path, models)


def test_settings_that_the_page_does_not_know_are_refused(byte_bpe_tokenizer: Any) -> None:
    text = TokenText.from_tokenizer(byte_bpe_tokenizer)
    assert IM_END.encode() in text.table.values()
    for settings in (rollout_settings("paper", markers="blank_lines"), rollout_settings("paper", markers=["等等"])):
        with pytest.raises(ValueError, match="plain marker words"):
            describe_rollout(settings, 100, text)
    with pytest.raises(ValueError, match="stop_decided"):
        describe_rollout(replace(rollout_settings("official"), stop_decided=True), 100, text)
