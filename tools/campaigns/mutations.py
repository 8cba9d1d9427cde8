"""Ways to break a file: field by field where its structure is known, byte by byte, and in its place on the disk."""

from __future__ import annotations

import gzip
import json
import os
import random
import re
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from .traps import FIELDS, broken_tensors, trapped_json, trapped_template

RAW = "\ue000"
"""Marks text that replaces a value as it is, so that a document can hold what no JSON writer would write."""

STRANGE_TEXT = ["", " ", "\0", "\ud800", "\u202e\u200b", "\x1b[2J", "\u2028", "<script>", "x" * 1_000_000, "é\n" * 50]
STRANGE_TEXT += ["../../../etc/passwd", "/dev/zero", "{{ 9 * 9 }}", "Wait" * 2000, "-1", "NaN", "null", "😀" * 20_000]
STRANGE_NUMBERS = [-1, 0, 1, -7, 2**31, 2**63, 10**18 + 1, -(10**18) - 1, 0.5, -0.0, 1e308, -1e308, 5e-324]
STRANGE_VALUES = [None, True, False, [], {}, [[]], [None], {"": None}, {"a": {"b": []}}, [1] * 100_000, [[]] * 50_000]
STRANGE_JSON = [
    "NaN",
    "Infinity",
    "-Infinity",
    "1e400",
    "1" * 5000,
    "-" + "9" * 400,
    "[" * 100_000,
    "01",
    "'x'",
    "{",
    "",
]
STRANGE_JSON += ["[" * depth + "]" * depth for depth in (20, 40, 400, 2000)] + ['{"a":' * 500 + "1" + "}" * 500]
STRANGE_YAML = ["!!python/object/apply:os.system [true]", "&a [*a]", "!!int ''", "!!timestamp x", "2001-99-99", ".nan"]
STRANGE_YAML += [
    "- " * 3000,
    "? " * 200 + "x",
    "'",
    "|\n\n",
    "{a: 1, a: 2}",
    "1:" * 2000 + "1",
    "0b" + "1" * 9000,
    "<<: {}",
]

Rng = random.Random


def broken_value(rng: Rng, value: Any) -> Any:
    """Another value in a value's place: of another type, empty, huge, nested, not finite, negative, odd text."""
    kinds: list[Callable[[], Any]] = [
        lambda: rng.choice(STRANGE_VALUES),
        lambda: rng.choice(STRANGE_NUMBERS),
        lambda: rng.choice(STRANGE_TEXT),
        lambda: RAW + rng.choice(STRANGE_JSON),
        lambda: [value],
        lambda: {"value": value},
        lambda: str(value)[:1000],
    ]
    if isinstance(value, bool) or value is None:
        kinds.append(lambda: int(value or 0))
    elif isinstance(value, (int, float)):
        kinds += [lambda: -value, lambda: value + 0.5, lambda: value * 10**9, lambda: bool(value)]
    elif isinstance(value, (list, str)) and value:
        kinds += [lambda: value[:-1], lambda: value + value, lambda: value[::-1]]
    return rng.choice(kinds)()


def nodes(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths to everything in a JSON value; of long lists, to the first items and the last."""
    found = [path]
    if isinstance(value, dict):
        for key, item in list(value.items())[:60]:
            found += nodes(item, (*path, key))
    elif isinstance(value, list):
        for index in sorted({0, 1, len(value) - 1} & set(range(len(value)))):
            found += nodes(value[index], (*path, index))
    return found


def broken_json(rng: Rng, value: Any) -> str:
    """The text of a JSON value with one thing changed in it."""
    value = json.loads(json.dumps(value))
    path = rng.choice(nodes(value))
    if not path:
        return _text(broken_value(rng, value))
    holder = value
    for step in path[:-1]:
        holder = holder[step]
    key, old = path[-1], holder[path[-1]]
    what = rng.choice(["absent", "renamed", "more", "twice", *["changed"] * 8])
    if what == "absent":
        del holder[key]
    elif what == "renamed" and isinstance(holder, dict):
        holder[rng.choice([*STRANGE_TEXT, str(key).upper()])] = holder.pop(key)
    elif what == "more" and isinstance(holder, dict):
        holder[rng.choice(["surprise", "__class__", "id", ""])] = broken_value(rng, old)
    elif what == "more":
        holder.insert(key, old)
    elif what == "twice" and isinstance(holder, dict):
        holder[key] = RAW + f"{_text(old)}, {json.dumps(key)}: {_text(broken_value(rng, old))}"
    else:
        holder[key] = broken_value(rng, old)
    return _text(value)


def _text(value: Any) -> str:
    """JSON text in which marked strings stand as they are."""
    return re.sub(r'"\\ue000((?:[^"\\]|\\.)*)"', lambda found: json.loads(f'"{found[1]}"'), json.dumps(value))


def broken_lines(rng: Rng, content: bytes) -> bytes:
    """JSON Lines with one thing changed in one row, or rows lost, doubled, swapped, cut off."""
    lines = content.decode().splitlines()
    place = rng.randrange(len(lines))
    what = rng.choice(["lost", "doubled", "swapped", "blank", *["changed"] * 12])
    if what == "changed":
        lines[place] = broken_json(rng, json.loads(lines[place]))
    elif what == "swapped":
        rng.shuffle(lines)
    else:
        lines[place : place + 1] = {"lost": [], "doubled": [lines[place]] * 2, "blank": ["", lines[place]]}[what]
    return ("\n".join(lines) + rng.choice(["\n", "\n", "\n", "", "\r\n", "\n\n"])).encode("utf-8", "surrogatepass")


def broken_yaml(rng: Rng, content: bytes) -> bytes:
    """YAML with one value changed: as JSON, which is YAML too, or into what only YAML has."""
    import yaml

    value = yaml.safe_load(content)
    if rng.random() < 0.7:
        return broken_json(rng, value).encode("utf-8", "surrogatepass")
    lines = content.decode().splitlines()
    place = rng.randrange(len(lines))
    strange = rng.choice(STRANGE_YAML)
    lines[place] = rng.choice([lines[place].partition(":")[0] + ": " + strange, strange, "\t" + lines[place], "---"])
    return "\n".join(lines).encode()


def broken_bytes(rng: Rng, content: bytes) -> bytes:
    """Content with bytes lost, flipped, zeroed or put in, or in another encoding."""
    place, size = rng.randrange(len(content) + 1), rng.choice([1, 8, 100, 4096])
    before, after = content[:place], content[place + size :]
    noise = rng.randbytes(size)
    flipped = bytes(byte ^ (1 << rng.randrange(8)) for byte in content[place : place + 1])
    kinds: list[Callable[[], bytes]] = [
        lambda: before,
        lambda: before + content[place + size :],
        lambda: before + flipped + content[place + 1 :],
        lambda: before + bytes(size) + after,
        lambda: before + noise + after,
        lambda: before + noise + content[place:],
        lambda: content + noise,
        lambda: content + content,
        lambda: b"\xef\xbb\xbf" + content,
        lambda: content.decode("latin-1").encode("utf-16"),
        lambda: content.replace(b"\n", b"\r\n"),
        lambda: gzip.compress(content),
        lambda: rng.choice([b"", b"\n", b"\0" * 100, b"\x80\x04\x95.", b"PK\x03\x04", noise]),
    ]
    return rng.choice(kinds)()


@cache
def _bomb(kind: str) -> bytes:
    unit = {"zeros": bytes(2**20), "brackets": b"[" * 2**20, "rows": b"{}\n" * 2**18}[kind]
    return gzip.compress(unit * 256, compresslevel=1)


def broken_gzip(rng: Rng, content: bytes) -> bytes:
    """A gzipped file broken inside, outside, or made of what unpacks without end."""
    plain = gzip.decompress(content)
    kinds: list[Callable[[], bytes]] = [
        *[lambda: gzip.compress(broken_lines(rng, plain), compresslevel=1)] * 12,
        *[lambda: gzip.compress(broken_bytes(rng, plain), compresslevel=1)] * 3,
        *[lambda: broken_bytes(rng, content)] * 3,
        lambda: plain,
        lambda: _bomb(rng.choice(["zeros", "brackets", "rows"])),
        lambda: gzip.compress(plain.splitlines(keepends=True)[0], 1) + _bomb("rows"),
        lambda: gzip.compress(plain + plain.splitlines(keepends=True)[1] * 300, 1),
    ]
    return rng.choice(kinds)()


def misplaced(rng: Rng, path: Path) -> str:
    """Put something else in a file's place; returns what."""
    what = rng.choice(["folder", "pipe", "endless", "outside", "dangling", "itself", "missing"])
    path.unlink()
    if what == "folder":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)
    elif what != "missing":
        targets = {"endless": "/dev/zero", "outside": "/etc/passwd", "dangling": "nothing/there", "itself": path.name}
        path.symlink_to(targets[what])
    return what


def restore(path: Path, content: bytes) -> None:
    """Put a file back in its place, whatever is there now."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    path.write_bytes(content)


def mutate(rng: Rng, path: Path) -> str:
    """Break a file in one of the ways above; returns how, in a word."""
    content = path.read_bytes()
    if rng.random() < 0.02:
        return misplaced(rng, path)
    if rng.random() < 0.75:
        path.write_bytes(_structured(rng, path.name, content))
        return "structure"
    path.write_bytes(broken_bytes(rng, content))
    return "bytes"


def _structured(rng: Rng, name: str, content: bytes) -> bytes:
    """Content broken as its kind of file can be."""
    suffix = Path(name).suffix
    if name in FIELDS and rng.random() < 0.6:
        return trapped_json(rng, name, content)
    if suffix == ".json":
        return broken_json(rng, json.loads(content)).encode("utf-8", "surrogatepass")
    if suffix == ".safetensors":
        return broken_tensors(rng, content, broken_json)
    known = {".gz": broken_gzip, ".yaml": broken_yaml, ".jsonl": broken_lines, ".jinja": trapped_template}
    return known.get(suffix, broken_bytes)(rng, content)
