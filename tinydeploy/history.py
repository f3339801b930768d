"""Turn profiles into rows of a database, and two of them into what changed."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tinydeploy import __version__
from tinydeploy.errors import UsageError
from tinydeploy.profiling import NodeProfile, Profile, Spread

_GIT_SECONDS = 10.0
_SCHEMA = """
create table if not exists runs (
    id integer primary key, time text not null, folder text not null, port text not null,
    target text not null, model text not null, model_sha256 text not null,
    compiler text not null, optimisation text not null, plan text not null,
    version text not null, git_commit text not null, note text not null,
    unit text not null, clock_hz integer not null, runs integer not null,
    stack_bytes integer not null, least integer not null, median integer not null,
    most integer not null
);
create table if not exists nodes (
    run integer not null references runs (id), position integer not null, name text not null,
    op text not null, macs integer not null, least integer not null, median integer not null,
    most integer not null, primary key (run, position)
);
"""
_RUN = (
    "time, folder, compiler, optimisation, plan, version, git_commit, note, target, port, model, "
    "model_sha256, unit, clock_hz, runs, least, median, most, stack_bytes"
)


@dataclass(frozen=True, slots=True)
class Circumstances:
    """Say what a profile was made of.

    `time` is UTC; `folder` the deployment folder; `commit` that of the git repository around it,
    with "-dirty" when its files have changed since, or "".
    """

    time: str
    folder: str
    compiler: str
    optimisation: str
    plan: str
    version: str
    commit: str
    note: str


@dataclass(frozen=True, slots=True)
class Run:
    """Hold a profile that was kept."""

    id: int
    circumstances: Circumstances
    profile: Profile


@dataclass(frozen=True, slots=True)
class Change:
    """Hold the medians of a node before and after; None where there was no such node."""

    name: str
    op: str
    before: int | None
    after: int | None

    @property
    def percent(self) -> float | None:
        """Return the change in percent of what was before, None where there is nothing to say."""
        if self.before is None or self.after is None or self.before == 0:
            return None
        return 100 * (self.after - self.before) / self.before


def history_path() -> Path:
    """Return the database: $TINYDEPLOY_HISTORY, else below the user's data folder."""
    if given := os.environ.get("TINYDEPLOY_HISTORY"):
        return Path(given)
    base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "tinydeploy" / "history.sqlite"


def circumstances(
    folder: Path, compiler: str, optimisation: str, plan: str, note: str = ""
) -> Circumstances:
    """Return what a profile made now was made of."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    where = folder.resolve()
    return Circumstances(
        now, str(where), compiler, optimisation, plan, __version__, git_commit(where), note
    )


def git_commit(folder: Path) -> str:
    """Return the commit that a folder is at, '' where it is in no repository or git is missing."""
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--exclude=*",
               "--abbrev=12"]  # fmt: skip
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
            timeout=_GIT_SECONDS,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""


@contextmanager
def _database() -> Iterator[sqlite3.Connection]:
    """Open the database, making it first; every failure is a UsageError that names the file."""
    path = history_path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path, timeout=30)) as connection:
            connection.executescript(_SCHEMA)
            with connection:
                yield connection
    except (OSError, sqlite3.Error) as error:
        raise UsageError(
            f"the history {path} cannot be used", str(error),
            "move it away, name another file in TINYDEPLOY_HISTORY, or give --no-save",
        ) from error  # fmt: skip


def save(profile: Profile, made: Circumstances) -> int:
    """Keep a profile and return its number."""
    p, total = profile, profile.total
    values = (
        made.time, made.folder, made.compiler, made.optimisation, made.plan, made.version,
        made.commit, made.note, p.target, p.port, p.model, p.model_sha256, p.unit, p.clock_hz,
        p.runs, total.least, total.median, total.most, p.stack_bytes,
    )  # fmt: skip
    marks = ", ".join("?" * len(values))
    with _database() as connection:
        number = connection.execute(f"insert into runs ({_RUN}) values ({marks})", values).lastrowid
        connection.executemany(
            "insert into nodes values (?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (number, k, n.name, n.op, n.macs, n.count.least, n.count.median, n.count.most)
                for k, n in enumerate(p.nodes)
            ],
        )
    return int(number or 0)


def load(number: int) -> Run:
    """Return a kept profile; raises UsageError where there is none of that number."""
    with _database() as connection:
        row = connection.execute(f"select {_RUN} from runs where id = ?", (number,)).fetchone()
        if row is None:
            raise UsageError(
                f"there is no profile {number} in the history", f"it is kept in {history_path()}",
                "'tinydeploy profile --history' lists what there is",
            )  # fmt: skip
        query = "select name, op, macs, least, median, most from nodes where run = ?"
        nodes = connection.execute(f"{query} order by position", (number,)).fetchall()
    *made, target, port, model, sha256, unit, clock_hz, runs, least, median, most, stack = row
    counted = tuple(NodeProfile(name, op, macs, Spread(*c)) for name, op, macs, *c in nodes)
    total = Spread(least, median, most)
    return Run(
        number,
        Circumstances(*made),
        Profile(target, port, model, sha256, unit, clock_hz, runs, total, counted, stack),
    )


def list_runs(folder: Path | None = None) -> list[Run]:
    """Return all kept profiles, of one deployment folder if it is given, the oldest first."""
    chosen = ("where folder = ?", (str(folder.resolve()),)) if folder else ("", ())
    with _database() as connection:
        rows = connection.execute(f"select id from runs {chosen[0]} order by id", chosen[1])
        numbers = [row[0] for row in rows.fetchall()]
    return [load(number) for number in numbers]


def compare(before: Profile, after: Profile) -> list[Change]:
    """Return what changed per node, matched by name and operator, in the order of `after`.

    Nodes that only `before` has come last. Raises UsageError when the two count different things.
    """
    if before.unit != after.unit:
        raise UsageError(
            "the two profiles cannot be compared",
            f"one counts {before.unit}, the other {after.unit}",
        )

    def keyed(profile: Profile) -> dict[tuple[str, str, int], int]:
        seen: Counter[tuple[str, str]] = Counter()
        found = {}
        for node in profile.nodes:
            key = (node.name, node.op)
            found[(*key, seen[key])] = node.count.median  # equal names: matched in their order
            seen[key] += 1
        return found

    old, new = keyed(before), keyed(after)
    keys = [*new, *(key for key in old if key not in new)]
    return [
        Change(name, op, old.get((name, op, k)), new.get((name, op, k))) for name, op, k in keys
    ]
