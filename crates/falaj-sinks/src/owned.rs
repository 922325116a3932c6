//! A sink whose tables are one owner's.
//!
//! Always: rows that somebody else wrote are never added to. A store outlives topic, key and
//! checkpoints: what an earlier life of the pipeline left there (after a reset, or with another data
//! directory) would stand beside the rows of this one, with people under other pids.

use std::sync::Arc;

use async_trait::async_trait;
use falaj_record::{ViewInfo, ViewUpdate};

use crate::{Inspection, Prepared, Sink, SinkError, Written};

/// A sink that writes to tables of one owner only.
pub struct Owned {
    sink: Box<dyn Sink>,
    owner: String,
}

impl Owned {
    /// `owner` names, in a few printable ASCII characters, what the rows are computed from.
    #[must_use]
    pub fn new(sink: Box<dyn Sink>, owner: String) -> Self {
        Self { sink, owner }
    }
}

#[async_trait]
impl Sink for Owned {
    fn kind(&self) -> &'static str {
        self.sink.kind()
    }

    async fn prepare(&mut self, views: &[Arc<ViewInfo>]) -> Result<Prepared, SinkError> {
        // A column that a view does not have is dropped with its values: not in others' tables.
        self.sink.refuse_foreign(views, &self.owner).await?;
        let prepared = self.sink.prepare(views).await?;
        self.sink.claim(views, &prepared.empty, &self.owner).await?;
        Ok(prepared)
    }

    async fn refuse_foreign(
        &mut self,
        views: &[Arc<ViewInfo>],
        owner: &str,
    ) -> Result<(), SinkError> {
        self.sink.refuse_foreign(views, owner).await
    }

    async fn claim(
        &mut self,
        views: &[Arc<ViewInfo>],
        empty: &[String],
        owner: &str,
    ) -> Result<(), SinkError> {
        self.sink.claim(views, empty, owner).await
    }

    async fn write(&mut self, updates: &[ViewUpdate]) -> Result<Written, SinkError> {
        self.sink.write(updates).await
    }

    async fn drop_view(&mut self, view: &str) -> Result<(), SinkError> {
        self.sink.drop_view(view).await
    }

    async fn erase(&mut self, pid: &str) -> Result<u64, SinkError> {
        self.sink.erase(pid).await
    }

    async fn expire(&mut self) -> Result<u64, SinkError> {
        self.sink.expire().await
    }

    async fn inspect(&mut self, views: &[Arc<ViewInfo>]) -> Result<Inspection, SinkError> {
        self.sink.inspect(views).await
    }

    async fn close(self: Box<Self>) -> Result<(), SinkError> {
        self.sink.close().await
    }
}
