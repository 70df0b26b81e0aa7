"""What a command line names as a source."""

from collections.abc import Iterator, Sequence
from itertools import groupby

from inference.errors import ParameterInvalid
from scoring.files import Files, is_pattern, matches
from scoring.lines import Lines
from scoring.remote import Remote, file_system, is_address
from scoring.shards import Shard, is_shard
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


def _expanded(argument: str) -> Iterator[str]:
    """A pattern of tables or shards as their names; anything else as it is."""
    if not (is_table(argument) or is_shard(argument)):
        yield argument
    elif is_address(argument) and "*" in argument:
        system, path = file_system(argument)
        yield from map(system.unstrip_protocol, sorted(system.glob(path)))
    elif not is_address(argument) and is_pattern(argument):
        yield from (location for location, _ in matches(argument))
    else:
        yield argument


def _is_plain(location: str) -> bool:
    return not (location == STDIN or is_table(location) or is_shard(location) or is_address(location))


def _special(location: str, column: str | None, base: str | None, null: bool) -> Source:
    if location == STDIN:
        return Lines(null=null)
    if is_table(location):
        return Table(location, column, base)
    return Shard(location) if is_shard(location) else Remote(location)
