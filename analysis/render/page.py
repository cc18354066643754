"""The HTML page: one file with its styles, scripts, pictures and data inside, so that it opens without network."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import vl_convert

from analysis.render.pictures import Pictures
from analysis.render.style import Figure
from analysis.render.tile import Tile

STYLE = """
:root { --ink: #1d1d1f; --muted: #5f6368; --rule: #d9dce0; --accent: #0b5cad; }
* { box-sizing: border-box; }
body { margin: 0; background: #fff; color: var(--ink);
  font: 16px/1.55 Georgia, "Times New Roman", "Liberation Serif", serif; }
main { max-width: 1080px; margin: 0 auto; padding: 48px 32px 96px; }
header { border-bottom: 2px solid var(--ink); margin-bottom: 28px; padding-bottom: 14px; }
h1 { font-size: 30px; line-height: 1.2; margin: 0 0 6px; }
h2 { font-size: 21px; margin: 46px 0 12px; padding-bottom: 4px; border-bottom: 1px solid var(--rule); }
h3 { font-size: 16px; margin: 26px 0 8px; }
p, ul, ol { max-width: 46em; margin: 0 0 12px; }
li { margin-bottom: 5px; }
.byline, .note, figcaption, nav { font: 13px/1.5 "Helvetica Neue", Helvetica, Arial, "Liberation Sans", sans-serif;
  color: var(--muted); }
nav a { display: inline-block; color: var(--accent); margin-right: 14px; text-decoration: none; white-space: nowrap; }
.answer { border-left: 4px solid #D55E00; padding: 10px 18px; background: #fdf6f1; font-size: 18px; max-width: none;
  margin: 0 0 18px; }
.gap { border-left: 4px solid #8a6d00; padding: 8px 18px; background: #fcf8e8; max-width: none; }
figure { margin: 22px 0 34px; }
figcaption { max-width: 72em; margin-top: 8px; }
figcaption b { color: var(--ink); }
.chart { overflow-x: auto; min-height: 60px; }
.chart details summary { opacity: .5; }
.table { overflow-x: auto; margin: 18px 0 26px; }
table { border-collapse: collapse; border-top: 2px solid var(--ink); border-bottom: 2px solid var(--ink);
  font: 13px/1.4 "Helvetica Neue", Helvetica, Arial, "Liberation Sans", sans-serif; font-variant-numeric: tabular-nums;
  } caption { text-align: left; font-weight: 600; padding-bottom: 6px; }
th { text-align: left; vertical-align: bottom; border-bottom: 1px solid var(--ink); padding: 5px 10px 5px 0;
  font-weight: 600; max-width: 130px; }
td { padding: 3px 12px 3px 0; vertical-align: top; max-width: 26em; overflow-wrap: break-word; }
td:only-child { max-width: 60em; }
td.number { white-space: nowrap; }
dl { display: grid; grid-template-columns: minmax(9em, max-content) 1fr; gap: 4px 22px; max-width: 60em;
  margin: 0 0 16px;
  font: 14px/1.5 "Helvetica Neue", Helvetica, Arial, "Liberation Sans", sans-serif; }
dt { font-weight: 600; }
dd { margin: 0; overflow-wrap: anywhere; }
.number { text-align: right; }
tbody tr:hover { background: #f5f7f9; }
.note { margin-top: 6px; max-width: 72em; }
.samples { display: grid; gap: 6px; align-items: start; }
.samples div { font: 12px/1.3 "Helvetica Neue", Helvetica, Arial, "Liberation Sans", sans-serif; color: var(--muted);
  align-self: end; overflow-wrap: anywhere; }
.samples img { width: 100%; aspect-ratio: 1; display: block; }
pre { background: #f5f6f7; padding: 12px 14px; white-space: pre-wrap; overflow-wrap: anywhere;
  font: 12.5px/1.5 "DejaVu Sans Mono", Menlo, monospace;
} details > summary { cursor: pointer; color: var(--accent); font: 14px "Helvetica Neue", Helvetica, Arial, sans-serif;
  margin: 8px 0; }
@media print { main { max-width: none; padding: 0; } nav, details:not([open]) { display: none; }
  figure, .table { break-inside: avoid; } body { font-size: 11pt; } }
"""

_EMBED = """
for (const holder of document.querySelectorAll("script[data-chart]")) {
  vegaEmbed(document.getElementById(holder.dataset.chart), JSON.parse(holder.textContent), {
    mode: "vega-lite", renderer: "svg",
    actions: {export: true, source: false, compiled: false, editor: false},
  }).catch((error) => { document.getElementById(holder.dataset.chart).textContent = "Figure not drawn: " + error; });
}
"""


def text(content: str) -> str:
    return html.escape(content)


def heading(content: str) -> str:
    return f"<h3>{text(content)}</h3>"


def paragraph(content: str, kind: str = "") -> str:
    """One paragraph of plain text."""
    return f'<p class="{kind}">{text(content)}</p>' if kind else f"<p>{text(content)}</p>"


def bullets(items: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{text(item)}</li>" for item in items) + "</ul>" if items else ""


def pairs(rows: Sequence[tuple[str, str]]) -> str:
    """A list of names and values."""
    return "<dl>" + "".join(f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in rows) + "</dl>"


def preformatted(content: str) -> str:
    return f"<pre>{text(content)}</pre>"


def folded(summary: str, content: str) -> str:
    return f"<details><summary>{text(summary)}</summary>{content}</details>"


def reproduction(commands: Sequence[str], provenance: Mapping[str, str]) -> str:
    """How to get the same again: the commands, and the code and environment they ran with."""
    typed = preformatted("\n".join(commands)) if commands else ""
    return typed + (pairs(list(provenance.items())) if provenance else "")


def figure(number: int, drawn: Figure, svg: str) -> str:
    """An interactive chart; where scripts do not run, its SVG as a picture."""
    picture = base64.b64encode(svg.encode()).decode()
    specification = json.dumps(drawn.specification, allow_nan=False).replace("<", "\\u003c")
    return (
        f'<figure id="figure-{drawn.name}"><div class="chart" id="chart-{drawn.name}"></div>'
        f'<noscript><img alt="{text(drawn.title)}" src="data:image/svg+xml;base64,{picture}"></noscript>'
        f'<script type="application/json" data-chart="chart-{drawn.name}">{specification}</script>'
        f"<figcaption><b>Figure {number}. {text(drawn.title)}.</b> {text(drawn.caption)}</figcaption></figure>"
    )


def picture_figure(number: int, pictures: Pictures) -> str:
    """A grid of pictures with its headings: those of the first row, and above a row of others its own."""
    rows = pictures.rows
    widest = max((tiles for _, tiles in rows), key=len)
    heads = "".join(f"<div>{text(tile.title)}</div>" for tile in widest)
    cells = "".join(
        "".join(_tile(name, tile) for tile in tiles) + "<div></div>" * (len(widest) - len(tiles))
        for name, tiles in rows
    )
    style = f"grid-template-columns: repeat({len(widest)}, minmax(0, 150px))"
    return (
        f'<figure id="figure-{pictures.name}"><div class="samples" style="{style}">{heads}{cells}</div>'
        f"<figcaption><b>Figure {number}. {text(pictures.title)}.</b> {text(pictures.caption)}</figcaption></figure>"
    )


def _tile(name: str, tile: Tile) -> str:
    label = text(f"{name}: {tile.title}")
    return f'<img alt="{label}" title="{label}" src="{tile.data_uri()}">'


def document(title: str, byline: str, sections: Sequence[tuple[str, str]]) -> str:
    """The whole page: header, contents, sections (title, HTML), and the drawing library once."""
    links = "".join(f'<a href="#section-{i}">{text(name)}</a>' for i, (name, _) in enumerate(sections, 1))
    body = "\n".join(
        f'<section id="section-{i}"><h2>{text(name)}</h2>\n{content}</section>'
        for i, (name, content) in enumerate(sections, 1)
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{text(title)}</title><style>{STYLE}</style></head>\n<body><main>"
        f'<header><h1>{text(title)}</h1><p class="byline">{text(byline)}</p><nav>{links}</nav></header>\n'
        f"{body}\n</main>\n<script>{_library()}</script>\n"
        f"<script>{_EMBED}</script>\n</body></html>\n"
    )


@cache
def _library() -> str:
    """Vega, Vega-Lite and Vega-Embed as one classic script."""
    library = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    # Escaping would break regular expressions in the code, so make sure that nothing needs it.
    assert "</script" not in library
    assert "<!--" not in library
    return library


def as_json(content: Any) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False, default=str)
