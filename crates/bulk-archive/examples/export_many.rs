//! Exports many small items into a folder, then some changes of them, and prints what each took.
//!
//! `cargo run --release -p bulk-archive --features export --example export_many -- FOLDER ITEMS GROUPS CHANGES [BYTES [ALSO [WHOLE]]]`
//!
//! An item has about so many BYTES, if there are more than the fewest. ALSO is what stands beside each archive, WHOLE what stands
//! beside the type: `jsonl.gz`, `jsonl.zst`, `parquet`, several with commas between, or `none`.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    time::Instant,
};

use bulk_archive::{Error, ExportOptions, ExportSet, Published, Shape, UnknownShape};

#[expect(clippy::print_stdout, reason = "it is an example")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [folder, items, groups, changes, more @ ..] = arguments.as_slice() else {
        return Err("export_many FOLDER ITEMS GROUPS CHANGES [BYTES [ALSO [WHOLE]]]".into());
    };
    let (items, groups, changes): (u64, u64, u64) = (items.parse()?, groups.parse()?, changes.parse()?);
    let len: usize = more.first().map_or(Ok(0), |len| len.parse())?;
    let mut options = ExportOptions::default();
    options.shapes = more.get(1).map(|names| shapes(names)).transpose()?;
    options.whole_shapes = more.get(2).map(|names| shapes(names)).transpose()?;
    let mut set = ExportSet::open(folder, options)?;
    // In an order that is not that of ids, as rows of a table come.
    let all = (0..items).map(|at| at.wrapping_mul(7_368_787) % items);
    run("first export", &mut set, all.map(|id| (id, 0)), groups, len)?;
    run("changes", &mut set, (0..changes).map(|at| (at.wrapping_mul(104_729) % items, 1)), groups, len)?;
    run("the same changes", &mut set, (0..changes).map(|at| (at.wrapping_mul(104_729) % items, 1)), groups, len)?;
    for line in fs::read_to_string("/proc/self/status")?.lines().filter(|line| line.starts_with("VmHWM")) {
        println!("most memory: {line}");
    }
    Ok(())
}

fn shapes(names: &str) -> Result<BTreeSet<Shape>, UnknownShape> {
    names.split(',').filter(|name| *name != "none").map(str::parse).collect()
}

#[expect(clippy::print_stdout, reason = "it is an example")]
fn run(
    name: &str,
    set: &mut ExportSet,
    items: impl Iterator<Item = (u64, i64)>,
    groups: u64,
    len: usize,
) -> Result<Published, Error> {
    let begun = Instant::now();
    let mut stage = set.begin()?;
    for (id, version) in items {
        let (group, mtime) = (format!("court{}", id % groups), 1_400_000_000 + version);
        let mut json = format!(
            "{{\"id\": {id}, \"version\": {version}, \"case_name\": \"Number {} v. Number {}\", \"docket\": \"{:x}\"",
            id % 9_973,
            id % 7_919,
            id.wrapping_mul(0x9e37_79b9_7f4a_7c15)
        );
        if json.len() < len {
            json.push_str(", \"text\": \"");
            let mut word = id;
            while json.len() < len {
                word = word.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                json.push_str(&format!("{:x} ", word >> 44));
            }
            json.push('"');
        }
        json.push('}');
        stage.put("opinions", &group, &id.to_string(), mtime, json.as_bytes())?;
    }
    let staged = begun.elapsed();
    let published = stage.publish(&BTreeMap::new())?;
    println!(
        "{name}: staged in {:.1} s, all in {:.1} s: {published:?}",
        staged.as_secs_f64(),
        begun.elapsed().as_secs_f64()
    );
    Ok(published)
}
