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
    run(&all.iter().map(|(line, _)| line.as_str()).collect::<String>(), &["--also", "jsonl.gz,jsonl.zst,parquet"]);
    check(folder.path(), &all);
    for id in [3, 9000] {
        all[id as usize] = line(id, 2);
    }
    run(&[3, 9000].map(|id| all[id].0.as_str()).concat(), &[]);
    check(folder.path(), &all);
    bulk(["export", "--verify", "--out", "out"]).current_dir(&folder).assert().success();
}

fn check(folder: &Path, all: &[(String, String)]) {
    let text: String = all.iter().map(|(_, item)| format!("{item}\n")).collect();
    let python = pyarrow::python(&std::env::temp_dir()).unwrap();
    for (program, codec, command) in READERS {
        if program != "pyarrow" && !is_there(program) {
            continue;
        }
        let file = folder.join(format!("out/o/g.jsonl.{codec}"));
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
print(file.num_row_groups, file.schema_arrow.to_string().replace('\\n', '; '))
for group in range(file.num_row_groups):
    print(file.metadata.row_group(group).column(0).statistics.min)
for row in parquet.read_table(sys.argv[1]).to_pylist():
    print(row['id'], int(row['modified'].timestamp()), row['json'])
";
    let file = folder.join("out/o/g.parquet");
    let read = Command::new(&python).args(["-c", script]).arg(&file).output().unwrap();
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    let read = String::from_utf8(read.stdout).unwrap();
    let mut lines = read.lines();
    let head = lines.next().unwrap();
    let (groups, schema) = head.split_once(' ').unwrap();
    let groups: usize = groups.parse().unwrap();
    let columns = "id: string not null; modified: timestamp[ms, tz=UTC]; json: string not null";
    assert_eq!((groups > 1, schema), (true, columns));
    let firsts: Vec<&str> = lines.by_ref().take(groups).collect();
    assert!(firsts[0] == "00000" && firsts.is_sorted(), "{firsts:?}");
    let expected: Vec<String> =
        (0..).zip(all).map(|(id, (_, item))| format!("{id:05} {} {item}", 1_400_000_000 + id)).collect();
    assert!(lines.eq(expected.iter().map(String::as_str)), "rows differ");
}
