"""The settings of any installed task, as a field of a pydantic model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Union

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler, TypeAdapter, ValidationError
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import PydanticKnownError, core_schema

from ridgeline.search.tasks.registry import (
    BUILT_IN,
    NotInstalledSettings,
    installed,
    why_not_installed,
)
from ridgeline.search.tasks.settings import TaskSettings

INSTALLED_ONLY = {"tasks": "installed only"}
"""A context for validation: of settings whose task is not installed, refuse them."""


class SettingsOfInstalled:
    """Marks a field of settings as those of any installed task, chosen by their `name`.

    Settings of a task that is not installed, or that another version of it took, are kept as
    `NotInstalledSettings`: a study stays readable when its task has gone, and to clients that have
    other tasks than the service.  With `INSTALLED_ONLY` as the context they are refused.
    """

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        # Tasks are found when settings are first read, not when this module is imported: those
        # that bring them import it too.
        return core_schema.with_info_plain_validator_function(
            _validated, serialization=core_schema.simple_ser_schema("any")
        )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        models = tuple(task.settings for task in installed().tasks.values())
        union: Any = Annotated[Union[models], Field(discriminator="name")]  # noqa: UP007
        return handler(TypeAdapter(union).core_schema)


if TYPE_CHECKING:
    AnySettings = TaskSettings
else:
    # FastAPI would show the base class, were it named here, in the API's document.
    AnySettings = Annotated[Any, SettingsOfInstalled]
    """The settings of any installed task."""


def _validated(data: object, info: core_schema.ValidationInfo) -> TaskSettings:
    """The problems are those of pydantic's own unions by a discriminator."""
    if isinstance(data, TaskSettings):
        return data
    if not isinstance(data, Mapping):
        raise PydanticKnownError("model_attributes_type")
    if "name" not in data:
        raise PydanticKnownError("union_tag_not_found", {"discriminator": "'name'"})
    name, tasks = data["name"], installed().tasks
    is_strict = info.context is INSTALLED_ONLY
    if isinstance(name, str) and name in tasks:
        settings: type[TaskSettings] = tasks[name].settings
        try:
            return settings.model_validate(data, context=info.context)
        except ValidationError:
            if is_strict or tasks[name] in BUILT_IN:
                raise
            return NotInstalledSettings.model_validate(data)
    if isinstance(name, str) and not is_strict:
        return NotInstalledSettings.model_validate(data)
    tag, expected = str(name).encode("utf-8", "backslashreplace").decode(), [*map(repr, tasks)]
    hint = why_not_installed(tag)
    raise PydanticKnownError(
        "union_tag_invalid",
        {
            "discriminator": "'name'",
            "tag": tag,
            "expected_tags": ", ".join(expected) + ("" if hint is None else f"; {hint}"),
        },
    )


_any_settings: TypeAdapter[TaskSettings] = TypeAdapter(AnySettings)


def settings_of(data: Mapping[str, Any]) -> TaskSettings:
    """Settings from plain data, as they stand in a spec.

    Raises:
        ValidationError: they are not those of the task that they name.
    """
    return _any_settings.validate_python(data, context=INSTALLED_ONLY)
