"""Writes an inventory as S3 lays it out: https://docs.aws.amazon.com/AmazonS3/latest/userguide/storage-inventory-location.html

Reads its specification as JSON from the standard input, and knows nothing of what will read it.
"""
import csv, datetime, gzip, hashlib, io, json, os, sys, urllib.parse

spec = json.load(sys.stdin)
top = os.path.join(spec["folder"], "reports", "data", "daily")
dated = os.path.join(top, "2026-11-06T21-32Z")
os.makedirs(os.path.join(top, "data"))
os.makedirs(dated)
versions = spec["versions"]


def csv_file(rows):
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n")
    for row in rows:
        time = datetime.datetime.fromtimestamp(row["time"] / 1000, datetime.timezone.utc)
        fields = [row.get("bucket", "data"), urllib.parse.quote_plus(row["key"], safe="/-_.*")]
        if versions:
            fields += [row["version"], str(row["latest"]).lower(), str(row["deleted"]).lower()]
        fields += ["" if row["deleted"] else row["size"], time.strftime("%Y-%m-%dT%H:%M:%S.000Z")]
        fields += ["" if row["deleted"] else row["etag"], "STANDARD"]
        writer.writerow(fields)
    return gzip.compress(text.getvalue().encode())


def parquet_file(rows):
    import pyarrow, pyarrow.parquet
    columns = [("bucket", pyarrow.string(), lambda row: row.get("bucket", "data")), ("key", pyarrow.string(), lambda row: row["key"])]
    if versions:
        columns += [
            ("version_id", pyarrow.string(), lambda row: row["version"]),
            ("is_latest", pyarrow.bool_(), lambda row: row["latest"]),
            ("is_delete_marker", pyarrow.bool_(), lambda row: row["deleted"]),
        ]
    columns += [
        ("size", pyarrow.int64(), lambda row: None if row["deleted"] else row["size"]),
        ("last_modified_date", pyarrow.timestamp("ms", tz="UTC"), lambda row: row["time"]),
        ("e_tag", pyarrow.string(), lambda row: None if row["deleted"] else row["etag"]),
        ("storage_class", pyarrow.string(), lambda row: "STANDARD"),
    ]
    fields = [pyarrow.field(name, kind, nullable=name not in ("bucket", "key")) for name, kind, _ in columns]
    arrays = [pyarrow.array([value(row) for row in rows], type=kind) for _, kind, value in columns]
    table = pyarrow.Table.from_arrays(arrays, schema=pyarrow.schema(fields))
    sink = io.BytesIO()
    pyarrow.parquet.write_table(table, sink, compression="snappy")
    return sink.getvalue()


files = []
for number, rows in enumerate(spec["files"]):
    content = {"CSV": csv_file, "Parquet": parquet_file}[spec["format"]](rows)
    extension = {"CSV": ".csv.gz", "Parquet": ".parquet"}[spec["format"]]
    key = f"reports/data/daily/data/0000-{number}{extension}"
    with open(os.path.join(spec["folder"], key), "wb") as file:
        file.write(content)
    files.append({"key": key, "size": len(content), "MD5checksum": hashlib.md5(content).hexdigest()})

columns = ["Bucket", "Key"] + (["VersionId", "IsLatest", "IsDeleteMarker"] if versions else [])
manifest = {
    "sourceBucket": "data",
    "destinationBucket": "arn:aws:s3:::reports",
    "version": "2016-11-30",
    "creationTimestamp": "1794000000000",
    "fileFormat": spec["format"],
    "fileSchema": ", ".join(columns + ["Size", "LastModifiedDate", "ETag", "StorageClass"]),
    "files": files,
}
content = json.dumps(manifest, indent=2).encode()
with open(os.path.join(dated, "manifest.json"), "wb") as file:
    file.write(content)
with open(os.path.join(dated, "manifest.checksum"), "w") as file:
    file.write(hashlib.md5(content).hexdigest() + "\n")
