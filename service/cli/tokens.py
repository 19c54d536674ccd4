"""Tokens, made and revoked in the database itself: the first one cannot come over HTTP."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from ridgeline.service.cli.environment import load_settings, open_database
from ridgeline.service.cli.help_text import Command
from ridgeline.service.cli.problems import OneLineErrors, Problem, file_problems, input_problems
from ridgeline.service.cli.tables import plain_console
from ridgeline.service.errors import Unauthenticated
from ridgeline.service.files import without_links
from ridgeline.service.protocol import MAX_NOTE_CHARACTERS
from ridgeline.service.resources import TokenRequest
from ridgeline.service.texts import printable

if TYPE_CHECKING:
    from ridgeline.service.store.session import Store

_OPTIONS = {"name": "NAME", "note": "--note"}

app = typer.Typer(cls=OneLineErrors, help="Make, list and revoke tokens, in the database.")


@app.command(cls=Command)
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whose token it is.")],
    scope: Annotated[
        list[str],
        typer.Option(help="What it allows: read, write, worker or admin; may be repeated."),
    ],
    note: Annotated[
        str | None,
        typer.Option(help="What tells it from others in the list.", show_default=False),
    ] = None,
) -> None:
    """Make a token and print it; it cannot be shown again.

    From the first token on, the service answers nobody without one.
    """
    from ridgeline.service import tokens

    with input_problems(lambda field: _OPTIONS.get(field, "--scope")):
        request = TokenRequest.model_validate({"name": name, "scopes": scope, "note": note})
    with open_database(load_settings()) as store, store.transaction() as tx:
        _, secret = tokens.create(tx, request.name, request.scopes, note=request.note)
    typer.echo(secret)


@app.command("list", cls=Command)
def list_tokens() -> None:
    """List the tokens, oldest first, without their secrets; times are UTC."""
    from ridgeline.service import tokens

    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("id", "name", "scopes", "created", "state", "note"):
        table.add_column(column)
    with open_database(load_settings(), create=False) as store, store.reading() as tx:
        for token in tokens.list_all(tx):
            table.add_row(
                token.id,
                printable(token.name),
                " ".join(token.scopes),
                _day_and_time(token.created_at),
                "valid"
                if token.revoked_at is None
                else f"revoked {_day_and_time(token.revoked_at)}",
                printable(token.note or ""),
            )
    # Wide enough for every row: a cut id could not be copied from here.
    plain_console(soft_wrap=True, width=1_000).print(table)


@app.command(cls=Command)
def revoke(
    id: Annotated[str, typer.Argument(metavar="ID", help="The token's id, as `list` shows it.")],
) -> None:
    """Revoke a token; it is refused from now on."""
    from ridgeline.service import tokens

    if not id.isascii():
        raise Problem(f"there is no token {id}")
    with open_database(load_settings(), create=False) as store, store.transaction() as tx:
        tokens.revoke(tx, id)
    typer.echo(f"{id} is revoked.")


def _day_and_time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")


def ensure_token_file(store: Store, path: Path, name: str, scopes: Sequence[str]) -> None:
    """Leave a token in a file that its owner and its group may read.

    A file whose token the database knows is left alone, so this may be repeated.
    """
    from ridgeline.service import tokens

    with file_problems(f"write {path}"), store.transaction() as tx:
        try:
            tokens.authenticate(tx, path.read_text(encoding="ascii").strip())
        except (FileNotFoundError, UnicodeDecodeError, Unauthenticated):
            shown = printable(os.fsencode(path).decode(errors="replace"))
            note = f"in the file {shown}"
            _, secret = tokens.create(tx, name, scopes, note=note[:MAX_NOTE_CHARACTERS])
            _write_secret(path, secret)


def _write_secret(path: Path, secret: str) -> None:
    """Replace the file whole: nobody may read half a token, nor read it before the mode is set."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.unlink(missing_ok=True)  # left by a process that was killed, or by somebody else
    with open(new, "x", encoding="ascii", opener=without_links) as file:
        os.fchmod(file.fileno(), 0o640)
        file.write(secret + "\n")
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
