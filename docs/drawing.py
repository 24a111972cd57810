"""Diagrams as SVG: boxes, lines and words at the places one gives; the same input makes the same text.

A drawing brings its own light ground, since an image in a page can't know whether that is light or dark.
"""

from __future__ import annotations

from html import escape

from markdown import BANNER

Place = tuple[int, int, int, int]
"""Of a box: its left and top edge, its width and height."""
GROUND, EDGE, INK, QUIET, ACCENT = "#f7f8fb", "#c9cfdb", "#1d2433", "#5a6478", "#3f51b5"
FILLS = {"plain": "#ffffff", "process": "#eef0fb", "part": "#ffffff", "state": "#fff4dc", "spine": "#e3f2e6"}
STYLE = (
    "text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;font-size:13px;fill:"
    f"{INK}}}.head{{font-weight:600}}.quiet{{fill:{QUIET};font-size:12px}}.hop{{fill:{ACCENT};font-weight:600}}"
    f".line{{stroke:{QUIET};stroke-width:1.4;fill:none}}.accent{{stroke:{ACCENT};stroke-width:2;fill:none}}"
)
LINE_HEIGHT = 17


class Drawing:
    """A canvas of so many pixels; what is drawn later lies above."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self._size = width, height
        self._title = title
        self._parts: list[str] = []

    def box(self, place: Place, *words: str, fill: str = "plain") -> None:
        """A box with a heading and lines below it, from its top."""
        x, y, width, height = place
        self._parts.append(
            f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="7" fill="{FILLS[fill]}" stroke="{EDGE}"/>'
        )
        for number, line in enumerate(words):
            kind = "head" if number == 0 else "quiet"
            self.words(x + 12, y + 22 + number * LINE_HEIGHT, line, kind)

    def words(self, x: int, y: int, line: str, kind: str = "", anchor: str = "start") -> None:
        shown = f' class="{kind}"' if kind else ""
        self._parts.append(f'<text x="{x}" y="{y}" text-anchor="{anchor}"{shown}>{escape(line)}</text>')

    def arrow(self, *points: tuple[int, int], kind: str = "line", both: bool = False, dashed: bool = False) -> None:
        """A line through these points, with a head at its end."""
        path = " ".join(f"{x},{y}" for x, y in points)
        start = ' marker-start="url(#head)"' if both else ""
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        self._parts.append(f'<polyline class="{kind}" points="{path}" marker-end="url(#head)"{start}{dash}/>')

    def rule(self, x: int, top: int, bottom: int) -> None:
        """A dotted line down, as the life of somebody in a sequence."""
        self._parts.append(
            f'<line x1="{x}" y1="{top}" x2="{x}" y2="{bottom}" stroke="{QUIET}" stroke-dasharray="2 4"/>'
        )

    def svg(self) -> str:
        width, height = self._size
        return "\n".join(
            [
                BANNER,
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
                f"<title>{escape(self._title)}</title>",
                f"<style>{STYLE}</style>",
                '<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7"'
                f' orient="auto-start-reverse"><path d="M0 0 10 5 0 10z" fill="{QUIET}"/></marker></defs>',
                f'<rect width="{width}" height="{height}" rx="10" fill="{GROUND}" stroke="{EDGE}"/>',
                *self._parts,
                "</svg>",
                "",
            ]
        )
