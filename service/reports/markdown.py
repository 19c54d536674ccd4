"""A report as Markdown, the dialect with tables: what figures show is told in words and tables."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

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

_INLINE = re.compile(r"([\\`*\[\]<>|~&]|(?<![^\W_])_|_(?![^\W_]))")
"""Characters that begin markup anywhere; an underscore within a word does not."""

_AT_START = re.compile(r"^(\d*)([#+=-]|[.)](?=\s|$))")
"""Those that begin a list, a heading or the like at the start of a paragraph."""


def as_markdown(report: Report) -> str:
    lines = [f"# {_plain(report.title)}", "", _plain(f"{report.kind}. {report.lead}"), ""]
    for section in report.sections:
        lines += [f"## {_plain(section.title)}", ""]
        for block in section.blocks:
            lines += [*_block(block), ""]
    return "\n".join(lines)


def _block(block: Block) -> Iterator[str]:
    match block:
        case Text():
            yield _paragraph(block.text)
        case Points():
            yield from (f"* {_paragraph(words)}" for words in block.texts)
        case Facts():
            yield from (f"* {_plain(name)}: {_plain(words)}" for name, words in block.rows)
        case Table():
            yield from _table(block)
        case Figure():
            yield f"### {_plain(block.title)}"
            yield ""
            yield _paragraph(" ".join(filter(None, (block.description, block.caption))))
            if block.table is not None:
                yield ""
                yield from _table(block.table)
        case Code():
            yield f"{_plain(block.label)}:"
            yield ""
            within = re.findall(r"`{3,}", block.text)
            fence = max(["```", *(f"{ticks}`" for ticks in within)], key=len)
            yield from (fence, block.text.rstrip("\n"), fence)


def _table(table: Table) -> Iterator[str]:
    marks = ["---:" if i in table.numbers else "---" for i in range(len(table.columns))]
    yield f"{_plain(table.caption)}:"
    yield ""
    yield _row([_plain(name) for name in table.columns])
    yield _row(marks)
    for cells in table.rows:
        yield _row([_plain(words) for words in cells])


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _plain(words: str) -> str:
    return _INLINE.sub(r"\\\1", words)


def _paragraph(words: str) -> str:
    return _AT_START.sub(r"\1\\\2", _plain(words))
