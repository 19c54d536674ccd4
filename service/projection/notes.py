"""The note of a study in the dashboard, in Markdown; notes of people are left as they are.

The dashboard counts the version of a note up whenever somebody saves it.  So a version other than
the one in our mark (`marks`) says that a person has written the note, and from then on it is
theirs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, delete, select

from ridgeline.search.comparing import Interval
from ridgeline.search.means import INTERVAL
from ridgeline.search.spec import StudySpec
from ridgeline.service.certainty import Sure, selection_effect, sure_of
from ridgeline.service.lifecycle import OPEN_STUDY
from ridgeline.service.projection.marks import Mark, mark_of
from ridgeline.service.projection.optuna_tables import STUDY_SYSTEM_ATTRS
from ridgeline.service.spec_in_words import facts, purpose, searched
from ridgeline.service.store.bulk import insert_rows
from ridgeline.service.store.runs import Runs
from ridgeline.service.store.tables import trials
from ridgeline.service.texts import printable
from ridgeline.service.winners import Winner

# Names and size that optuna-dashboard 0.21 reads (_note.py).
NOTE_VERSION = "dashboard:note_ver"
NOTE_CHUNK = "dashboard:note_str:"
CHUNK_CHARACTERS = 2_045

_OF_A_TRIAL = re.compile(r"dashboard:(\d+):(note_ver|note_str:\d+)")
_MARKUP = re.compile(r"([\\`*_{}\[\]<>()#+!|~$&])")


@dataclass(frozen=True)
class ArmsTable:
    """What the note of a study says of the comparison that it is a part of.

    Attributes:
        lead: the comparison and its state.
        columns: of the table of arms.
        rows: an arm each.
        findings: what the data support, in sentences.
    """

    lead: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    findings: Sequence[str]


def note_attributes(
    connection: Connection,
    study: Row[Any],
    spec: StudySpec,
    best: Winner | None,
    mark: Mark,
    arms: ArmsTable | None,
) -> dict[str, Any]:
    """The attributes that readers make the note of."""
    note = "\n".join(_note(connection, study, spec, best, mark, arms))
    return {NOTE_VERSION: mark.version, **chunks(NOTE_CHUNK, note)}


def chunks(prefix: str, text: str) -> dict[str, str]:
    """A long text in attributes, as the dashboard divides it."""
    starts = range(0, len(text), CHUNK_CHARACTERS)
    return {f"{prefix}{n}": text[at : at + CHUNK_CHARACTERS] for n, at in enumerate(starts)}


def is_of_the_study(key: str) -> bool:
    """Whether a system attribute belongs to the note of the study itself."""
    return key == NOTE_VERSION or key.startswith(NOTE_CHUNK)


def is_of_a_trial(key: str) -> bool:
    """Whether it belongs to the note of a trial, which we write none of."""
    return _OF_A_TRIAL.fullmatch(key) is not None


def is_personal(attributes: Mapping[str, str], mark: Mark | None, spec: StudySpec) -> bool:
    """Whether a person has written the note of a study.

    Args:
        attributes: of the copy, the values as they are stored.
        mark: the copy's; None where an earlier version of this program has described it, which
            wrote the same first line.
    """
    version = attributes.get(NOTE_VERSION)
    if version is None:
        return False
    if mark is not None:
        return version != str(mark.version)
    first = json.dumps(f"{purpose(spec, _code)}\n")[:-1]
    return not attributes.get(f"{NOTE_CHUNK}0", first).startswith(first)


# ---- notes of people where a copy is made anew


@dataclass(frozen=True)
class PersonalNotes:
    """What people have written in the dashboard, of a copy that is to be made anew.

    Attributes:
        of_study: the attributes of the study's note, as they are stored; none: it is ours.
        of_trials: (number of the trial, rest of the key, value).
    """

    of_study: Mapping[str, str]
    of_trials: Collection[tuple[int, str, str]]


def keep_personal(
    connection: Connection, study: Row[Any], spec: StudySpec, mark: Mark | None
) -> PersonalNotes:
    """Read them before the copy is deleted."""
    of_copy = STUDY_SYSTEM_ATTRS.c.study_id == study.copy_id
    query = select(STUDY_SYSTEM_ATTRS.c.key, STUDY_SYSTEM_ATTRS.c.value_json).where(of_copy)
    found: dict[str, str] = {row.key: row.value_json for row in connection.execute(query)}
    of_study = {key: value for key, value in found.items() if is_of_the_study(key)}
    parts = {key: match for key in found if (match := _OF_A_TRIAL.fullmatch(key))}
    if not parts:
        numbers = {}
    else:
        ids = trials.c.optuna_trial_id
        query = select(ids, trials.c.number).where(trials.c.study_id == study.id)
        numbers = {row[0]: row[1] for row in connection.execute(query)}
    return PersonalNotes(
        of_study if is_personal(found, mark, spec) else {},
        [
            (numbers[int(match[1])], match[2], found[key])
            for key, match in parts.items()
            if int(match[1]) in numbers
        ],
    )


def restore_personal(connection: Connection, study: Row[Any], notes: PersonalNotes) -> None:
    """Write them into the copy that was made anew, whose trials have other ids."""
    rows, copy_id, mark = dict(notes.of_study), study.copy_id, mark_of(study)
    if rows:
        delete_note(connection, copy_id)
        assert mark is not None, "the copy was described when it was made"
        if rows[NOTE_VERSION] == str(mark.version):
            rows[NOTE_VERSION] = str(mark.version + 1)
    if notes.of_trials:
        ids = trials.c.optuna_trial_id
        query = select(trials.c.number, ids).where(trials.c.study_id == study.id)
        copy_ids = {row[0]: row[1] for row in connection.execute(query)}
        rows |= {
            f"dashboard:{copy_ids[number]}:{rest}": value for number, rest, value in notes.of_trials
        }
    insert_rows(
        connection,
        STUDY_SYSTEM_ATTRS,
        [{"study_id": copy_id, "key": key, "value_json": value} for key, value in rows.items()],
    )


def delete_note(connection: Connection, copy_id: int) -> None:
    """Delete the note of a study: chunks of a longer one would be read as the end of the next."""
    key = STUDY_SYSTEM_ATTRS.c.key
    connection.execute(
        delete(STUDY_SYSTEM_ATTRS).where(
            STUDY_SYSTEM_ATTRS.c.study_id == copy_id,
            (key == NOTE_VERSION) | key.startswith(NOTE_CHUNK, autoescape=True),
        )
    )


# ---- the text


def _note(
    connection: Connection,
    study: Row[Any],
    spec: StudySpec,
    best: Winner | None,
    mark: Mark,
    arms: ArmsTable | None,
) -> Iterator[str]:
    """How the study stands and what it was asked, in Markdown, line by line."""
    yield purpose(spec, _code)
    yield ""
    yield f"* state: {study.state}{f': {_code(study.reason)}' if study.reason else ''}"
    yield f"* progress: {_progress(study, spec, mark)}"
    if best is not None:
        config = ", ".join(
            f"{name} {json.dumps(value)}" for name, value in best.trial.config.items()
        )
        value, fresh = "", ""  # of rows that were trained on where validation rows train too
        if not spec.trains_on_validation:
            sure = sure_of(spec, best, Runs(connection))
            seeds = f", the mean over {best.num_seeds} seeds" if best.num_seeds > 1 else ""
            value = f" with {best.value:.6g}{seeds}{_between(sure.interval)}"
            fresh = _fresh(spec, best, sure)
        yield f"* best: trial {best.trial.number}{value}: {_code(config)}"
        if fresh:
            yield fresh
    yield ""
    if arms is not None:
        yield from _arms(arms)
    yield "| parameter | searched |"
    yield "| --- | --- |"
    for name, parameter in spec.space.items():
        yield f"| {name} | {searched(parameter, _code_in_table)} |"
    yield ""
    for name, words in facts(spec).items():
        yield f"* {name}: {_plain(words)}"
    yield ""
    yield "```json"
    yield json.dumps(spec.model_dump(mode="json"), indent=2, ensure_ascii=False)
    yield "```"


def _progress(study: Row[Any], spec: StudySpec, mark: Mark) -> str:
    by_state = {"complete": mark.complete, "pruned": mark.pruned, "failed": mark.failed}
    told = ", ".join(f"{number:,} {state}" for state, number in by_state.items() if number)
    ended = f"{sum(by_state.values()):,} of {spec.num_trials:,} trials have ended"
    known = f"{ended} ({told})" if told else ended
    if study.state not in OPEN_STUDY:
        return known
    return f"{known}; counted at each tenth, the attribute `ended_trials` says how many by now"


def _fresh(spec: StudySpec, best: Winner, sure: Sure) -> str:
    """What fresh seeds say of the winner; empty before they do."""
    effect = selection_effect(spec, best)
    if effect is None or best.confirmation is None:
        return ""
    return (
        f"* with {spec.fresh_seeds} fresh seeds: {best.confirmation.value:.6g}"
        f"{_between(sure.fresh_interval)}; its value in the search is better by {effect:.4g}"
    )


def _between(interval: Interval | None) -> str:
    if interval is None:
        return ""
    return f" ({INTERVAL} {interval.low:.6g} to {interval.high:.6g})"


def _arms(arms: ArmsTable) -> Iterator[str]:
    yield _plain(arms.lead)
    yield ""
    yield _row(arms.columns)
    yield _row(["---"] * len(arms.columns), quote=str)
    for cells in arms.rows:
        yield _row(cells)
    yield ""
    for sentence in arms.findings:
        yield f"* {_plain(sentence)}"
    yield ""
    yield "This study searches:"  # two tables would be drawn as one
    yield ""


def _row(cells: Sequence[str], quote: Any = None) -> str:
    return f"| {' | '.join(map(quote or _plain, cells))} |"


def _plain(text: str) -> str:
    """A text on one line, without what Markdown would make of it."""
    return _MARKUP.sub(r"\\\1", printable(text))


def _code(text: str) -> str:
    """A text as code in Markdown, which is on one line and has no markup in it."""
    return "`" + printable(text).replace("`", "'") + "`"


def _code_in_table(text: str) -> str:
    """The same in a cell, which a bar would end; elsewhere the backslash would be seen."""
    return _code(text).replace("|", r"\|")
