"""The job of pyLoader, done its way: batches of 25 requests with a barrier behind each, then COPY of texts.

pyloader.py METHOD API KEY DATABASE prints the seconds that fetching and loading took, as JSON. METHOD is threads (futures,
requests and psycopg2, as pyLoader has it) or asyncio (the same loop with aiohttp and psycopg 3, whose COPY escapes values).
"""

import asyncio
import concurrent.futures
import io
import json
import sys
import time

BATCH = 25
CHUNK = 10_000
TABLE = "t_aggregate_activity_stats"
COLUMNS = ("group_id", "clan_id", "member_id", "character_id", "activity_hash", "stat_id", "stat")
INPUT = """
    SELECT jsonb_build_object('group_id', m.group_id, 'clan_id', m.clan_id, 'member_id', m.member_id,
                              'destiny_id', m.destiny_id, 'destiny_membership_type', m.destiny_membership_type,
                              'character_id', c.character_id)
    FROM stats.t_member m JOIN stats.t_character c USING (member_id)
"""
AFTER = ("ANALYZE stats.t_aggregate_activity_stats", "REFRESH MATERIALIZED VIEW stats.mv_member", "ANALYZE stats.mv_member")


def with_urls(api, records):
    path = "/Platform/Destiny2/{destiny_membership_type}/Account/{destiny_id}/Character/{character_id}"
    for (record,) in records:
        record["requestUrl"] = api + path.format(**record) + "/Stats/AggregateActivityStats/"
        yield record


def batches(rows, size):
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def exploded(records):
    rows = []
    for record in records:
        ids = [record["group_id"], record["clan_id"], record["member_id"], record["character_id"]]
        for activity in record["stats"]["Response"]["activities"]:
            for name, stat in activity["values"].items():
                rows.append(ids + [activity["activityHash"], name, json.dumps(stat)])
    return rows


def threads(api, key, database):
    import psycopg2
    import requests

    def ask(record):
        record["stats"] = session.get(record["requestUrl"]).json()
        return record

    pg = psycopg2.connect(database, options="-c search_path=stats")
    cursor = pg.cursor()
    cursor.execute(INPUT)
    records = list(with_urls(api, cursor.fetchall()))
    began = time.monotonic()
    session = requests.Session()
    session.trust_env = False
    session.headers["X-API-Key"] = key
    session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=BATCH))
    answered = []
    with concurrent.futures.ThreadPoolExecutor(BATCH) as executor:
        for batch in batches(records, BATCH):
            answered += executor.map(ask, batch)
    fetched = time.monotonic()

    cursor.execute(f"TRUNCATE {TABLE}")
    pg.commit()
    for chunk in batches(exploded(answered), CHUNK):
        file_data = ""
        for row in chunk:
            file_data += "\t".join(str(value) for value in row) + "\n"
        buffer = io.StringIO()
        buffer.write(file_data)
        buffer.seek(0)
        cursor.copy_from(buffer, TABLE, sep="\t", columns=COLUMNS)
        pg.commit()
    for statement in AFTER:
        cursor.execute(statement)
        pg.commit()
    return fetched - began, time.monotonic() - fetched


def with_asyncio(api, key, database):
    import aiohttp
    import psycopg

    async def ask(session, record):
        async with session.get(record["requestUrl"]) as response:
            record["stats"] = await response.json()

    async def fetch(records):
        async with aiohttp.ClientSession(headers={"X-API-Key": key}) as session:
            for batch in batches(records, BATCH):
                await asyncio.gather(*(ask(session, record) for record in batch))

    with psycopg.connect(database) as pg, pg.cursor() as cursor:
        records = list(with_urls(api, cursor.execute(INPUT).fetchall()))
        began = time.monotonic()
        asyncio.run(fetch(records))
        fetched = time.monotonic()
        cursor.execute(f"TRUNCATE stats.{TABLE}")
        pg.commit()
        for chunk in batches(exploded(records), CHUNK):
            with cursor.copy(f"COPY stats.{TABLE} ({', '.join(COLUMNS)}) FROM STDIN") as copy:
                for row in chunk:
                    copy.write_row(row)
            pg.commit()
        for statement in AFTER:
            cursor.execute(statement)
            pg.commit()
    return fetched - began, time.monotonic() - fetched


if __name__ == "__main__":
    method, *where = sys.argv[1:]
    fetch, load = {"threads": threads, "asyncio": with_asyncio}[method](*where)
    print(json.dumps({"fetch": fetch, "load": load}))
