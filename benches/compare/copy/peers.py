"""Loads a file into the table t as programs do that are written in Python.

peers.py METHOD URL FILE [ROWS]: the file is COPY text, since Python's csv module cannot tell NULL from an empty string; for
adbc it is CSV, which Arrow reads by itself. ROWS is how many rows to take, for the methods that are slow.
"""

import asyncio
import datetime
import io
import itertools
import re
import sys

COLUMNS = """
    SELECT attname, format_type(atttypid, NULL) FROM pg_attribute
    WHERE attrelid = 't'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum
"""

READERS = {
    "smallint": int,
    "integer": int,
    "bigint": int,
    "boolean": lambda value: value == "t",
    "date": datetime.date.fromisoformat,
    "timestamp with time zone": datetime.datetime.fromisoformat,
}

ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


def unescape(value):
    """PostgreSQL manual, COPY, "Text Format"."""
    if "\\" not in value:
        return value
    return re.sub(r"\\(.)", lambda match: ESCAPES.get(match[1], match[1]), value)


def records(path):
    with open(path, encoding="utf-8", newline="\n") as file:
        for line in file:
            yield [None if value == r"\N" else unescape(value) for value in line[:-1].split("\t")]


def typed(path, types):
    readers = [READERS.get(type, str) for type in types]
    for record in records(path):
        yield tuple(None if value is None else read(value) for value, read in zip(record, readers))


def psycopg_text(url, path, rows):
    import psycopg

    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        with cursor.copy("COPY t FROM STDIN") as copy:
            for record in records(path):
                copy.write_row(record)


def psycopg_binary(url, path, rows):
    import psycopg
    from psycopg.types.json import Jsonb

    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        types = [type for _, type in cursor.execute(COLUMNS).fetchall()]
        READERS["jsonb"] = lambda value: Jsonb(value, dumps=str)
        with cursor.copy("COPY t FROM STDIN (FORMAT binary)") as copy:
            copy.set_types(types)
            for row in typed(path, types):
                copy.write_row(row)


def psycopg_blocks(url, path, rows):
    import psycopg

    with psycopg.connect(url) as connection, connection.cursor() as cursor, open(path, "rb") as file:
        with cursor.copy("COPY t FROM STDIN") as copy:
            while block := file.read(1 << 16):
                copy.write(block)


def pyloader(url, path, rows):
    """The loop of pyLoader: values joined by tabs, a chunk at a time."""
    import psycopg2

    pg = psycopg2.connect(url)
    cursor = pg.cursor()
    cursor.execute(COLUMNS)
    names = [name for name, _ in cursor.fetchall()]
    source = records(path)
    while chunk := list(itertools.islice(source, 10_000)):
        file_data = ""
        for row in chunk:
            file_data += "\t".join(str(value) for value in row) + "\n"
        buffer = io.StringIO()
        buffer.write(file_data)
        buffer.seek(0)
        cursor.copy_from(buffer, "t", sep="\t", columns=names)
        pg.commit()


def insert(url, path, rows):
    """pyLoader before its loop: an INSERT and a COMMIT for each row."""
    import psycopg2

    pg = psycopg2.connect(url)
    cursor = pg.cursor()
    cursor.execute(COLUMNS)
    names = [name for name, _ in cursor.fetchall()]
    statement = f"INSERT INTO t({', '.join(names)}) VALUES ({', '.join(['%s'] * len(names))})"
    for record in itertools.islice(records(path), rows):
        cursor.execute(statement, record)
        pg.commit()


def asyncpg_records(url, path, rows):
    import asyncpg

    async def run():
        connection = await asyncpg.connect(url)
        types = [type for _, type in await connection.fetch(COLUMNS)]
        await connection.copy_records_to_table("t", records=typed(path, types))
        await connection.close()

    asyncio.run(run())


def asyncpg_file(url, path, rows):
    import asyncpg

    async def run():
        connection = await asyncpg.connect(url)
        await connection.copy_to_table("t", source=path, format="text")
        await connection.close()

    asyncio.run(run())


def adbc(url, path, rows):
    import adbc_driver_postgresql.dbapi
    import pyarrow as pa
    from pyarrow import csv

    arrow = {
        "smallint": pa.int16(),
        "integer": pa.int32(),
        "bigint": pa.int64(),
        "boolean": pa.bool_(),
        "date": pa.date32(),
        "timestamp with time zone": pa.timestamp("us", tz="UTC"),
    }
    with adbc_driver_postgresql.dbapi.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute(COLUMNS)
        types = {name: arrow.get(type, pa.string()) for name, type in cursor.fetchall()}
        with open(path, "rb") as file:
            file.readline()
            first = file.readline()
        escaped = first.startswith(b'"')
        reader = csv.open_csv(
            path,
            read_options=csv.ReadOptions(block_size=16 << 20),
            parse_options=csv.ParseOptions(
                double_quote=not escaped, escape_char="\\" if escaped else False, newlines_in_values=True
            ),
            convert_options=csv.ConvertOptions(
                column_types=types,
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
                true_values=["t"],
                false_values=["f"],
            ),
        )
        cursor.adbc_ingest("t", reader, mode="append")
        connection.commit()


METHODS = {
    "psycopg-text": psycopg_text,
    "psycopg-binary": psycopg_binary,
    "psycopg-blocks": psycopg_blocks,
    "pyloader": pyloader,
    "insert": insert,
    "asyncpg-records": asyncpg_records,
    "asyncpg-file": asyncpg_file,
    "adbc": adbc,
}

if __name__ == "__main__":
    method, url, path = sys.argv[1:4]
    METHODS[method](url, path, int(sys.argv[4]) if len(sys.argv) > 4 else None)
