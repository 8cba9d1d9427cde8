"""The pages of the book that the library writes: reference, recipes, results, course, papers, how it is built."""

from __future__ import annotations

import ast
import html
import inspect
import re
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import stepgrpo_lab
from stepgrpo_lab._imports import MOVED, ROOT
from stepgrpo_lab.authoring.notebooks.building import Lesson, find_lessons
from stepgrpo_lab.evaluation._tables import markdown_table
from stepgrpo_lab.planning.plan import plan_memory
from stepgrpo_lab.planning.views import components_table, recipes_table
from stepgrpo_lab.recipes.loading import load_recipe, recipe_names
from stepgrpo_lab.site._markdown import Links, section
from stepgrpo_lab.site._notebooks import book_notebook
from stepgrpo_lab.site.lite import IN_BROWSER

RESULTS = "data/results"
COURSE = "course"
GENERATED = "_generated"
"""What pages of ``docs/`` include."""
_ARXIV = re.compile(r"arXiv:?\s*(\d{4}\.\d{4,5})")
_TITLE = re.compile(r"^# (.+)$", re.MULTILINE)


def write_pages(root: Path, book: Path, parts: frozenset[str]) -> None:
    """Write every page into the book's source folder.

    Args:
        root: Folder of a checkout.
        book: The source folder, a copy of ``docs/``.
        parts: What else is built: "live", "lite".

    Raises:
        ValueError: The folder is no checkout.
    """
    lessons = find_lessons(root)
    links = Links(root, lessons[0].repository, dict(_known_pages(root, lessons)))
    for name, text in (
        *_api_pages(),
        *_result_pages(root, links),
        ("instructors.md", _instructors_page(root, links)),
        (f"{GENERATED}/recipes.md", _recipes(root)),
        (f"{GENERATED}/layers.md", _layers(root)),
        (f"{GENERATED}/update.py", (root / "stepgrpo_lab" / "method" / "update.py").read_text(encoding="utf-8")),
        (f"{GENERATED}/papers.md", _papers(root, links)),
        (f"{GENERATED}/course.md", _course_table(lessons, parts)),
        (f"{GENERATED}/moved.md", _moved_table()),
        (f"{GENERATED}/doors.html", _doors(lessons, parts)),
    ):
        path = book / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    for name in ("glossary.md", "architectures.md"):
        path = book / name
        path.write_text(links.rewrite(path.read_text(encoding="utf-8"), f"docs/{name}", name), encoding="utf-8")
    for picture in (root / RESULTS).rglob("*.svg"):
        (book / "results" / picture.name).write_bytes(picture.read_bytes())
    for lesson in lessons:
        book_notebook(root, lesson, book / COURSE / f"{lesson.name}.ipynb", links, ways_to(lesson, parts, "../"))


def _known_pages(root: Path, lessons: list[Lesson]) -> Iterator[tuple[str, str]]:
    """File of the repository -> page of the book that shows it."""
    yield from ((f"docs/{name}.md", f"{name}.md") for name in ("glossary", "architectures", "migration"))
    yield "docs/interface.md", "api/index.md"
    yield "notebooks/README.md", "instructors.md"
    yield "stepgrpo_lab/recipes/README.md", "recipes.md"
    yield "stepgrpo_lab/recipes", "recipes.md"
    yield "stepgrpo_lab/method/__init__.py", "method.md"
    for lesson in lessons:
        for folder in ("notebooks", "notebooks/solutions"):
            yield f"{folder}/{lesson.name}.ipynb", f"{COURSE}/{lesson.name}.ipynb"
    yield f"{RESULTS}/README.md", "results.md"
    yield RESULTS, "results.md"
    for path in (root / RESULTS).rglob("*"):
        if path.suffix in {".md", ".svg"} and path.name != "README.md":
            yield path.relative_to(root).as_posix(), f"results/{path.name}"


# ---- reference -------------------------------------------------------------------------------------------------------


def _api_pages() -> Iterator[tuple[str, str]]:
    """The public names by subject, each with its docstring."""
    subjects = stepgrpo_lab._PUBLIC
    pages = {subject: re.sub(r"\W+", "-", subject.lower()).strip("-") for subject in subjects}
    for subject, homes in subjects.items():
        parts = [f"# {subject}\n"]
        found = [(module, name) for module, names in homes.items() for name in names]
        for module, name in sorted(found, key=_by_name):
            parts.append(f"## {name}\n\n```{{eval-rst}}\n{_directive(module, name)}\n```\n")
        yield f"api/{pages[subject]}.md", "\n".join(parts)
    rows = [
        [f"[{subject}]({page}.md)", ", ".join(f"`{name}`" for names in subjects[subject].values() for name in names)]
        for subject, page in pages.items()
    ]
    contents = "\n".join(["```{toctree}", ":hidden:", *pages.values(), "```"])
    yield f"{GENERATED}/api.md", f"{markdown_table(['subject', 'names'], rows)}\n\n{contents}\n"


def _by_name(home: tuple[str, str]) -> str:
    return home[1].lower()


def _directive(module: str, name: str) -> str:
    """How autodoc is asked for a name; of other libraries' subclasses our own members only."""
    value, path = getattr(stepgrpo_lab, name), f"stepgrpo_lab.{module}.{name}"
    if inspect.isclass(value):
        return f".. autoclass:: {path}\n   :members:\n   :exclude-members: __init__, __new__"
    if callable(value):
        return f".. autofunction:: {path}"
    return f".. autodata:: {ROOT}{_home(module, name)}.{name}\n   :no-value:"


def _home(module: str, name: str) -> str:
    """Where a constant is defined, and so described: modules hand on what they import."""
    for node in ast.parse(inspect.getsource(import_module(ROOT + module))).body:
        if isinstance(node, ast.ImportFrom) and node.module and any(alias.name == name for alias in node.names):
            return _home(node.module.removeprefix(ROOT), name)
    return module


# ---- recipes, method, results ----------------------------------------------------------------------------------------


def _recipes(root: Path) -> str:
    """The planner's tables, and each recipe with its components."""
    recipes = [load_recipe(name) for name in recipe_names()]
    plans = {recipe.name: plan_memory(recipe) for recipe in recipes if recipe.name.startswith("qwen3")}
    parts = [recipes_table(list(plans.values())) + "\n"]
    for recipe in recipes:
        path = root / "stepgrpo_lab" / "recipes" / f"{recipe.name}.yaml"
        parts.append(f"## {recipe.name}\n\n{recipe.description}.\n")
        if recipe.name in plans:
            parts.append(components_table(plans[recipe.name]) + "\n")
        text = path.read_text(encoding="utf-8").strip()
        parts.append(f"::::{{dropdown}} The recipe\n```yaml\n{text}\n```\n::::\n")
    return "\n".join(parts) + "\n"


def _layers(root: Path) -> str:
    """The folders as the import contract orders them, each with its docstring's first sentence."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    layers = project["tool"]["importlinter"]["contracts"][0]["layers"]
    rows = []
    for name in (name for layer in layers for name in layer.split(" | ") if not name.startswith("_")):
        sentence = re.split(r"(?<=[.?!])\s|\n\n", (import_module(ROOT + name).__doc__ or "").strip())[0]
        rows.append([f"`{name}`", " ".join(sentence.split())])
    return markdown_table(["folder", "what it holds"], rows) + "\n"


def _result_pages(root: Path, links: Links) -> Iterator[tuple[str, str]]:
    """The records as they are kept beside their JSON, which a test holds together."""
    origin = f"{RESULTS}/README.md"
    overview = links.rewrite((root / origin).read_text(encoding="utf-8"), origin, "results.md")
    names = []
    for path in sorted((root / RESULTS).rglob("*.md")):
        if path.name != "README.md":
            origin, page = path.relative_to(root).as_posix(), f"results/{path.name}"
            text = links.rewrite(path.read_text(encoding="utf-8"), origin, page)
            yield page, text if _TITLE.search(text) else f"# {path.stem.capitalize()}\n\n{text}"
            names.append(page)
    yield "results.md", overview + "\n```{toctree}\n:hidden:\n" + "\n".join(names) + "\n```\n"


def _instructors_page(root: Path, links: Links) -> str:
    origin = "notebooks/README.md"
    text = (root / origin).read_text(encoding="utf-8")
    body = "\n\n".join(f"## {name}\n\n{section(text, name)}" for name in ("For instructors", "For authors"))
    return links.rewrite(f"# Teaching with it\n\n{body}\n", origin, "instructors.md")


# ---- course ----------------------------------------------------------------------------------------------------------


def ways_to(lesson: Lesson, parts: frozenset[str], up: str) -> list[tuple[str, str]]:
    """How to work on a notebook: words and address.

    Args:
        lesson: The notebook.
        parts: What else of the site is built.
        up: From the page to the site's top.
    """
    ways = []
    if "lite" in parts and lesson.number in IN_BROWSER:
        ways.append(("run it in this browser", f"{up}lite/lab/index.html?path={lesson.name}.ipynb"))
    place = lesson.repository.removeprefix("https://github.com/")
    colab = "https://colab.research.google.com/github"
    ways.append(("open it on Colab", f"{colab}/{place}/blob/main/notebooks/{lesson.name}.ipynb"))
    return ways


def _course_table(lessons: list[Lesson], parts: frozenset[str]) -> str:
    rows = []
    for lesson in lessons:
        about = lesson.about
        found = ways_to(lesson, parts, "")
        ways = " · ".join(f'<a href="{address}">{html.escape(words)}</a>' for words, address in found)
        name = f"[{lesson.number} {about['title']}]({COURSE}/{lesson.name}.ipynb)"
        rows.append([name, str(about["minutes"]), about["hardware"], ways])
    return markdown_table(["notebook", "minutes", "hardware", "work on it"], rows) + "\n"


def _doors(lessons: list[Lesson], parts: frozenset[str]) -> str:
    """The ways in, as cards."""
    lab = f"lite/lab/index.html?path={lessons[0].name}.ipynb"
    doors = [
        ("live", "live/index.html", "See it live", "Models think beside each other, in your browser."),
        ("lite", lab, "Do the course", "Notebooks that run in the browser; nothing to install."),
        ("", "course.html", "Read the course", f"{len(lessons)} notebooks, with pictures and folded solutions."),
        ("", "results.html", "See the results", "Every figure with the command that makes it."),
        ("", "api/index.html", "Look it up", "The public interface, with examples."),
    ]
    cards = (
        f'<a href="{address}"><strong>{title}</strong>{text}</a>'
        for part, address, title, text in doors
        if not part or part in parts
    )
    return f'<div class="doors">\n{chr(10).join(cards)}\n</div>\n'


def _moved_table() -> str:
    rows = [[f"`{old}`", ", ".join(f"`{home}`" for home in homes)] for old, homes in MOVED.items()]
    return markdown_table(["`stepgrpo_lab.` in 0.1", "now"], rows) + "\n"


# ---- papers ----------------------------------------------------------------------------------------------------------


def cited_papers(root: Path) -> dict[str, list[tuple[str, str]]]:
    """Every arXiv id that docstrings and pages cite -> file and the sentence around it.

    Args:
        root: Folder of a checkout.
    """
    cited: dict[str, list[tuple[str, str]]] = defaultdict(list)
    files = [*(root / "stepgrpo_lab").rglob("*.py"), root / "README.md"]
    for path in sorted({*files, *(root / "notebooks" / "sources").glob("*.py")}):
        text = re.sub(r"\n\s*#? ?", " ", path.read_text(encoding="utf-8"))
        for match in _ARXIV.finditer(text):
            cited[match[1]].append((path.relative_to(root).as_posix(), _words_before(text, match.start())))
    return dict(sorted(cited.items()))


def _words_before(text: str, place: int) -> str:
    """What leads to a citation: the end of its sentence so far."""
    before = re.split(r"(?<=[.!?:])\s|\"\"\"|`{2,}|[;|\[\]]", text[max(0, place - 160) : place])[-1]
    return re.sub(r"\s*\([^)]*$", "", before).strip(" ,#\"'")


def _short(path: str) -> str:
    return "/".join(Path(path).parts[-2:])


def _papers(root: Path, links: Links) -> str:
    rows = []
    for number, places in cited_papers(root).items():
        words = max((words for _, words in places), key=lambda words: bool(words) * (200 - len(words)), default="")
        files = dict.fromkeys(path for path, _ in places)
        shown = ", ".join(f"[`{_short(path)}`]({links.repository}/blob/main/{path})" for path in files)
        rows.append([f"[{number}](https://arxiv.org/abs/{number})", html.escape(words), shown])
    return markdown_table(["arXiv", "cited for", "where"], rows) + "\n"
