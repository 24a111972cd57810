"""What the documentation site needs beside MkDocs: pages from outside docs/, folders in the nav, links to other files.

MkDocs calls the functions named `on_…` (mkdocs.yml, `hooks`). Pages are written for whoever reads them in the
repository, so that links there name files as they lie there; here they become links of the site. A link to a file that
is no page becomes a URL below `extra.source`, or, where that isn't given, the file's path as text. One that names no
file at all is a warning, which the strict build refuses.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from elsewhere import ELSEWHERE
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import get_plugin_logger
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
DOCS = "docs"
STANDS_FOR = {"README.md": "index.md"}
"""What is no page, and the page that says the same here."""

log = get_plugin_logger("docs")

CODE_OR_LINK = re.compile(
    r"(?P<code>^(?P<fence>```+|~~~+).*?^(?P=fence)\s*?$|(?P<ticks>`+)(?!`).+?(?<!`)(?P=ticks)(?!`))"
    r"|(?<!!)\[(?P<text>(?:`[^`\n]*`|[^\[\]`])*)\]\((?P<target>[^)\s]+)\)",
    re.MULTILINE | re.DOTALL,
)
"""Code, in which nothing is a link; or a link within a page, its text and its target."""
BANNER = re.compile(r"\A<!--.*?-->\n")
LIST_ITEM = re.compile(r"^(?:[-*] |\d+\. )")
LIST_START = re.compile(r"^(?:[-*] |1\. )")
"""What interrupts a paragraph (CommonMark 0.31 §5.2: no number but 1)."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Puts the pages of a folder where the nav names the folder."""
    config.nav = [expanded(each) for each in config.nav or []]
    return config


def expanded(entry: Any) -> Any:
    """An entry of the nav; of a folder (`adr/`) its README and its other pages, by name."""
    if isinstance(entry, dict):
        return {title: expanded(below) for title, below in entry.items()}
    if isinstance(entry, list):
        return [expanded(each) for each in entry]
    if not entry.endswith("/"):
        return entry
    names = sorted(path.name for path in (ROOT / DOCS / entry).glob("*.md"))
    return [entry + name for name in sorted(names, key=lambda name: (name != "README.md", name))]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the documents that lie elsewhere."""
    for path, page in ELSEWHERE.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """A page's text, with links as the site has them, and lists as CommonMark reads them."""
    here = repository_path(page.file.src_uri)
    markdown = BANNER.sub("", markdown)  # before a title MkDocs wouldn't see that it is one

    def link(found: re.Match[str]) -> str:
        if found["code"] or re.match(r"#|[a-z]+:", found["target"]):
            return found[0]
        return linked(found["text"], found["target"], here, page.file.src_uri, config.extra["source"])

    return with_lists(CODE_OR_LINK.sub(link, markdown))


def repository_path(page: str) -> str:
    """Where a page's source lies in the repository."""
    return next((path for path, name in ELSEWHERE.items() if name == page), f"{DOCS}/{page}")


def linked(text: str, target: str, here: str, page: str, source: str) -> str:
    """A link of the document `here`, as the page has it."""
    path, _, anchor = target.partition("#")
    named = posixpath.normpath(posixpath.join(posixpath.dirname(here), path))
    anchor = anchor and f"#{anchor}"
    if not (ROOT / named).exists():
        log.warning(f"{here} links to {target}, which isn't in the repository")
    there = ELSEWHERE.get(named) or STANDS_FOR.get(named)
    if there is None and named.startswith(f"{DOCS}/"):
        there = named.removeprefix(f"{DOCS}/")
    if there and (there.endswith((".md", ".svg", ".png"))):
        return f"[{text}]({posixpath.relpath(there, posixpath.dirname(page) or '.')}{anchor})"
    if source:
        return f"[{text}]({source.rstrip('/')}/{named}{anchor})"
    return text if named in text else f"{text} (`{named}`)"


def with_lists(markdown: str) -> str:
    """Python-Markdown wants an empty line before a list; CommonMark, by which the repository is read, doesn't."""
    made: list[str] = []
    fenced = False
    for line in markdown.splitlines():
        if line.startswith(("```", "~~~")):
            fenced = not fenced
        if LIST_START.match(line) and not fenced and in_paragraph(made):
            made.append("")
        made.append(line)
    return "\n".join(made) + "\n"


def in_paragraph(lines: list[str]) -> bool:
    """Whether these lines end in a paragraph, and not in a list's item."""
    for line in reversed(lines):
        if not line.strip() or LIST_ITEM.match(line):
            return line.strip() == "" and line is not lines[-1]
    return bool(lines)
