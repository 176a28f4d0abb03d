use std::fs::File;
use std::path::Path;

use bulk_core::{
    Digest, Expected, MultipartEtag, MultipartVerdict, Request, StagedFile, Sums, Verdict, VerifyOptions, verify_files,
};
use serde_json::json;

use crate::arguments::Fetch;
use crate::blocking::blocking;
use crate::exit::{Exit, Failure};
use crate::report::Report;

/// What files are compared with besides what their source says of them.
pub(super) struct Checks {
    sums: Option<Sums>,
    is_multipart: bool,
}

impl Checks {
    /// Reads the checksum lists.
    pub(super) fn new(fetch: &Fetch) -> Result<Self, Failure> {
        let mut sums: Option<Sums> = None;
        for path in &fetch.sums {
            let unusable = |error: bulk_core::Error| {
                let error = anyhow::Error::from(error);
                Failure::usage(format!("--sums {}: {error:#}", path.display()))
            };
            let list = Sums::open(path).map_err(unusable)?;
            match &mut sums {
                None => sums = Some(list),
                Some(sums) => sums.merge(list).map_err(unusable)?,
            }
        }
        Ok(Self { sums, is_multipart: fetch.check_multipart })
    }

    /// What a checksum list says of a file.
    pub(super) fn expected(&self, request: &Request) -> Option<Digest> {
        self.sums.as_ref().and_then(|sums| sums.get(&request.name).or_else(|| sums.get(&request.key)))
    }

    pub(super) async fn check(
        &self,
        request: &Request,
        staged: &StagedFile,
        folder: &Path,
        report: &Report,
    ) -> Result<(), Failure> {
        if self.sums.is_some() {
            match self.expected(request) {
                Some(expected) => compare(request, staged, folder, expected, report).await?,
                None => report.warn(format!("{}: no checksum list names it", request.name)),
            }
        }
        if self.is_multipart {
            multipart(request, staged, report).await?;
        }
        Ok(())
    }
}

async fn compare(
    request: &Request,
    staged: &StagedFile,
    folder: &Path,
    expected: Digest,
    report: &Report,
) -> Result<(), Failure> {
    // What an earlier run fetched may not be what it was then.
    let computed = staged.digests.iter().filter(|_| staged.fetched > 0);
    let found = match computed.copied().find(|digest| digest.algorithm() == expected.algorithm()) {
        Some(found) => found,
        None => {
            let (folder, name) = (folder.to_owned(), request.name.clone());
            let wanted = Expected { name, size: None, digest: Some(expected) };
            let verdict = blocking(move || {
                let files = verify_files(folder, [Ok(wanted)], VerifyOptions::default());
                files.map(|file| file?.verdict).next().transpose().map_err(Failure::from)
            })
            .await?;
            match verdict {
                Some(Verdict::DigestDiffers { found, .. }) => found,
                Some(Verdict::Ok) => expected,
                _ => return Err(differs(request, "it is gone")),
            }
        }
    };
    if found != expected {
        return Err(differs(request, &format!("its checksum list says {expected}, and it has {found}")));
    }
    let fields = json!({"file": request.name, "check": "sums", "digest": expected.to_string()});
    report.minor_event("checked", &format!("{}: as its checksum list says", request.name), fields);
    Ok(())
}

async fn multipart(request: &Request, staged: &StagedFile, report: &Report) -> Result<(), Failure> {
    let Some(tag) = staged.etag.as_ref().and_then(|etag| MultipartEtag::parse(etag, staged.size)) else {
        return Ok(());
    };
    let path = staged.path.clone();
    let verdict = blocking(move || {
        let read = File::open(&path).and_then(|file| tag.verify(file));
        read.map_err(|error| Failure::new(Exit::Failed, anyhow::anyhow!("cannot read {}: {error}", path.display())))
    })
    .await?;
    let name = &request.name;
    match verdict {
        MultipartVerdict::Matches { part_size } => {
            let fields = json!({"file": name, "check": "multipart", "part_size": part_size});
            report.minor_event("checked", &format!("{name}: as its ETag says, in parts of {part_size} bytes"), fields);
        }
        // It is no proof of a difference either.
        _ => report.warn(format!("{name}: its ETag is of parts of a size that cannot be guessed, and proves nothing")),
    }
    Ok(())
}

fn differs(request: &Request, what: &str) -> Failure {
    let name = &request.name;
    Failure::new(Exit::Differs, anyhow::anyhow!("{name} differs: {what}; remove it to have it fetched anew"))
}
