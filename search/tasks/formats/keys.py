"""The column by which a split keeps rows together, or knows their order; it is no feature."""

from __future__ import annotations

from datetime import UTC, datetime

from ridgeline.search.tasks.formats.base import FormatError
from ridgeline.search.tasks.formats.rows import finite, name_in, shortened


class Groups:
    """Names of groups as numbers, of the train part and then of the test part."""

    def __init__(self) -> None:
        self._number_of: dict[str, int] = {}

    def value(self, text: str, where: str) -> float:
        """The number of a group.

        Raises:
            FormatError: it is empty or too long.
        """
        name = name_in(text, "group", where)
        return self._number_of.setdefault(name, len(self._number_of))


class Times:
    """Times as numbers: numbers as they are, or dates in seconds since 1970."""

    def __init__(self) -> None:
        self._are_numbers: bool | None = None

    def value(self, text: str, where: str) -> float:
        """A time.

        Raises:
            FormatError: it is neither a number nor a date, or not like the first one.
        """
        number = finite(text)
        if self._are_numbers is None:
            self._are_numbers = number is not None
        if self._are_numbers:
            if number is None:
                raise FormatError(f"{where}: {shortened(text)!r} is not a finite number")
            return number
        try:
            date = datetime.fromisoformat(text.strip())
        except ValueError as exc:
            raise FormatError(
                f"{where}: {shortened(text)!r} is neither a number nor a date such as 2024-05-17 "
                "or 2024-05-17T08:30"
            ) from exc
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
