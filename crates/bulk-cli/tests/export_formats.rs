//! What `bulk export --also` keeps beside archives, read by programs that others wrote. A machine may lack some of them; the
//! CI may not.

mod support;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use assert_cmd::assert::OutputAssertExt;
use bulk_testkit::pyarrow;
use support::bulk;

/// Programs that read lines: the name of what must be there, what they read, and a shell command, for which `$1` is the file.
const READERS: [(&str, &str, &str); 12] = [
    ("gzip", "gz", "gzip -dc $1"),
    ("pigz", "gz", "pigz -dc $1"),
    ("igzip", "gz", "igzip -dc $1"),
    ("7z", "gz", "7z x -so -bd $1 2>/dev/null"),
    ("python3", "gz", "python3 -c 'import sys, gzip; sys.stdout.buffer.write(gzip.open(sys.argv[1]).read())' $1"),
    (
        "python3",
        "gz",
        "python3 -c 'import sys, zlib; sys.stdout.buffer.write(zlib.decompress(open(sys.argv[1], \"rb\").read(), 31))' $1",
    ),
    ("perl", "gz", "perl -MIO::Uncompress::Gunzip=gunzip -e 'gunzip $ARGV[0] => \"-\" or die' $1"),
    ("node", "gz", "node -e 'process.stdout.write(zlib.gunzipSync(fs.readFileSync(process.argv[1])))' $1"),
    ("zstd", "zst", "zstd -dc $1"),
    ("zstd", "zst", "zstd -dc --memory=2MiB $1"),
    ("bsdtar", "zst", "bsdcat $1"),
    (
        "pyarrow",
        "zst",
        "$2 -c 'import sys, pyarrow; sys.stdout.buffer.write(pyarrow.input_stream(sys.argv[1], compression=\"zstd\").read())' $1",
    ),
];

/// Whether the program is there.
fn is_there(program: &str) -> bool {
    let found = Command::new("sh").args(["-c", "command -v \"$1\"", "sh", program]).output().unwrap().status.success();
    if !found {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{program} is missing");
        // Around the harness, which hides what a test that passes prints.
        let note = format!("export_formats.rs: {program} is missing and reads nothing here\n");
        std::io::stderr().write_all(note.as_bytes()).unwrap();
    }
    found
}

/// A line of the input, and what its item is.
fn line(id: u32, edition: u32) -> (String, String) {
    let words: String = (0..id % 400).map(|at| format!("{:x} ", (at * 7919 + id * edition) % 4093)).collect();
    let item = format!("{{\"id\": {id}, \"words\": \"{words}\"}}");
    let modified = 1_400_000_000 + i64::from(id);
    let line = format!(
        "{{\"type\": \"o\", \"group\": \"g\", \"id\": \"{id:05}\", \"modified\": {modified}, \"item\": {item}}}\n"
    );
    (line, item)
}

#[test]
fn others_read_what_stands_beside_archives() {
    let folder = tempfile::tempdir().unwrap();
    let run = |lines: &str, more: &[&str]| {
        fs::write(folder.path().join("lines"), lines).unwrap();
        let mut command = bulk(["export", "--ndjson", "lines", "--out", "out"].iter().chain(more));
        command.current_dir(&folder).assert().success();
    };
    // Some chains and row groups; and then only some of them are made anew.
    let items = 20_000;
    let mut all: Vec<(String, String)> = (0..items).map(|id| line(id, 1)).collect();
    let shapes = "jsonl.gz,jsonl.zst,parquet";
    let lines = all.iter().map(|(line, _)| line.as_str()).collect::<String>();
    run(&lines, &["--also", shapes, "--whole", shapes]);
    check(folder.path(), &all, "g");
    for id in [3, 9000] {
        all[id as usize] = line(id, 2);
    }
    run(&[3, 9000].map(|id| all[id].0.as_str()).concat(), &[]);
    check(folder.path(), &all, "g");
    bulk(["export", "--verify", "--out", "out"]).current_dir(&folder).assert().success();
    // Another group, whose ids are those behind, and which comes behind.
    let others: Vec<(String, String)> = (items..items + 500).map(|id| line(id, 1)).collect();
    run(&others.iter().map(|(line, _)| line.replace("\"g\"", "\"h\"")).collect::<String>(), &[]);
    check(folder.path(), &all, "g");
    check(folder.path(), &others, "h");
    all.extend(others);
    check(folder.path(), &all, "");
    bulk(["export", "--verify", "--out", "out"]).current_dir(&folder).assert().success();
}

/// The files of a group have all these items; of the type, where its name is empty.
fn check(folder: &Path, all: &[(String, String)], group: &str) {
    let stem = if group.is_empty() { "out/o".to_owned() } else { format!("out/o/{group}") };
    let text: String = all.iter().map(|(_, item)| format!("{item}\n")).collect();
    let python = pyarrow::python(&std::env::temp_dir()).unwrap();
    for (program, codec, command) in READERS {
        if program != "pyarrow" && !is_there(program) {
            continue;
        }
        let file = folder.join(format!("{stem}.jsonl.{codec}"));
        let read = Command::new("sh").args(["-ec", command, "sh"]).arg(&file).arg(&python).output().unwrap();
        assert!(read.status.success(), "{command}: {}", String::from_utf8_lossy(&read.stderr));
        let read = String::from_utf8(read.stdout).unwrap();
        // Some lines end with spaces.
        let lines = read.split_inclusive('\n').map(|line| line.trim_end_matches([' ', '\n']));
        assert!(lines.eq(text.lines()) && read.ends_with('\n'), "{command}");
    }
    let script = "
import sys, json, pyarrow.parquet as parquet
file = parquet.ParquetFile(sys.argv[1])
print(file.num_row_groups, file.schema_arrow.remove_metadata().to_string().replace('\\n', '; '))
for group in range(file.num_row_groups):
    print(file.metadata.row_group(group).column(0).statistics.min)
for row in parquet.read_table(sys.argv[1]).to_pylist():
    print(row['id'], int(row['modified'].timestamp()), row['json'] + row.get('group', ''))
";
    let file = folder.join(format!("{stem}.parquet"));
    let read = Command::new(&python).args(["-c", script]).arg(&file).output().unwrap();
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    let read = String::from_utf8(read.stdout).unwrap();
    let mut lines = read.lines();
    let head = lines.next().unwrap();
    let (groups, schema) = head.split_once(' ').unwrap();
    let groups: usize = groups.parse().unwrap();
    let mut columns = "id: string not null; modified: timestamp[us, tz=UTC]; json: string not null".to_owned();
    if group.is_empty() {
        columns.push_str("; group: string not null");
    }
    assert_eq!((groups > 1, schema), (all.len() > 1000, &*columns));
    let firsts: Vec<&str> = lines.by_ref().take(groups).collect();
    let first = if group == "h" { 20_000 } else { 0 };
    assert!(firsts[0] == format!("{first:05}") && firsts.is_sorted(), "{firsts:?}");
    let of = |id| match group {
        "" if id < 20_000 => "g",
        "" => "h",
        _ => "",
    };
    let row = |(id, (_, item)): (i64, &(String, String))| format!("{id:05} {} {item}{}", 1_400_000_000 + id, of(id));
    let expected: Vec<String> = (first..).zip(all).map(row).collect();
    assert!(lines.eq(expected.iter().map(String::as_str)), "rows differ");
}

/// Columns of each type, and an item with values of all of them, with none, and with ones at the ends of what there is.
const TYPED: &str = r#"
[[type]]
name = "o"
table = "unused"
id = "id"
group = "group"
json = "item"
also = ["parquet"]
whole = ["parquet"]
parquet-columns = [
    { name = "number", type = "bigint", from = "id" },
    { name = "at", type = "timestamp", from = "modified" },
    { name = "is_good", type = "bool" },
    { name = "big", type = "bigint", from = "/deep/0/big~1number" },
    { name = "ratio", type = "double" },
    { name = "title", type = "text" },
    { name = "filed", type = "date", unfit = "null" },
    { name = "changed", type = "timestamp" },
    { name = "parties", type = "json" },
    { name = "all", type = "json", from = "item" },
]
"#;

#[test]
fn typed_columns_are_read_by_others() {
    let folder = tempfile::tempdir().unwrap();
    let python = pyarrow::python(&std::env::temp_dir()).unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    let line = |group: &str, id: i64, item: &str| {
        format!("{{\"type\": \"o\", \"group\": \"{group}\", \"id\": \"{id}\", \"modified\": 5, \"item\": {item}}}\n")
    };
    let run = |lines: &str, more: &[&str]| {
        write("lines", lines);
        let mut command = bulk(["export", "--ndjson", "lines", "--out", "out"].iter().chain(more));
        command.current_dir(&folder).output().unwrap()
    };
    let full = r#"{"is_good": true, "deep": [{"big/number": -9223372036854775808}], "ratio": 0.1, "title": "a\u00e9", "filed": "9999-12-31", "changed": "2014-11-06T03:00:00.123456+01:00", "parties": [1, {"a": 2.50}]}"#;
    let odd = r#"{"is_good": null, "deep": [], "ratio": -3, "title": "", "filed": "soon", "changed": "1969-12-31T23:59:59.999999", "parties": null}"#;
    write("spec.toml", TYPED);
    let ran = run(&(line("g", 1, full) + &line("g", 2, odd) + &line("h", 3, "[]")), &["spec.toml"]);
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let script = "
import sys, pyarrow.parquet as parquet
table = parquet.read_table(sys.argv[1])
print(table.schema.remove_metadata().to_string().replace('\\n', '; '))
for row in table.to_pylist():
    print([str(value) for value in row.values()])
";
    let read = |file: &str| {
        let file = folder.path().join(file);
        let read = Command::new(&python).args(["-c", script]).arg(&file).output().unwrap();
        assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
        String::from_utf8(read.stdout).unwrap().lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let schema = "number: int64 not null; at: timestamp[us, tz=UTC]; is_good: bool; big: int64; ratio: double; title: string; \
                  filed: date32[day]; changed: timestamp[us, tz=UTC]; parties: string; all: string not null";
    let epoch = "'1970-01-01 00:00:05+00:00'";
    let rows = [
        format!(
            "['1', {epoch}, 'True', '-9223372036854775808', '0.1', 'a\u{e9}', '9999-12-31', \
             '2014-11-06 02:00:00.123456+00:00', '[1, {{\"a\": 2.50}}]', '{}'",
            full.replace('\\', "\\\\")
        ),
        format!(
            "['2', {epoch}, 'None', 'None', '-3.0', '', 'None', '1969-12-31 23:59:59.999999+00:00', 'None', '{odd}'"
        ),
        format!("['3', {epoch}, 'None', 'None', 'None', 'None', 'None', 'None', 'None', '[]'"),
    ];
    assert_eq!(read("out/o/g.parquet"), [schema.to_owned(), format!("{}]", rows[0]), format!("{}]", rows[1])]);
    let all = || {
        let groups = ["g", "g", "h"];
        let mut lines = vec![format!("{schema}; group: string not null")];
        lines.extend(rows.iter().zip(groups).map(|(row, group)| format!("{row}, '{group}']")));
        lines
    };
    assert_eq!(read("out/o.parquet"), all());
    let verify = || bulk(["export", "--verify", "--out", "out"]).current_dir(&folder).assert().success();
    verify();

    // What does not fit is named, and nothing is published.
    let ran = run(&line("h", 4, r#"{"title": 7}"#), &[]);
    let said = String::from_utf8(ran.stderr).unwrap();
    assert!(!ran.status.success());
    let named = "o/h.tar.gz: item \"4\": 7 does not fit into the column \"title\"";
    assert!(said.contains(named) && said.contains("unfit = \"null\""), "{said}");
    assert_eq!(read("out/o.parquet"), all());
    verify();

    // Other columns make all files anew, without a change of any item; who has no spec leaves them.
    write("spec.toml", &TYPED.replace("name = \"number\", type = \"bigint\"", "name = \"number\", type = \"text\""));
    assert!(run("", &["spec.toml"]).status.success());
    assert!(read("out/o.parquet")[0].starts_with("number: string not null; at: "));
    assert!(read("out/o/h.parquet")[0].starts_with("number: string not null; at: "));
    assert!(run(&line("h", 5, "{}"), &[]).status.success());
    assert!(read("out/o/h.parquet")[0].starts_with("number: string not null; at: "));
    verify();
    fs::remove_dir_all(folder.path().join("out/.bulk")).unwrap();
    bulk(["export", "--rebuild-index", "--out", "out"]).current_dir(&folder).assert().success();
    assert!(read("out/o.parquet")[0].starts_with("number: string not null; at: "));
    verify();
}
