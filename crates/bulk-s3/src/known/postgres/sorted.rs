use std::sync::Arc;

use bulk_pg::{Cause, Session};
use tokio_postgres::error::SqlState;

use super::merge::{Within, merge};
use super::pool::Pool;
use super::table::RowPolicy;
use super::target::{Target, Time};
use super::{failed, rows, unusable};
use crate::{Batch, Error, KeyRange, KnownChange};

/// A sorted copy of a table that no index sorts, once it is asked for.
#[derive(Debug, Default)]
pub(super) struct Sorted {
    copy: Option<Copy>,
}

/// It is there as long as the session.
#[derive(Debug)]
struct Copy {
    session: Session,
    target: Target,
}

const NAME: &str = "bulk_known_sorted";

impl Sorted {
    pub(super) async fn scan(
        &mut self,
        pool: &Arc<Pool>,
        source: &Target,
        range: &KeyRange,
        limit: usize,
        store: &str,
    ) -> Result<Batch, Error> {
        // Taken, so that a call that is dropped halfway leaves none of which nobody knows where it stands.
        let copy = match self.copy.take() {
            Some(copy) => copy,
            None => Copy::make(pool, source, store).await?,
        };
        let batch = rows::scan(copy.session.client(), &copy.target, range, limit, store).await?;
        self.copy = Some(copy);
        Ok(batch)
    }

    /// Makes the changes that the table has seen. A copy that cannot is let go; the next scan makes another.
    pub(super) async fn follow(&mut self, changes: &[KnownChange<'_>], store: &str) {
        let Some(copy) = self.copy.take() else { return };
        if merge(copy.session.client(), &copy.target, changes, Within::Own, store).await.is_ok() {
            self.copy = Some(copy);
        }
    }
}

impl Copy {
    async fn make(pool: &Arc<Pool>, source: &Target, store: &str) -> Result<Self, Error> {
        let session = pool.connect(store).await?;
        let client = session.client();
        let made = client.batch_execute(&source.copied(NAME)).await.map_err(Cause::from);
        made.map_err(|error| failed(store, "sort its rows", error))?;
        // In order already, so this is cheap.
        let indexed = client.batch_execute(&format!("CREATE UNIQUE INDEX ON pg_temp.{NAME} (key)")).await;
        indexed.map_err(|error| {
            // "Key (key)=(…) is duplicated."
            let detail = error.as_db_error().filter(|answer| *answer.code() == SqlState::UNIQUE_VIOLATION);
            match detail.and_then(|answer| answer.detail()) {
                Some(detail) => unusable(
                    store,
                    format!(
                        "{} has several rows of a key ({detail}), so nobody can say which ETag is right; delete all but one, or name a view that shows one of them",
                        source.shown
                    ),
                ),
                None => failed(store, "sort its rows", Cause::from(error)),
            }
        })?;
        let time = |column: &str| Time { column: column.to_owned(), is_plain: false };
        let target = Target {
            name: format!("pg_temp.{NAME}"),
            shown: source.shown.clone(),
            key: "key".to_owned(),
            order: "o.key".to_owned(),
            equal: "o.key".to_owned(),
            bucket: None,
            etag: "etag".to_owned(),
            size: source.size.as_ref().map(|_| "size".to_owned()),
            last_modified: source.last_modified.as_ref().map(|_| time("last_modified")),
            seen_at: None,
            content: source.content.as_ref().map(|_| "content".to_owned()),
            rows: source.rows,
            arbiter: Some("key".to_owned()),
            is_ours: source.rows == RowPolicy::InsertAndDelete,
            is_indexed: true,
            missing_index: None,
            can_be_sampled: false,
        };
        Ok(Self { session, target })
    }
}
