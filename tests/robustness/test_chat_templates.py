"""Chat templates of strangers end soon, in one line; those of real models render as with transformers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import trl
from tiny import save_tiny, tiny_tokenizer
from transformers.utils.chat_template_utils import render_jinja_template

from stepgrpo_lab.engines.models import load_tokenizer
from stepgrpo_lab.engines.templates import render_chat
from stepgrpo_lab.engines.tokenizers import encode_messages

QUESTION = [{"role": "user", "content": "question"}]
MANY = "{% for i in range(99999) %}"
GROWING = "{% set n = namespace(x='aaaa') %}{% for i in range(60) %}{% set n.x = STEP %}{% endfor %}{{ n.x | length }}"
NESTING = "{% set n = namespace(x=[1]) %}{% for i in range(60) %}{% set n.x = STEP %}{% endfor %}"

ENDLESS = {
    "a huge range": "{% for i in range(10**10) %}x{% endfor %}",
    "nested loops": f"{MANY}{MANY}{{% endfor %}}{{% endfor %}}",
    "nested loops that skip": "{% for i in range(99999) %}{% for j in range(99999) if false %}{% endfor %}{% endfor %}",
    "loops one after the other": "{% set r = range(99999) %}" + "{% for i in r %}{% endfor %}" * 1500,
    "a long text in a loop": MANY + "x" * 50_000 + "{% endfor %}",
    "a long text in a set block": "{% set z %}" + MANY + "x" * 50_000 + "{% endfor %}{% endset %}",
    "a long text in a macro": "{% macro f() %}" + MANY + "x" * 50_000 + "{% endfor %}{% endmacro %}{% set z = f() %}",
    "a product": "{{ 'a' * 10**9 }}",
    "a product in a variable": "{% set x = 3000000000 * 'a' %}{{ messages[0].content }}",
    "a list times a number": "{{ ([0] * 10**9) | length }}",
    "a power": "{{ 10 ** 10 ** 10 }}",
    "squares": GROWING.replace("'aaaa'", "10**60").replace("STEP", "n.x * n.x"),
    "joined to itself": GROWING.replace("STEP", "n.x ~ n.x"),
    "added to itself": GROWING.replace("STEP", "n.x + n.x"),
    "replaced by a filter": GROWING.replace("STEP", "n.x | replace('a', 'aaaa')"),
    "replaced by a method": GROWING.replace("STEP", "n.x.replace('a', 'aaaa')"),
    "shared lists": NESTING.replace("STEP", "[n.x, n.x]") + "{{ n.x }}",
    "shared dictionaries as JSON": NESTING.replace("STEP", "dict(a=n.x, b=n.x)") + "{{ n.x | tojson }}",
    "padded by a filter": "{{ 'a' | center(10**9) }}",
    "padded by a method": "{{ 'a'.ljust(10**9) }}",
    "padded by a format": "{{ '%1000000000d' % 1 }}",
    "padded by str.format": "{{ '{:1000000000}'.format(1) }}",
    "indented": "{{ ('a\n' * 100000) | indent(10**9) }}",
    "indented JSON": "{{ [1, 2] | tojson(indent=10**9) }}",
    "long separators": "{{ range(99999) | join('a' * 100000) }}",
    "long JSON separators": "{{ (range(99999) | list) | tojson(separators=('a' * 100000, 'b')) }}",
    "mapped": "{{ range(99999) | map('replace', '1', 'a' * 10000) | join }}",
    "filler": "{{ lipsum(n=10**9) }}",
    "a macro with two calls": "{% macro f(n) %}{% if n %}{{ f(n-1) ~ f(n-1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "a macro without end": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "a loop that calls itself": "{% for x in [1, 2] recursive %}{{ loop([1, 2]) }}{% endfor %}",
    "comparisons": "{% set a = 'a' * 1000000 %}{% set b = 'a' * 1000000 %}" + "{% if a == b %}{% endif %}" * 2000,
    "sorting": "{% set r = range(99999) | list %}" + "{{ r | sort | length }}" * 2000,
    "too long": "x" * 10**7,
    "brackets": "{{ " + "(" * 30_000 + "1" + ")" * 30_000 + " }}",
    "blocks": "{% if a %}" * 3000 + "{% endif %}" * 3000,
    "a long sum": "{{ a" + "+a" * 30_000 + " }}",
    "a number without end": "{{ " + "9" * 50_000 + " }}",
}


@pytest.mark.parametrize("name", ENDLESS)
def test_a_template_without_end_is_refused_soon(name: str) -> None:
    with pytest.raises(ValueError, match="chat template") as caught:
        render_chat(ENDLESS[name], QUESTION, {})
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


REACHING = [
    "{{ ''.__class__.__mro__ }}",
    "{{ cycler.__init__.__globals__ }}",
    "{{ namespace(__class__=1) }}",
    "{% set n = namespace() %}{% set n.__class__ = 1 %}",
    "{% macro f() %}{% endmacro %}{{ f._func.__globals__ }}",
    "{{ messages.append(1) }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}",
]


@pytest.mark.parametrize("template", REACHING)
def test_a_template_reaches_nothing_of_python_and_no_file(template: str) -> None:
    with pytest.raises(ValueError, match="chat template refuses"):
        render_chat(template, QUESTION, {})


@pytest.mark.parametrize("place", ["chat_template.jinja", "tokenizer_config.json"])
@pytest.mark.parametrize("name", ["a product", "nested loops"])
def test_a_model_with_such_a_template_is_refused_by_name(tmp_path: Path, place: str, name: str) -> None:
    save_tiny(tmp_path)
    if place.endswith(".jinja"):
        (tmp_path / place).write_text(ENDLESS[name])
    else:
        (tmp_path / "chat_template.jinja").unlink(missing_ok=True)
        settings = json.loads((tmp_path / place).read_text())
        (tmp_path / place).write_text(json.dumps({**settings, "chat_template": ENDLESS[name]}))
    with pytest.raises(ValueError, match="set another chat_template") as caught:
        load_tokenizer(tmp_path)
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_trap_for_one_kind_of_message_is_met_when_it_is_sprung() -> None:
    tokenizer = tiny_tokenizer()
    template = "{% if 'key' in messages[0].content %}{{ 'a' * 10**9 }}{% endif %}{{ messages[0].content }}"
    trapped = type(tokenizer)(tokenizer_object=tokenizer.backend_tokenizer, eos_token=tokenizer.eos_token)
    trapped.chat_template = template
    assert encode_messages(trapped, QUESTION)
    with pytest.raises(ValueError, match="too much text"):
        encode_messages(trapped, [{"role": "user", "content": "key"}])


REAL = sorted((Path(trl.__file__).parent / "chat_templates").glob("*.jinja"))
TURNS = [
    {"role": "system", "content": "Be\nbrief. "},
    {"role": "user", "content": " 1 + 1"},
    {"role": "assistant", "content": "<think>\nx\n</think>\n\n2"},
    {"role": "user", "content": "and then?"},
]


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.stem)
@pytest.mark.parametrize("messages", [QUESTION, TURNS, [{"role": "user", "content": "long " * 20_000}]])
def test_templates_of_real_models_render_as_with_transformers(path: Path, messages: list[dict[str, str]]) -> None:
    source = path.read_text(encoding="utf-8")
    known = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "add_generation_prompt": True}
    try:
        [expected], _ = render_jinja_template(conversations=[messages], chat_template=source, **known)
    except Exception:  # a template may refuse, a system message for one
        with pytest.raises(ValueError, match="refuses the messages"):
            render_chat(source, messages, known)
        return
    assert render_chat(source, messages, known) == expected


def test_a_real_tokenizer_encodes_as_with_transformers(qwen3_tokenizer: object) -> None:
    expected = qwen3_tokenizer.apply_chat_template(TURNS, add_generation_prompt=True, tokenize=True, return_dict=True)  # type: ignore[attr-defined]
    assert encode_messages(qwen3_tokenizer, TURNS) == expected["input_ids"]  # type: ignore[arg-type]
