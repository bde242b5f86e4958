//! The inputs of [`super::Watch`] as a recording has them: a scan is what has changed since the one before.
//!
//! Only data. Rows are in order of their process, as a scan gives them.

use std::time::Duration;

use serde::ser::{SerializeStruct, Serializer};
use serde::{Deserialize, Serialize};

use super::{Remains, Row, Who};
use crate::clock::nanos;
use crate::sample::HostSample;

/// What [`super::Watch`] was given, borrowed.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Input<'a> {
    /// [`super::Watch::look`].
    Look(&'a HostSample, Option<Remains>),
    /// [`super::Watch::scan`].
    Scan(Changes<'a>),
    /// [`super::Watch::swept`].
    Swept,
}

/// A scan, and the one before it if the reader knows that.
#[derive(Clone, Copy, Debug)]
pub struct Changes<'a> {
    /// All rows of the scan before.
    pub before: Option<&'a [Row]>,
    /// All rows now.
    pub now: &'a [Row],
    /// What it took of a core to find out about them.
    pub cost: Duration,
}

/// Allocates nothing: what is written is found while it is written.
impl Serialize for Changes<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let before = self.before.unwrap_or_default();
        let known = |rows: &[Row], who| rows.binary_search_by_key(&who, |row| row.who);
        let is_new = |row: &&Row| known(before, row.who).ok().is_none_or(|at| before[at] != **row);
        let is_gone = |row: &&Row| known(self.now, row.who).is_err();
        let mut scan = to.serialize_struct("Scan", 4)?;
        scan.serialize_field("cost_ns", &nanos(self.cost))?;
        scan.serialize_field("all", &self.before.is_none())?;
        scan.serialize_field("changed", &Sequence(|| self.now.iter().filter(is_new)))?;
        scan.serialize_field("gone", &Sequence(|| before.iter().filter(is_gone).map(|row| row.who)))?;
        scan.end()
    }
}

struct Sequence<F>(F);

impl<I: IntoIterator<Item: Serialize>, F: Fn() -> I> Serialize for Sequence<F> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq((self.0)())
    }
}

/// An [`Input`] that owns what it says.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kept {
    /// [`super::Watch::look`].
    Look(HostSample, Option<Remains>),
    /// [`super::Watch::scan`], once applied to the rows of the scan before.
    Scan(Scan),
    /// [`super::Watch::swept`].
    Swept,
}

/// What a scan has changed.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Scan {
    /// Recordings of before have none.
    #[serde(default)]
    cost_ns: u64,
    all: bool,
    changed: Vec<Row>,
    gone: Vec<Who>,
}

impl Scan {
    /// What it took of a core.
    pub fn cost(&self) -> Duration {
        Duration::from_nanos(self.cost_ns)
    }

    /// Makes the rows of the scan before those of this one.
    pub fn apply(&self, rows: &mut Vec<Row>) {
        if self.all {
            rows.clear();
        }
        let is_old = |who: &Who| self.changed.iter().any(|row| row.who == *who) || self.gone.contains(who);
        rows.retain(|row| !is_old(&row.who));
        rows.extend(&self.changed);
        rows.sort_by_key(|row| row.who);
    }
}
