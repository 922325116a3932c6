//! The sinks of a line, each behind a queue of its own.
//!
//! Always: a store that cannot be reached is tried again while falaj runs, unless a table of it has to
//! be made anew.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use falaj_record::{Reject, ViewUpdate};
use falaj_sinks::{
    Limits, Outlet, OutletState, OutletStatus, Pending, Place, Places, Sink, SinkConfig, SinkError,
    Terms,
};

use super::{Kept, SINK};
use crate::data_dir::DataDir;
use crate::failure::{Failure, Fault};
use crate::plan::Plan;

/// The sinks of a line, each behind its own queue.
pub struct Outlets(Vec<Arc<Outlet>>);

impl Outlets {
    /// Opens the sinks; tables of views that are computed again are made anew. A store that cannot be
    /// reached is tried again while falaj runs, unless a table of it has to be made anew.
    ///
    /// # Errors
    /// Where a sink cannot be used, or two of them write to the same store.
    pub(super) async fn open(
        plan: &Plan,
        dir: &DataDir,
        kept: &Kept,
        offered: &Place,
        terms: &Terms,
    ) -> Result<Self, Failure> {
        let places = Places {
            pipeline: &plan.folder,
            data: dir.path(),
        };
        let mut stores = BTreeMap::new();
        for (name, config) in &plan.config.sinks {
            if let Some(other) = stores.insert(config.store(places), name) {
                return Err(Failure::usage(
                    Fault::new(format!(
                        "sinks `{other}` and `{name}` write to the same store"
                    ))
                    .hint("give one of them another store, or name all views in one sink"),
                ));
            }
        }
        let mut sinks = Vec::new();
        for (name, config) in &plan.config.sinks {
            let sink = config.sink(places, terms);
            sinks.push((name, config, sink.map_err(|e| in_sink(name, &e))?));
        }
        if !plan.rebuild.is_empty() {
            // All of them are reached before the first loses a table: closed windows may be nowhere else.
            let reaching = sinks.iter_mut().map(async |(name, _, sink)| {
                let reached = sink.inspect(&[]).await;
                reached.map_err(|e| in_sink(name, &e))
            });
            futures::future::try_join_all(reaching).await?;
        }
        let opening = sinks
            .into_iter()
            .map(|(name, config, sink)| open_sink(plan, name, config, sink, kept, offered));
        let outlets = futures::future::try_join_all(opening).await?;
        Ok(Self(outlets))
    }

    /// Offers updates of the records up to `to` to all sinks.
    pub(super) fn offer(&self, updates: &[ViewUpdate], to: &Place) -> Result<(), Failure> {
        for outlet in &self.0 {
            outlet
                .offer(updates.to_vec(), to.clone())
                .map_err(|e| Failure::stage(&e))?;
        }
        Ok(())
    }

    /// Sinks that found tables empty since the last call, with the views.
    pub(super) fn take_owed(&self) -> Vec<(Arc<Outlet>, BTreeSet<String>)> {
        let owed = |outlet: &Arc<Outlet>| (Arc::clone(outlet), outlet.take_owed());
        let all = self.0.iter().map(owed);
        all.filter(|(_, views)| !views.is_empty()).collect()
    }

    pub(super) fn take_refused(&self) -> Vec<Reject> {
        self.0.iter().flat_map(|o| o.take_refused()).collect()
    }

    /// Waits until the sinks have everything, but not longer than `patience`; says whether they do.
    pub async fn drained(&self, patience: Duration) -> bool {
        let all = futures::future::join_all(self.0.iter().map(|outlet| outlet.drained()));
        let drained = tokio::time::timeout(patience, all).await;
        drained.is_ok_and(|all| all.iter().all(Result::is_ok))
    }

    /// Rows that all sinks have acknowledged or that their stores refused.
    pub fn done_rows(&self) -> u64 {
        let statuses = self.0.iter().map(|outlet| outlet.status());
        statuses.map(|s| s.written_rows + s.refused_rows).sum()
    }

    /// What the sinks that do not have everything say of it.
    pub fn undone(&self) -> Vec<OutletStatus> {
        let statuses = self.0.iter().map(|outlet| outlet.status());
        statuses
            .filter(|s| s.pending_rows > 0 || s.behind || s.state == OutletState::Starting)
            .collect()
    }

    /// What each sink has not acknowledged, for the checkpoint.
    pub(super) fn pending(&self) -> Result<BTreeMap<String, Vec<u8>>, Failure> {
        let blob = |outlet: &Arc<Outlet>| {
            let bytes = outlet
                .pending()
                .to_bytes()
                .map_err(|e| Failure::stage(&e))?;
            Ok((format!("{SINK}{}", outlet.name()), bytes))
        };
        self.0.iter().map(blob).collect()
    }

    /// Handles that outlive the line, for the reporter.
    pub fn handles(&self) -> Vec<Arc<Outlet>> {
        self.0.clone()
    }

    pub(super) async fn close(&self) {
        for outlet in &self.0 {
            outlet.close().await;
        }
    }
}

async fn open_sink(
    plan: &Plan,
    name: &str,
    config: &SinkConfig,
    mut sink: Box<dyn Sink>,
    kept: &Kept,
    offered: &Place,
) -> Result<Arc<Outlet>, Failure> {
    let infos = plan.views.info();
    let taken = infos.iter().filter(|view| config.views().takes(&view.name));
    let views: Vec<_> = taken.cloned().collect();
    let mut resumed = views.clone();
    resumed.retain(|view| !plan.rebuild.contains(&view.name));
    let pending = kept
        .blob(&format!("{SINK}{name}"))
        .map(|bytes| Pending::from_bytes(bytes, &resumed))
        .transpose()
        .map_err(|e| in_sink(name, &e))?;
    // Where nothing says what this sink was given it gets everything: it is new here, was left out
    // for a while, has got another name, or takes more views than it did.
    let pending = pending.unwrap_or_default();
    let anew = plan.rebuild.iter().filter(|v| config.views().takes(v));
    for view in anew {
        sink.drop_view(view).await.map_err(|e| in_sink(name, &e))?;
    }
    let prepared = match sink.prepare(&views).await {
        Ok(prepared) => Some(prepared),
        Err(e) if e.passing() => {
            crate::stdio::warn(&fault_in_sink(name, &e));
            None
        }
        Err(e) => return Err(in_sink(name, &e)),
    };
    let (place, limits) = (offered.clone(), Limits::default());
    let outlet = Outlet::new(name, sink, views, prepared, place, pending, limits);
    Ok(Arc::new(outlet))
}

fn in_sink(name: &str, error: &SinkError) -> Failure {
    Failure::run(fault_in_sink(name, error))
}

fn fault_in_sink(name: &str, error: &SinkError) -> Fault {
    let mut fault = Fault::from_error(error);
    fault.message = format!("sink `{name}`: {}", fault.message);
    fault
}
