"""The pages for users name what exists, and nothing else."""

import re
from pathlib import Path

import pytest

from local.config import Config, Section

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")


def keys(section: type[Section]) -> list[str]:
    found = []
    for name, field in section.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, Section):
            found += keys(inner)
        else:
            found.append(name)
    return found


@pytest.mark.parametrize("key", sorted(set(keys(Config))))
def test_every_key_of_the_configuration_is_explained(key):
    assert re.search(rf"`(?:[a-z_]+\.)*{key}`", PAGE), f"docs/configuration.md lacks {key}"


@pytest.mark.parametrize("section", [name for name in Config.model_fields if name != "prepare"])
def test_no_key_is_explained_that_does_not_exist(section):
    field = Config.model_fields[section].annotation
    if not (isinstance(field, type) and issubclass(field, Section)):
        return
    for key in re.findall(rf"`{section}\.([a-z_]+)", PAGE):
        assert key in field.model_fields, f"docs/configuration.md names {section}.{key}"


PAGES = ["README.md", "ARCHITECTURE.md", *(f"docs/{path.name}" for path in ROOT.glob("docs/*.md"))]
PAGES += [f"recipes/{path.parent.name}/README.md" for path in ROOT.glob("recipes/*/README.md")]


def test_all_scripts_and_pages_can_be_found():
    text = "".join((ROOT / page).read_text(encoding="utf-8") for page in PAGES)
    scripts = {f"bin/{path.name}" for path in ROOT.glob("bin/*.py")}
    assert {path for path in scripts if path not in text} == set()
    front = (ROOT / "README.md").read_text(encoding="utf-8")
    named = ["detect", "export", "score", "plot", "convert"]
    assert [name for name in named if f"bin/{name}.py" not in front] == []
    assert [page for page in PAGES if page.startswith("docs/") and page not in text] == []


@pytest.mark.parametrize("page", sorted(PAGES))
def test_paths_that_a_page_names_exist(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    named = re.findall(r"`((?:bin|conf|docs|recipes|local)/[A-Za-z0-9_./-]+)`", text)
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    # In capitals is what the reader fills in, as in conf/RECIPE/.
    named = [path for path in named if not re.search(r"/[A-Z]+/", path)]
    missing = [
        path
        for path in [*named, *links]
        if not (ROOT / path).exists() and not (ROOT / page).parent.joinpath(path).exists()
    ]
    assert missing == []
