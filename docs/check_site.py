"""Checks the documentation site that `make site` has built: it asks no other host, and shows what the sources say.

    python docs/check_site.py

Nothing that a page loads may come from elsewhere, so that reading it tells nobody. Each page must have the lists,
tables and code blocks that CommonMark finds in its source, since the site's own Markdown is another dialect.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

from elsewhere import ELSEWHERE
from markdown_it import MarkdownIt

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / "build" / "site-html"
LOADED = {
    "script": "src",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "object": "data",
    "use": "href",
    "link": "href",
}
"""Elements by which a page loads something at once, and the attribute that says from where."""
COUNTED = ("ul", "ol", "li", "table", "tr", "pre", "h1", "h2", "h3", "blockquote")
SOURCES = {page.removesuffix(".md"): path for path, page in ELSEWHERE.items()}


class Elements(HTMLParser):
    """What a page loads, and how many elements of each kind its article has."""

    def __init__(self, html: str, *, whole: bool = False) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.count: Counter[str] = Counter()
        self._within = whole
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag == "article":
            self._within = True
        if self._within and tag in COUNTED:
            self.count[tag] += 1
        given = dict(attributes)
        if tag in LOADED and given.get("rel") not in ("canonical", "prev", "next", "alternate"):
            self.loaded.append(given.get(LOADED[tag]) or "")

    def handle_endtag(self, tag: str) -> None:
        if tag == "article":
            self._within = False


def source_of(page: Path) -> Path | None:
    """The Markdown that a page was made from."""
    name = page.relative_to(SITE).with_suffix("").as_posix()
    if name in SOURCES:
        return ROOT / SOURCES[name]
    found = [ROOT / "docs" / f"{name}.md", ROOT / "docs" / f"{name.removesuffix('index')}README.md"]
    return next((path for path in found if path.is_file()), None)


def faults(page: Path) -> Iterator[str]:
    """One sentence for each fault of a page."""
    shown = Elements(page.read_text())
    for address in shown.loaded:
        if re.match(r"([a-z]+:)?//", address):
            yield f"loads {address}"
    if source := source_of(page):
        meant = Elements(MarkdownIt("commonmark").enable("table").render(source.read_text()), whole=True)
        for tag in COUNTED:
            if shown.count[tag] != meant.count[tag]:
                yield f"has {shown.count[tag]} <{tag}>, {source.relative_to(ROOT)} means {meant.count[tag]}"
    elif page.name != "404.html":
        yield "comes from no source"


def main() -> None:
    pages = sorted(SITE.rglob("*.html"))
    found = [f"{page.relative_to(ROOT)} {fault}" for page in pages for fault in faults(page)]
    for style in SITE.rglob("*.css"):
        loaded = re.findall(r"url\([\"']?(https?:[^)]+)", style.read_text())
        found += [f"{style.relative_to(ROOT)} loads {address}" for address in loaded]
    if not pages or found:
        sys.exit("\n".join(found) or "There is no site; run: make site")


if __name__ == "__main__":
    main()
