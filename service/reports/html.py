"""A report as one HTML file, which needs nothing beside itself and runs no script.

It is built as a tree and written by the standard library, so no text can become markup.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from importlib import resources
from xml.etree.ElementTree import Element, SubElement, tostring

from ridgeline.service.reports.document import (
    Block,
    Code,
    Facts,
    Figure,
    Points,
    Report,
    Table,
    Text,
)

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""What the page may do, by its own word too, since it is passed on as a file: be styled."""

_STYLE = resources.files("ridgeline.service.reports").joinpath("report.css")


def as_html(report: Report) -> str:
    """The file's text, from `<!doctype html>` on."""
    html = Element("html", lang="en")
    _head(html, report)
    body = SubElement(html, "body")
    header = SubElement(body, "header")
    _add(header, "p", f"Ridgeline: {report.kind.lower()}", "kind")
    _add(header, "h1", report.title)
    _add(header, "p", report.lead)
    nav = SubElement(body, "nav", {"aria-label": "Contents"})
    contents = SubElement(nav, "ul", role="list")
    main = SubElement(body, "main")
    names = (f"part-{number}" for number in range(1, 1_000_000))
    for section in report.sections:
        link = SubElement(SubElement(contents, "li"), "a", href=f"#{section.key}")
        link.text = section.title
        part = SubElement(main, "section", {"aria-labelledby": section.key})
        SubElement(part, "h2", id=section.key).text = section.title
        for block in section.blocks:
            _block(part, block, names)
    return f"<!doctype html>\n{tostring(html, encoding='unicode', method='html')}\n"


def _head(html: Element, report: Report) -> None:
    head = SubElement(html, "head")
    SubElement(head, "meta", charset="utf-8")
    SubElement(head, "meta", {"http-equiv": "Content-Security-Policy", "content": POLICY})
    for name, content in (
        ("viewport", "width=device-width, initial-scale=1"),
        ("color-scheme", "light dark"),
    ):
        SubElement(head, "meta", name=name, content=content)
    SubElement(head, "title").text = f"{report.title}: {report.kind.lower()}"
    SubElement(head, "style").text = _STYLE.read_text(encoding="utf-8")


def _block(parent: Element, block: Block, names: Iterator[str]) -> None:
    match block:
        case Text():
            _add(parent, "p", block.text)
        case Points():
            points = SubElement(parent, "ul")
            for words in block.texts:
                _add(points, "li", words)
        case Facts():
            facts = SubElement(parent, "dl")
            for name, words in block.rows:
                pair = SubElement(facts, "div")
                _add(pair, "dt", name)
                _add(pair, "dd", words)
        case Table():
            _table(parent, block, next(names))
        case Figure():
            _figure(parent, block, names)
        case Code():
            label = next(names)
            SubElement(parent, "p", {"id": label, "class": "label"}).text = block.label
            scroll = _scrolling(parent, label)
            SubElement(SubElement(scroll, "pre"), "code").text = block.text


def _table(parent: Element, table: Table, caption: str) -> None:
    scroll = _scrolling(parent, caption)
    drawn = SubElement(scroll, "table")
    SubElement(drawn, "caption", id=caption).text = table.caption
    head = SubElement(SubElement(drawn, "thead"), "tr")
    looks = [
        {"class": "number"} if index in table.numbers else {} for index in range(len(table.columns))
    ]
    for words, look in zip(table.columns, looks, strict=True):
        SubElement(head, "th", {"scope": "col", **look}).text = words
    body = SubElement(drawn, "tbody")
    for cells in table.rows:
        row = SubElement(body, "tr")
        first, *others = zip(cells, looks, strict=True)
        SubElement(row, "th", {"scope": "row", **first[1]}).text = first[0]
        for words, look in others:
            SubElement(row, "td", look).text = words


def _figure(parent: Element, figure: Figure, names: Iterator[str]) -> None:
    """The picture has its name and description inside, where screen readers look for them."""
    title, description, caption = next(names), next(names), next(names)
    drawn = SubElement(parent, "figure")
    SubElement(drawn, "h3").text = figure.title
    picture = deepcopy(figure.picture)
    picture.set("role", "img")
    picture.set("aria-labelledby", title)
    picture.set("aria-describedby", description)
    named = (("title", title, figure.title), ("desc", description, figure.description))
    for index, (tag, key, words) in enumerate(named):
        inner = Element(tag, id=key)
        inner.text = words
        picture.insert(index, inner)
    drawn.append(picture)
    below = SubElement(drawn, "figcaption")
    for paragraph in filter(None, (figure.description, figure.caption)):
        _add(below, "p", paragraph)
    if figure.table is not None:
        details = SubElement(drawn, "details")
        _add(details, "summary", "The numbers")
        _table(details, figure.table, caption)


def _scrolling(parent: Element, label: str) -> Element:
    """A space that scrolls by itself where its content is wide, by the keyboard too."""
    attributes = {"class": "scroll", "role": "group", "tabindex": "0", "aria-labelledby": label}
    return SubElement(parent, "div", attributes)


def _add(parent: Element, tag: str, words: str, look: str | None = None) -> Element:
    added = SubElement(parent, tag, {} if look is None else {"class": look})
    added.text = words
    return added
