use std::ops::ControlFlow;
use std::sync::Arc;

use bulk_core::{Manifest, Verdict, Verified, VerifyOptions, verify_folder};
use serde_json::json;

use super::plan::MANIFEST;
use crate::arguments::{Common, Fetch};
use crate::blocking::blocking;
use crate::counted::counted;
use crate::exit::{Exit, Failure};
use crate::progress::Progress;
use crate::report::{Report, size};

/// Checks the files of a folder against its manifest.
pub(super) async fn run(fetch: &Fetch, common: &Common, report: &Report) -> Result<Exit, Failure> {
    let path = fetch.out.join(MANIFEST);
    let sum = blocking(move || {
        let manifest = Manifest::open(path)?;
        Ok(manifest.map(|entry| entry.map(|entry| entry.size)).sum::<Result<u64, _>>()?)
    });
    let Some(sum) = common.stop.run_until_cancelled(sum).await else { return Ok(Exit::Interrupted) };
    let total = sum?;
    let progress = Progress::start_verification(report, total);
    let mut options = VerifyOptions::default();
    let totals = report.totals().clone();
    options.observer = Arc::new(move |event: &bulk_core::Event<'_>| {
        if let bulk_core::Event::Progress { name, bytes } = event {
            totals.add_fetched_of(name, *bytes);
        }
    });
    let (folder, speaker) = (fetch.out.clone(), report.clone());
    let verified = blocking(move || {
        let mut found = Found::default();
        for file in verify_folder(folder, options)? {
            if let ControlFlow::Break(failure) = found.add(file?, &speaker) {
                return Err(failure);
            }
        }
        Ok(found)
    });
    // What is left of it ends with the program.
    let Some(found) = common.stop.run_until_cancelled(verified).await else { return Ok(Exit::Interrupted) };
    drop(progress);
    let Found { files, differing, unverifiable } = found?;
    if unverifiable > 0 {
        report.warn(format!(
            "{} no checksum in the manifest: only the size was compared",
            counted(unverifiable, "file has", "files have")
        ));
    }
    match differing {
        0 => report.note(format!("{}, {}: all are what they were", counted(files, "file", "files"), size(total))),
        _ => report.note(format!("{differing} of {} not what they were", counted(files, "file is", "files are"))),
    }
    Ok(if differing > 0 { Exit::Differs } else { Exit::Done })
}

#[derive(Default)]
struct Found {
    files: u64,
    differing: u64,
    unverifiable: u64,
}

impl Found {
    fn add(&mut self, file: Verified, report: &Report) -> ControlFlow<Failure> {
        let name = file.name;
        self.files += 1;
        let (word, text) = match file.verdict {
            Ok(Verdict::Ok) => ("ok", None),
            Ok(Verdict::Missing) => ("missing", Some("it is missing".to_owned())),
            Ok(Verdict::SizeDiffers { expected, found }) => {
                ("size", Some(format!("it has {}, and had {expected}", counted(found, "byte", "bytes"))))
            }
            Ok(Verdict::DigestDiffers { expected, found }) => {
                ("digest", Some(format!("its bytes differ: {found}, and was {expected}")))
            }
            // Without a digest, or something that nobody here knows to be right.
            Ok(_) => {
                self.unverifiable += 1;
                ("unverifiable", None)
            }
            Err(error @ bulk_core::Error::Interrupted { .. }) => return ControlFlow::Break(error.into()),
            Err(error) => ("error", Some(format!("{:#}", anyhow::Error::from(error)))),
        };
        let fields = json!({"file": name, "verdict": word});
        match text {
            Some(text) => {
                self.differing += 1;
                report.found(&format!("{name}: {text}"), fields);
            }
            None => report.minor_event("check", &format!("{name}: {word}"), fields),
        }
        ControlFlow::Continue(())
    }
}
