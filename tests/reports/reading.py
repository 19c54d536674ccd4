"""An HTML file read as browsers read it, and what must hold of every report."""

from __future__ import annotations

import re
from itertools import pairwise
from xml.etree.ElementTree import Element

import html5lib

SVG = "{http://www.w3.org/2000/svg}"
HTML = "{http://www.w3.org/1999/xhtml}"


def parse(text: str) -> Element:
    """The document's root.

    Raises:
        html5lib.html5parser.ParseError: it is not what HTML allows.
    """
    root: Element = html5lib.HTMLParser(strict=True).parse(text)
    return root


def words(element: Element) -> str:
    """All text within, the words apart by single spaces."""
    parts = (" ".join(part.itertext()) for part in element if part.tag != f"{HTML}head")
    return " ".join(" ".join((element.text or "", *parts)).split())


def check(text: str) -> Element:
    """A report that is valid, needs nothing from elsewhere, and can be read by everybody."""
    root = parse(text)
    assert root.get("lang") == "en"
    assert words(one(root, "title"))
    everything = list(root.iter())
    names = {element.tag.rpartition("}")[2] for element in everything}
    assert names.isdisjoint({"script", "img", "link", "iframe", "object", "form"})
    for element in everything:
        for attribute, value in element.attrib.items():
            assert not attribute.startswith("on")
            assert attribute != "href" or value.startswith("#")
    assert "url(" not in words(one(root, "style"))
    ids = [element.get("id") for element in everything if element.get("id") is not None]
    assert len(ids) == len(set(ids))
    for element in everything:
        for attribute in ("aria-labelledby", "aria-describedby"):
            assert element.get(attribute) is None or element.get(attribute) in ids
        if element.get("href") is not None:
            assert element.attrib["href"][1:] in ids
    _check_headings(everything)
    for tag in ("header", "main", "nav", "h1"):
        one(root, tag)
    for picture in root.iter(f"{SVG}svg"):
        assert picture.get("role") == "img"
        assert words(one(picture, "title", SVG))
        assert len(words(one(picture, "desc", SVG))) > 10
    for table in root.iter(f"{HTML}table"):
        assert words(one(table, "caption"))
        assert all(head.get("scope") in ("col", "row") for head in table.iter(f"{HTML}th"))
    return root


def one(parent: Element, tag: str, namespace: str = HTML) -> Element:
    (found,) = parent.iter(f"{namespace}{tag}")
    return found


def section(root: Element, key: str) -> str:
    """The words of a section."""
    (found,) = (part for part in root.iter(f"{HTML}section") if part.get("aria-labelledby") == key)
    return words(found)


def _check_headings(everything: list[Element]) -> None:
    """They begin with the only h1, and none is more than one level below the one before."""
    levels = [
        int(element.tag[-1]) for element in everything if re.fullmatch(r".*}h[1-6]", element.tag)
    ]
    assert levels[0] == 1
    assert levels.count(1) == 1
    for before, after in pairwise(levels):
        assert after <= before + 1
