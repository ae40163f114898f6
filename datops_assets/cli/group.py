"""How every command ends that does not end well: one sentence, an exit code, no traceback.

With --json the same is one JSON document on stdout; the sentence stays on stderr.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperGroup

from datops_assets.cli import INTERRUPTED, end_at_once
from datops_assets.cli.output import JSON_WANTED, say_json
from datops_assets.errors import DatopsError, DeclarationError

_PLACE = re.compile(r"(?P<file>.+?):(?P<line>\d+): (?P<what>.*)", re.DOTALL)


class SentenceGroup(TyperGroup):
    """Says our own errors in their sentence."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was typed."""
        try:
            if signal.getsignal(signal.SIGINT) is end_at_once:
                signal.signal(signal.SIGINT, signal.default_int_handler)
            return super().invoke(ctx)
        except DeclarationError as error:
            for problem in error.problems:
                typer.echo(problem, err=True)
            _end(ctx, 2, error, error.problems)
        except DatopsError as error:
            typer.echo(f"datops: {error}", err=True)
            _end(ctx, 1, error)
        except KeyboardInterrupt:
            sentence = "interrupted; nothing half-loaded was kept; run again to go on"
            typer.echo(sentence, err=True)
            _end(ctx, INTERRUPTED, KeyboardInterrupt(sentence))
        except BrokenPipeError:
            raise typer.Exit(1) from None


def _end(ctx: Any, code: int, error: BaseException, problems: Sequence[str] = ()) -> None:
    if ctx.meta.get(JSON_WANTED):
        said = {"kind": type(error).__name__, "message": str(error), "problems": [*map(_placed, problems)]}
        say_json({"error": said})
    raise typer.Exit(code) from None


def _placed(problem: str) -> dict[str, Any]:
    """A problem in its parts; one of the call itself has no file."""
    found = _PLACE.fullmatch(problem)
    if found is None:
        return {"file": None, "line": None, "what": problem}
    return {"file": found["file"], "line": int(found["line"]), "what": found["what"]}
