"""Studies in the storages of Optuna, which keep ranges, but neither sampler nor pruner."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ridgeline.search.fields import MetricName, fits
from ridgeline.search.foreign.draft import Draft, Refused
from ridgeline.search.foreign.trials import Tried, add_condition, tell_trials

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.study import Study
    from optuna.trial import FrozenTrial

_URL = re.compile(r"(sqlite|postgresql|mysql)(\+\w+)?://(.*)", re.DOTALL)


def of_storage(url: str, study_name: str | None) -> Draft:
    """The draft of a study; the storage is only read.

    Args:
        study_name: which one; left out, the only one there is.

    Raises:
        Refused: no such storage, or no such study.
        ModuleNotFoundError: Optuna is not installed.
    """
    import optuna

    with _its_problems():
        storage = optuna.storages.RDBStorage(_only_read(url))
    try:
        with _its_problems():
            name = _chosen(study_name, optuna.get_all_study_names(storage))
            study = optuna.load_study(study_name=name, storage=storage)
            trials = study.get_trials(deepcopy=False)
        return _of_study(study, trials)
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _chosen(study_name: str | None, names: Sequence[str]) -> str:
    """The study to read, of those that the storage has."""
    if study_name is None and len(names) == 1:
        return names[0]
    if study_name in names:
        return str(study_name)
    known = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
    known = f"it has {known}" if names else "it has none"
    if study_name is None:
        raise Refused(("--study", f"must name a study of the storage; {known}"))
    raise Refused(("--study", f"the storage has no study {study_name!r}; {known}"))


def _only_read(url: str) -> str:
    """The URL with which SQLite makes no file and no tables; Optuna would make both."""
    found = _URL.fullmatch(url)
    if found is None:
        raise Refused(("", "must be a file, or a URL of sqlite, postgresql or mysql"))
    if found[1] != "sqlite":
        return url
    path = found[3].removeprefix("/").partition("?")[0]
    if not path or not Path(path).is_file():
        raise Refused(("", "there is no such file"))
    return f"sqlite:///file:{quote(str(Path(path).absolute()))}?mode=ro&uri=true"


@contextmanager
def _its_problems() -> Iterator[None]:
    """Tell what Optuna, SQLAlchemy or a driver raises: they have no error in common."""
    try:
        yield
    except Refused:
        raise
    except Exception as exc:
        reason = str(exc).partition("\n")[0][:200] or type(exc).__name__
        raise Refused(("", f"cannot be read as an Optuna storage: {reason}")) from exc


def _of_study(study: Study, trials: Sequence[FrozenTrial]) -> Draft:
    from optuna.study import StudyDirection
    from optuna.trial import TrialState

    draft = Draft("imported")
    draft.name_it("study_name", study.study_name)
    metric = (study.metric_names or ["value"])[0]
    draft.metric = metric if fits(MetricName, metric) else "value"
    if study.directions[0] is StudyDirection.MAXIMIZE:
        draft.direction = "maximize"
    if len(study.directions) > 1:
        draft.note("directions", "a study has one objective, which is the first one here")
    draft.note("sampler", "a storage does not keep it; auto is written")
    draft.limit_trials("trials", max(1, len(trials)))
    draft.note("budget.trials", f"an Optuna study has none; {draft.trials} are written, as there")
    for key in study.user_attrs:
        draft.note(f"user_attrs.{key}", "has no counterpart here; it is left out")
    names = _add_parameters(draft, trials)
    if not names:
        raise Refused(("params", "no trial has a parameter, and only trials tell the space"))
    tried = [
        Tried(trial.params, trial.values[0])
        for trial in trials
        if trial.state is TrialState.COMPLETE
    ]
    num_pruned = sum(trial.state is TrialState.PRUNED for trial in trials)
    tell_trials(draft, tried, names, num_pruned=num_pruned)
    return draft


def _add_parameters(draft: Draft, trials: Sequence[FrozenTrial]) -> dict[str, str]:
    """Add what the trials were drawn from, and give each parameter's name in the draft."""
    from optuna.trial import TrialState

    found: dict[str, list[BaseDistribution]] = {}
    for trial in trials:
        for name, distribution in trial.distributions.items():
            found.setdefault(name, []).append(distribution)
    num_trials = sum(bool(trial.distributions) for trial in trials)
    names = {
        name: _add(draft, f"params.{name}", name, distributions)
        for name, distributions in found.items()
    }
    # One that was pruned or has failed may have ended before it asked for all that it would have.
    complete = [trial.params for trial in trials if trial.state is TrialState.COMPLETE]
    for name, distributions in found.items():
        if len(distributions) < num_trials:
            add_condition(draft, f"params.{name}", name, complete, names)
    return names


def _add(draft: Draft, at: str, name: str, distributions: Sequence[Any]) -> str:
    from optuna.distributions import CategoricalDistribution, IntDistribution

    newest = distributions[-1]
    alike = [one for one in distributions if type(one) is type(newest)]
    if any(one != newest for one in distributions):
        draft.note(at, "has several ranges; it is what the newest kind of them covers")
    if isinstance(newest, CategoricalDistribution):
        return draft.add_values(at, name, newest.choices)
    return draft.add_range(
        at,
        name,
        min(one.low for one in alike),
        max(one.high for one in alike),
        whole=isinstance(newest, IntDistribution),
        log=newest.log,
        step=newest.step,
    )
