"""The report of a comparison: which arm is better by what the data support, and how to repeat."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata

from ridgeline.search.means import INTERVAL
from ridgeline.service import measures_in_words
from ridgeline.service.comparison_resources import (
    Arm,
    ArmResult,
    Comparison,
    ComparisonResult,
    PairedDifference,
)
from ridgeline.service.curves import metric_groups
from ridgeline.service.lifecycle import OPEN_STUDY, StudyState
from ridgeline.service.reports import figures
from ridgeline.service.reports.axes import number_axis, span_of, value_text
from ridgeline.service.reports.comparison_findings import ComparisonFindings
from ridgeline.service.reports.document import (
    Block,
    Code,
    Facts,
    Figure,
    Points,
    Report,
    Section,
    Table,
    Text,
)
from ridgeline.service.reports.learning import fresh_figure, fresh_span
from ridgeline.service.reports.weights import weights_figure
from ridgeline.service.reports.wording import (
    as_yaml,
    count,
    duration,
    listed,
    moment,
    number,
    user_text,
)
from ridgeline.service.resources import Interval
from ridgeline.service.spec_in_words import facts, purpose, searched

_MOST_PAIRS = 30
_MOST_CURVES = 12
_GROUPS = 2
"""Metrics whose curves are shown of each arm: the objective and, beside it, the loss."""


def comparison_report(found: ComparisonFindings) -> Report:
    """The report of a comparison as it stood when `found` was read."""
    sections = (
        Section("result", "Result", list(_result(found))),
        Section("arms", "The arms", list(_arms(found))),
        Section("curves", "Learning curves with fresh seeds", list(_curves(found))),
        Section("asked", "What was asked", list(_asked(found))),
        Section("repeat", "How to repeat it", list(_repeat(found))),
    )
    return Report(
        "Report of a comparison",
        found.comparison.name,
        _lead(found),
        [section for section in sections if section.blocks],
    )


def _lead(found: ComparisonFindings) -> str:
    its = found.comparison
    why = f" ({user_text(its.reason)})" if its.reason else ""
    done = sum(arm.state is StudyState.COMPLETED for arm in its.arms)
    return (
        f"The comparison is {its.state}{why}: {count(len(its.arms), 'arm')}, {done} of them with a "
        f"result. Written on {moment(found.written_at)}."
    )


def _result(found: ComparisonFindings) -> Iterator[Block]:
    result = found.comparison.result
    if result is None:
        yet = " yet" if found.comparison.state in OPEN_STUDY else ""
        yield Text(f"No winner has been trained again{yet}, so there is nothing to compare.")
    else:
        yield from _verdicts(result)
        yield _means_table(result)
        yield from filter(None, (_means_figure(result), _forest_figure(result)))
        yield from _measures(result)
        yield from filter(None, (weights_figure(result),))
    without = [
        f"{arm.name} has no result: {user_text(arm.reason) if arm.reason else arm.state.lower()}."
        for arm in found.comparison.arms
        if arm.state is not StudyState.COMPLETED
    ]
    if without:
        yield Points(without)


def _verdicts(result: ComparisonResult) -> Iterator[Block]:
    told = [one for one in result.differences if one.verdict != "open"]
    open_ones = [one for one in result.differences if one.verdict == "open"]
    if not result.differences:
        yield Text("There is one arm with a result, and none to compare it with.")
    elif not told:
        yield Text("By these data no arm is better than another.")
    shown = [*told, *open_ones][:_MOST_PAIRS]
    if shown:
        yield Points([user_text(one.sentence) for one in shown])
    if len(shown) < len(result.differences):
        yield Text(f"{len(result.differences) - len(shown)} more pairs are in the service alone.")


def _means_table(result: ComparisonResult) -> Table:
    """With the value in the search beside that of fresh seeds, which shows what selection adds."""
    metric, test_metric = user_text(result.metric), user_text(result.test_metric)
    is_told = result.metric != result.test_metric and result.train_on == "train"
    rows = [
        (
            arm.arm,
            number(arm.in_search),
            *((_number(arm.again),) if is_told else ()),
            _number(arm.mean),
            _span(arm.interval),
            _num_scores(arm),
        )
        for arm in result.arms
    ]
    again = (f"{metric}, fresh seeds",) if is_told else ()
    columns = (
        "arm",
        f"{metric}, best of the search",
        *again,
        f"{test_metric}, fresh seeds",
        INTERVAL,
        "seeds",
    )
    rows_too = "" if result.train_on == "train" else ", on training and validation rows"
    return Table(
        f"Each arm's winner in the search, and trained again with fresh seeds{rows_too}",
        columns,
        rows,
        frozenset(range(1, len(columns))),
    )


def _means_figure(result: ComparisonResult) -> Figure | None:
    arms = [arm for arm in result.arms if arm.mean is not None]
    if not arms:
        return None
    metric = user_text(result.test_metric)
    is_same = result.metric == result.test_metric
    rows = [(arm.arm, arm.mean or 0.0, _ends(arm.interval)) for arm in arms]
    marks = {"best of the search": [arm.in_search for arm in arms]} if is_same else {}
    ends = [end for _, mean, interval in rows for end in (mean, *(interval or ()))]
    ends += [value for its in marks.values() for value in its]
    sign = 1 if result.direction == "maximize" else -1
    best = max(arms, key=lambda arm: sign * (arm.mean or 0.0))
    return Figure(
        f"{metric} by arm",
        figures.intervals(number_axis(metric, span_of((), ends)), rows, marks),
        f"The mean over fresh seeds is best for {best.arm}, {_number(best.mean)}. "
        + "; ".join(f"{arm.arm} {_number(arm.mean)} ({_span(arm.interval)})" for arm in arms)
        + ".",
        "Intervals of two arms may overlap and the arms differ all the same: see the differences, "
        "which are taken seed by seed.",
    )


def _forest_figure(result: ComparisonResult) -> Figure | None:
    """Differences of pairs; of many arms those with the best one alone."""
    pairs = [one for one in result.differences if one.value is not None]
    note = ""
    if len(pairs) > _MOST_PAIRS:
        sign = 1 if result.direction == "maximize" else -1
        best = max(result.arms, key=lambda arm: -1e308 if arm.mean is None else sign * arm.mean).arm
        note = f" Of {len(pairs)} pairs those with {best} are shown."
        pairs = [one for one in pairs if best in (one.arm, one.other)]
    if not pairs:
        return None
    rows = [(_pair(one), one.value or 0.0, _ends(one.interval)) for one in pairs]
    ends = [0.0, *(end for _, mean, interval in rows for end in (mean, *(interval or ())))]
    metric = user_text(result.test_metric)
    better = "right" if result.direction == "maximize" else "left"
    return Figure(
        f"Differences of {metric}, seed by seed",
        figures.intervals(number_axis("difference", span_of((), ends)), rows, {}, zero=True),
        "; ".join(f"{name} {mean:+.4g} ({_differs(ends)})" for name, mean, ends in rows) + ".",
        f"A difference to the {better} of the dashed line at 0 speaks for the arm that is named "
        f"first. An interval that holds 0 leaves it open.{note}",
        Table(
            f"Differences of {metric}",
            ("pair", "difference", INTERVAL, "adjusted p", "seeds", "verdict"),
            [
                (
                    _pair(one),
                    f"{one.value:+.4g}",
                    _differs(_ends(one.interval)),
                    "" if one.p_value is None else number(one.p_value),
                    str(one.num_pairs),
                    one.verdict,
                )
                for one in pairs
            ],
            frozenset(range(1, 5)),
        ),
    )


def _measures(result: ComparisonResult) -> Iterator[Block]:
    """What can be seen of the weights that the runs with fresh seeds kept."""
    names = list(dict.fromkeys(name for arm in result.arms for name in arm.measures))
    if not names:
        return
    yield Table(
        "What each way to train did to the network: means over the fresh seeds",
        ("measure", *(arm.arm for arm in result.arms)),
        [
            (
                user_text(measures_in_words.label(name)),
                *(
                    measures_in_words.value_text(name, arm.measures.get(name))
                    for arm in result.arms
                ),
            )
            for name in names
        ],
        frozenset(range(1, 1 + len(result.arms))),
    )


def _arms(found: ComparisonFindings) -> Iterator[Block]:
    its = found.comparison
    yield Table(
        "What each arm searched, and its winner",
        ("arm", "state", "trials", "winner", "its configuration"),
        [
            (
                arm.name,
                arm.state,
                str(arm.search.num_trials),
                "" if arm.winner is None else f"trial {arm.winner.number}",
                _configuration(arm),
            )
            for arm in its.arms
        ],
        frozenset({2}),
    )
    yield Table(
        "What each arm adds to the base",
        ("arm", "adds"),
        [(arm.name, _added(arm, its)) for arm in its.arms],
    )
    rows = [("posted", moment(its.created_at)), ("device time", duration(its.device_seconds))]
    if its.started_at is not None:
        end = found.written_at if its.finished_at is None else its.finished_at
        rows.insert(1, ("from start to end", duration(max(0.0, end - its.started_at))))
    yield Facts(rows)


def _curves(found: ComparisonFindings) -> Iterator[Block]:
    objective = found.comparison.arms[0].search.spec.objective.metric
    arms = {name: runs for name, runs in found.curves.items() if runs}
    names = {
        name for runs in arms.values() for run in runs for _, metrics in run for name in metrics
    }
    shown = list(arms)[:_MOST_CURVES]
    on_all = found.comparison.spec.trains_on_validation
    if arms and on_all:
        yield Text("Winners have trained on the validation rows, so no curve of these is shown.")
    for sides in metric_groups(names, objective, trains_on_validation=on_all)[:_GROUPS]:
        span = fresh_span(sides, (arms[name] for name in shown))
        if span is None:
            continue
        drawn = (fresh_figure(name, sides, arms[name], span) for name in shown)
        yield from (figure for figure in drawn if figure is not None)
    if len(shown) < len(arms):
        yield Text(f"Of {len(arms)} arms the first {len(shown)} are shown.")


def _asked(found: ComparisonFindings) -> Iterator[Block]:
    its = found.comparison
    spec = its.arms[0].search.spec
    yield Text(
        f"{purpose(spec, user_text)} Each arm is tuned by a search of its own on the same rows, "
        f"with the same budget; its winner is trained again with {its.spec.replicates} fresh "
        f"seeds, the same in all arms{_rows_of_winners(its)}."
    )
    shared = [name for name in spec.space.names if _is_shared(name, its.arms)]
    if shared:
        yield Table(
            "What all arms search",
            ("parameter", "searched"),
            [(name, user_text(searched(spec.space[name], str))) for name in shared],
        )
    yield Facts([("fresh seeds", str(its.spec.replicates)), *facts(spec).items()])


def _rows_of_winners(its: Comparison) -> str:
    if not its.spec.trains_on_validation:
        return ""
    return (
        ", on training and validation rows, for as many epochs as counted in the search; the test "
        "rows alone judge it"
    )


def _repeat(found: ComparisonFindings) -> Iterator[Block]:
    its = found.comparison
    yield Text(
        f"Save the spec below as {its.name}.yaml, give it another name in its first line, and run "
        "it."
    )
    yield Code(f"ridgeline compare {its.name}.yaml", "Command")
    spec = its.spec.model_dump(mode="json", exclude_defaults=True)
    yield Code(as_yaml(spec), f"The spec, {its.name}.yaml")
    rows = [("Ridgeline", metadata.version("ridgeline"))]
    fingerprint = its.arms[0].search.data_fingerprint
    if fingerprint is not None:
        rows.append(("fingerprint of the data", fingerprint))
    yield Facts(rows)


def _configuration(arm: Arm) -> str:
    if arm.winner is None:
        return ""
    return ", ".join(f"{name} {value_text(value)}" for name, value in arm.winner.config.items())


def _is_shared(name: str, arms: Sequence[Arm]) -> bool:
    """Whether all arms search a parameter, and over the same range."""
    first = arms[0].search.spec.space
    return name in first and all(
        name in arm.search.spec.space and arm.search.spec.space[name] == first[name] for arm in arms
    )


def _added(arm: Arm, its: Comparison) -> str:
    """The parameters that an arm adds or searches otherwise, and settings that others have not."""
    shared, own_space = its.spec.base.get("space", {}), its.spec.arms[arm.name].get("space", {})
    added = [
        f"{name} {user_text(searched(parameter, str))}"
        for name, parameter in arm.search.spec.space.items()
        if name not in shared or name in own_space
    ]
    own = _settings(arm)
    others = [_settings(other) for other in its.arms]
    added += [
        f"{name} {user_text(_in_words(value))}"
        for name, value in own.items()
        if any(other.get(name) != value for other in others)
    ]
    return listed(added) or "nothing"


def _in_words(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_in_words(its)}" for name, its in value.items())
    return str(value)


def _settings(arm: Arm) -> dict[str, object]:
    """What a study sets beside its space, by name, where it is not the default."""
    spec = arm.search.spec
    found: dict[str, object] = {}
    for part in (spec.task, spec.penalty, spec.early_stopping):
        if part is not None:
            found |= part.model_dump(mode="json", exclude_defaults=True)
    return found


def _pair(one: PairedDifference) -> str:
    return f"{one.arm} − {one.other}"


def _ends(interval: Interval | None) -> tuple[float, float] | None:
    return None if interval is None else (interval.low, interval.high)


def _differs(ends: tuple[float, float] | None) -> str:
    return "" if ends is None else f"{ends[0]:+.4g} to {ends[1]:+.4g}"


def _span(interval: Interval | None) -> str:
    return "" if interval is None else f"{number(interval.low)} to {number(interval.high)}"


def _number(value: float | None) -> str:
    return "" if value is None else number(value)


def _num_scores(arm: ArmResult) -> str:
    there = sum(score is not None for score in arm.scores)
    failed = len(arm.scores) - there
    return f"{there} ({failed} failed)" if failed else str(there)
