"""Every setting that is a number has bounds, so that none can be what nothing works with."""

from __future__ import annotations

from typing import Any

import pytest

from ridgeline.service.settings import Settings

PROPERTIES: dict[str, Any] = Settings.model_json_schema()["properties"]
NUMBERS = sorted(
    name
    for name, schema in PROPERTIES.items()
    if {"integer", "number"} & {one.get("type") for one in [schema, *schema.get("anyOf", [])]}
)


def test_there_are_such_settings() -> None:
    assert {"port", "lease_seconds", "device_threads"} <= set(NUMBERS)


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e999", "1e300", "1" + "0" * 300, "-1"])
def test_a_number_is_finite_and_within_bounds(
    name: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"RIDGELINE_{name.upper()}", text)
    with pytest.raises(ValueError, match=name):
        Settings(_env_file=None)
