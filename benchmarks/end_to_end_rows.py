"""The rows of the end-to-end benchmark; `benchmarks.end_to_end` says what their columns mean."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator, Sequence

from benchmarks.end_to_end_contenders import Result, Rounds
from benchmarks.end_to_end_service import StudySeen
from benchmarks.rows import Ratio, Row
from benchmarks.studies import StudyWork
from ridgeline.search.space import Config


def study_rows(work: StudyWork, sampler: str, num_samples: int, rounds: Rounds) -> Iterator[Row]:
    """A row for each state.

    Args:
        num_samples: training samples of the whole study, each counted once an epoch.
    """
    resident = _seconds(rounds.results["resident"])
    engine = _seconds(rounds.results["engine"])
    loader = _seconds(rounds.results.get("loader", []))
    for state, seen in rounds.seen.items():
        seconds = [one.seconds for one in seen]
        row: Row = {
            "study": work.name,
            "sampler": sampler,
            "state": state,
            "trials": work.trials,
            "epochs": work.epochs,
            "rounds": len(seen),
            "complete": min(one.num_complete for one in seen),
            **_columns("seconds", seconds),
            "samples_per_s": round(num_samples / statistics.median(seconds)),
            **Ratio.of(resident, seconds).columns("ratio_to_resident"),
            "ratio_to_loader": round(loader[0] / seconds[0], 3) if loader else None,
            **Ratio.of(engine, seconds).columns("share_of_engine"),
            "first_finished_seconds": _median(seen, "first_finished_seconds"),
            "occupancy": _median(seen, "occupancy"),
            "idle_slots": _median(seen, "idle_slots"),
            "programs": seen[-1].programs,
            "best_value": round(statistics.median(one.best_value for one in seen), 5),
            "resident_seconds": round(statistics.median(resident), 2),
            "loader_seconds": round(loader[0], 2) if loader else None,
            "engine_seconds": round(statistics.median(engine), 2),
            "engine_programs": _forms(rounds.results["engine"][-1]),
            "script_best_value": round(
                statistics.median(one["best"] for one in rounds.results["resident"]), 5
            ),
        }
        yield row


def slow_row(work: StudyWork, num_samples: int, configs: Sequence[Config], result: Result) -> Row:
    """How much slower than others a configuration can be.

    Args:
        num_samples: training samples of one run, each counted once an epoch.
        result: of `configs`, one by one.
    """
    rates: dict[int, list[float]] = {}
    for config, seconds in zip(configs, result["seconds"], strict=True):
        rates.setdefault(int(config["batch_size"]), []).append(num_samples / seconds)
    medians = {size: statistics.median(found) for size, found in rates.items()}
    shares = {size: min(found) / medians[size] for size, found in rates.items()}
    return {
        "row": "slow_configurations",
        "study": work.name,
        "configs": len(configs),
        "epochs": work.epochs,
        "slowest_over_median": round(min(shares.values()), 3),
        "by_batch_size": {
            str(size): {
                "median_samples_per_s": round(medians[size]),
                "slowest_samples_per_s": round(min(rates[size])),
                "slowest_over_median": round(shares[size], 3),
            }
            for size in sorted(rates)
        },
        "worst_corner_over_median": round(
            num_samples / result["seconds"][0] / medians[int(configs[0]["batch_size"])], 3
        ),
        "programs": _forms(result),
    }


def _seconds(results: Sequence[Result]) -> list[float]:
    return [result["seconds"] for result in results]


def _columns(name: str, values: Sequence[float]) -> Row:
    """The median, and beside it the extremes."""
    extremes = [round(min(values), 2), round(max(values), 2)]
    return {name: round(statistics.median(values), 2), f"{name}_range": extremes}


def _median(seen: Sequence[StudySeen], name: str) -> float:
    values: list[float] = [getattr(one, name) for one in seen]
    return round(statistics.median(values), 3)


def _forms(result: Result) -> dict[str, int]:
    return dict(Counter(result["programs"]))
