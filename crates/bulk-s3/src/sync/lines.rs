use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;
use serde_json::value::RawValue;

use super::lock;
use super::sink::{Refusal, Sink, SinkBatch};
use crate::{Error, KnownObjects};

/// Objects as lines of NDJSON, such as to stdout: `{"key":…,"etag":…,"size":…,"body":…}`, where the body is what the object
/// has, if that is JSON, and else `"body_base64":…` is a text. Line feeds between the tokens of a body become spaces;
/// otherwise it is as it was. What is removed is `{"key":…,"removed":true}`. Of an object that has the content that was
/// known there is none.
///
/// Lines are flushed before they are marked known; whoever reads them has to see that they last. A run that was ended between
/// both writes them again in the next one.
#[derive(Debug)]
pub struct LinesSink<W> {
    writer: Arc<Mutex<W>>,
    name: String,
}

impl<W: Write + Send + 'static> LinesSink<W> {
    /// A sink that writes into this, in tokio's threads for blocking calls. The name is what errors and checkpoints call it,
    /// such as `stdout`.
    pub fn new(writer: W, name: impl Into<String>) -> Self {
        Self { writer: Arc::new(Mutex::new(writer)), name: name.into() }
    }
}

#[async_trait]
impl<W: Write + Send + 'static> Sink for LinesSink<W> {
    async fn store(&self, batch: &SinkBatch, known: &dyn KnownObjects) -> Result<Vec<Refusal>, Error> {
        let writer = Arc::clone(&self.writer);
        // Objects are in memory anyway, so their lines may be, too.
        let lines = lines(batch);
        let writing = tokio::task::spawn_blocking(move || {
            let mut writer = lock(&writer);
            writer.write_all(&lines)?;
            writer.flush()
        });
        let written = match writing.await {
            Ok(written) => written,
            Err(lost) => match lost.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is going down, and this task with it.
                Err(_) => std::future::pending().await,
            },
        };
        written.map_err(|source: io::Error| Error::Sink {
            sink: self.name.clone(),
            what: "cannot be written to".to_owned(),
            source: Some(Box::new(source)),
        })?;
        let mut refusals = Vec::new();
        batch.mark(known, &mut refusals).await?;
        Ok(refusals)
    }

    fn identity(&self) -> String {
        self.name.clone()
    }
}

fn lines(batch: &SinkBatch) -> Vec<u8> {
    let mut lines = Vec::new();
    for key in &batch.removed {
        lines.extend_from_slice(format!("{{\"key\":{},\"removed\":true}}\n", Value::from(key.as_str())).as_bytes());
    }
    for object in &batch.objects {
        let bytes = object.bytes();
        let etag = object.etag.as_ref().map(|etag| etag.as_str());
        let (key, etag) = (Value::from(object.key.as_str()), Value::from(etag));
        lines.extend_from_slice(format!("{{\"key\":{key},\"etag\":{etag},\"size\":{},", bytes.len()).as_bytes());
        match serde_json::from_slice::<&RawValue>(bytes) {
            Ok(body) => {
                lines.extend_from_slice(b"\"body\":");
                // A text of JSON has them only as escapes.
                lines.extend(body.get().bytes().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte }));
            }
            Err(_) => {
                lines.extend_from_slice(b"\"body_base64\":\"");
                lines.extend_from_slice(BASE64_STANDARD.encode(bytes).as_bytes());
                lines.push(b'"');
            }
        }
        lines.extend_from_slice(b"}\n");
    }
    lines
}
