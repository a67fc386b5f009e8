"""Links and anchors of README and docs lead somewhere, and no page says a paragraph twice.

Programs and files: `tests.test_named_modules`.
"""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
PACKAGES = "rtdecode|streaming|train|export|benchmarks|tests|deploy"

_FENCE = re.compile(r"^ *```.*?^ *```[^\n]*$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[(?:[^][]|\[[^][]*\])*\]\(([^()\s]+)\)")
_HEADING = re.compile(r"^#{1,6} +(.+?) *#*$", re.MULTILINE)
# Shorter sentences may stand twice, such as those that lead to a table of each system.
_LONG_PARAGRAPH = 200
_MENTION = re.compile(r"\bdocs/[\w/-]+\.md\b")


def _prose(text: str) -> str:
    """Blank out fenced code, and keep the number of each line."""
    return _FENCE.sub(lambda match: "\n" * match[0].count("\n"), text)


def _slug(heading: str) -> str:
    """Return GitHub's anchor of a heading."""
    words = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
    return re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")


@cache
def _anchors(page: Path) -> set[str]:
    """Return all anchors of a page; a heading that comes again has a number behind it."""
    times: dict[str, int] = {}
    anchors: set[str] = set()
    for heading in _HEADING.findall(_prose(page.read_text())):
        slug = _slug(heading)
        count = times.get(slug, 0)
        times[slug] = count + 1
        anchors.add(f"{slug}-{count}" if count else slug)
    return anchors


def _broken_links(page: Path, root: Path) -> Iterator[str]:
    """Name each relative link of a page that leads nowhere, with its line."""
    text = _prose(page.read_text())
    for match in _LINK.finditer(text):
        if re.match(r"[a-z]+:", match[1]):
            continue
        file, _, anchor = match[1].partition("#")
        target = (page.parent / file).resolve() if file else page
        line = text.count("\n", 0, match.start()) + 1
        place = f"{page.relative_to(root)}:{line}: {match[1]}"
        if not target.exists():
            yield f"{place}: there is no such file"
        elif anchor and (target.suffix != ".md" or anchor not in _anchors(target)):
            yield f"{place}: there is no such heading"


def test_every_link_and_anchor_leads_somewhere() -> None:
    assert [sentence for page in PAGES for sentence in _broken_links(page, ROOT)] == []


def test_a_link_and_an_anchor_that_lead_nowhere_are_named(tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("# `rtdecode fit`: a title\n\n## Twice\n\n## Twice\n")
    page = tmp_path / "page.md"
    page.write_text(
        "# Page\n\n[a](other.md#rtdecode-fit-a-title), [b](other.md#twice-1), [c](#page), [d](https://x.org/y#z)\n\n"
        "```\n# Code\n[e](gone.md)\n```\n\n[f](gone.md)\n[g](other.md#thrice) [h](#code)\n"
    )
    assert list(_broken_links(page, tmp_path)) == [
        "page.md:10: gone.md: there is no such file",
        "page.md:11: other.md#thrice: there is no such heading",
        "page.md:11: #code: there is no such heading",
    ]


def _said_twice(page: Path) -> Iterator[str]:
    """Name the beginning of each long paragraph or table that stands on a page twice."""
    earlier: set[str] = set()
    for paragraph in re.split(r"\n\s*\n", _prose(page.read_text())):
        words = " ".join(paragraph.split())
        if words in earlier:
            yield f"{page.name}: {words[:60]}"
        if len(words) >= _LONG_PARAGRAPH:
            earlier.add(words)


def test_no_page_says_a_long_paragraph_twice(tmp_path: Path) -> None:
    assert [sentence for page in PAGES for sentence in _said_twice(page)] == []
    page = tmp_path / "page.md"
    long = "Words " * 40
    page.write_text(f"# Page\n\nShort.\n\n{long}\n\nShort.\n\n{long}\n")
    assert list(_said_twice(page)) == [f"page.md: {long[:60]}"]


def test_an_index_leads_to_every_page_beside_it() -> None:
    for folder in (ROOT / "docs", ROOT / "docs" / "notebook"):
        index = folder / "README.md"
        links = {(folder / link.partition("#")[0]).resolve() for link in _LINK.findall(index.read_text())}
        assert sorted(set(folder.glob("*.md")) - links - {index}) == []


def test_pages_that_the_code_names_are_there() -> None:
    gone = [
        f"{path.relative_to(ROOT)}: {name}"
        for package in PACKAGES.split("|")
        for path in sorted((ROOT / package).rglob("*.py"))
        if path != Path(__file__) and path.name not in {"test_tables.py", "test_house.py"}
        for name in _MENTION.findall(path.read_text())
        if not (ROOT / name).is_file()
    ]
    assert gone == []
