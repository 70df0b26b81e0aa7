"""What a command line names as a source."""

import os
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from inference.errors import OutputUnwritable, ParameterInvalid
from scoring.files import Files, is_pattern, matches
from scoring.lines import Lines
from scoring.remote import Remote
from scoring.remote import matches as remote_matches
from scoring.services import is_address
from scoring.shards import Shard, is_shard
from scoring.sinks import PARTS
from scoring.sources import Several, Source
from scoring.tables import Table, is_table

STDIN = "-"


def source_of(
    arguments: Sequence[str], *, column: str | None = None, base: str | None = None, null: bool = False
) -> Source:
    """Files, folders, patterns, tables, shards and addresses as one source; `-` reads paths from standard input.

    `column` is the tables' column of pictures, `base` the folder or address at which its relative paths begin; `null`
    says that the paths on standard input end with zero bytes.
    Raises DataInvalid, PackageMissing, or ParameterInvalid for an option that nothing of this takes.
    """
    locations = [location for argument in arguments for location in _expanded(argument)]
    if (column or base) and not any(map(is_table, locations)):
        raise ParameterInvalid("--column and --base belong to a table: a .csv, .tsv, .jsonl or .parquet file")
    if null and STDIN not in locations:
        raise ParameterInvalid("--null belongs to paths on standard input: name `-` as the source")
    sources: list[Source] = []
    for plain, group in groupby(locations, _is_plain):
        if plain:
            sources.append(Files(list(group)))
        else:
            sources += [_special(location, column, base, null) for location in group]
    return sources[0] if len(sources) == 1 else Several(sources)


def refuse_one_file_twice(arguments: Sequence[str], *, output: Path | None, summary: Path | None) -> None:
    """Raises ParameterInvalid where output (or its parts), summary and a source are one: writing would destroy it.

    Raises OutputUnwritable where one to be written is an address.
    """
    locations = (location for argument in arguments for location in _expanded(argument))
    taken = {_file(location): "a source" for location in locations if location != STDIN and not is_address(location)}
    for option, path in (("--output", output), ("--summary", summary)):
        if path is None:
            continue
        refuse_address(option, path)
        if _file(path) in taken:
            raise ParameterInvalid(f"{option} names {path}, which is {taken[_file(path)]}; choose another file")
        taken[_file(path)] = "the file of --output"
    if output and summary and _file(f"{output}{PARTS}") in (_file(summary), _file(summary.parent)):
        raise ParameterInvalid(f"--summary names {summary}, where --output has its parts; choose another file")


def refuse_address(option: str, path: Path) -> None:
    """Raises OutputUnwritable for `s3://…` and the like, of which a path has kept one slash."""
    head, _, rest = os.fspath(path).partition(":/")
    if len(head) > 1 and "/" not in head and rest and not os.path.isdir(f"{head}:"):  # noqa: PTH112 – as in files.py
        raise OutputUnwritable(
            f"{option} names {head}://{rest.lstrip('/')}, an address: what is written goes to this machine first; name "
            "a file here, and copy it when it is whole"
        )


def _file(location: str | Path) -> object:
    """Equal for two names of one file."""
    try:
        status = os.stat(location)  # noqa: PTH116 – as in files.py
    except (OSError, ValueError):
        return os.path.abspath(location)  # noqa: PTH100
    return status.st_dev, status.st_ino


def _expanded(argument: str) -> list[str]:
    """A pattern of tables or shards as their names; anything else, and a pattern that fits nothing, as it is."""
    found: list[str] = []
    if not (is_table(argument) or is_shard(argument)):
        pass
    elif is_address(argument) and "*" in argument:
        found = [address for address, _ in remote_matches(argument)]
    elif not is_address(argument) and is_pattern(argument):
        found = [location for location, _ in matches(argument)]
    return found or [argument]


def _is_plain(location: str) -> bool:
    return not (location == STDIN or is_table(location) or is_shard(location) or is_address(location))


def _special(location: str, column: str | None, base: str | None, null: bool) -> Source:
    if location == STDIN:
        return Lines(null=null)
    if is_table(location):
        return Table(location, column, base)
    return Shard(location) if is_shard(location) else Remote(location)
