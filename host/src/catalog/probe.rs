//! Finding the newest version in the store without walking it.

use std::sync::Arc;

use super::{
    CatalogError, Inner, Newest,
    flights::Flight,
    memory::{Line, newer},
    shelf,
};
use crate::{
    function::{FunctionRef, Version},
    store::StoreError,
};

/// How far below a damaged newest version a usable one is looked for.
const DAMAGED_IN_A_ROW: u32 = 16;

impl Inner {
    /// The newest version of a line, or of a major of it, as of a moment ago.
    pub(super) async fn newest_in_store(self: &Arc<Self>, line: &Line, major: Option<u32>) -> Newest {
        match self.memory.probe(line, major, self.settings.missing) {
            Some(probe) => Ok(probe.newest),
            None => self.join_probe(line.clone(), major).await.unwrap_or(Err(CatalogError::Ended)),
        }
    }

    pub(super) fn join_probe(self: &Arc<Self>, line: Line, major: Option<u32>) -> Flight<Newest> {
        self.probes.join((line.clone(), major), &self.end, || self.clone().probe(line, major))
    }

    /// Finds the newest version of a line, or of a major of it: what the database and memory know, and
    /// what the store has beyond that.
    async fn probe(self: Arc<Self>, line: Line, major: Option<u32>) -> Newest {
        let database = self.ask(self.database.newest(&line.name, &line.lane, major)).await.ok().flatten();
        let known = newer(database.map(Arc::new), self.memory.newest(&line, major));
        match self.forward(&line, major, known.as_ref().map(|it| it.location.version)).await {
            Ok(found) => {
                let newest = newer(known, found.iter().max_by_key(|it| it.location.version).cloned());
                self.keep(found).await;
                self.memory.probed(line, major, newest.clone());
                self.store_health.answered();
                Ok(newest)
            }
            Err(error) => {
                let error = Arc::new(error);
                self.store_failed(&error);
                Err(CatalogError::Store(error))
            }
        }
    }

    /// The versions that were read on the way from `known` to the newest in the store; the newest that can
    /// be used is among them, if it is newer than `known`.
    async fn forward(
        &self,
        line: &Line,
        major: Option<u32>,
        known: Option<Version>,
    ) -> Result<Vec<Arc<FunctionRef>>, StoreError> {
        let mut found = Vec::new();
        let first = |major| Version { major, minor: 0 };
        let start = match (major, known) {
            (Some(_), Some(known)) => known,
            (Some(major), None) if self.exists(line, first(major), &mut found).await? => first(major),
            (Some(_), None) => return Ok(found),
            (None, known) => {
                let from = known.map_or(0, |known| known.major);
                let top = self.climb(line, from, first, &mut found).await?;
                match known {
                    _ if top > from => first(top),
                    Some(known) => known,
                    None => return Ok(found),
                }
            }
        };
        let at = |minor| Version { minor, ..start };
        let top = self.climb(line, start.minor, at, &mut found).await?;
        // The newest may be damaged; then the one before it is the newest that can be used.
        let lowest = start.minor.max(top.saturating_sub(DAMAGED_IN_A_ROW));
        for minor in (lowest..top).rev() {
            if found.iter().any(|it| it.location.version > at(minor)) {
                break;
            }
            self.exists(line, at(minor), &mut found).await?;
        }
        Ok(found)
    }

    /// Climbs to the greatest number whose version exists.
    async fn climb(
        &self,
        line: &Line,
        from: u32,
        at: impl Fn(u32) -> Version,
        found: &mut Vec<Arc<FunctionRef>>,
    ) -> Result<u32, StoreError> {
        let mut climb = Climb::new(from);
        while let Some(number) = climb.next() {
            climb.tell(number, self.exists(line, at(number), found).await?);
        }
        Ok(climb.there)
    }

    /// Whether the version is in the store; what can be used of it goes to `found`.
    async fn exists(
        &self,
        line: &Line,
        version: Version,
        found: &mut Vec<Arc<FunctionRef>>,
    ) -> Result<bool, StoreError> {
        match self.read(line, version).await? {
            shelf::Found::Nothing => Ok(false),
            shelf::Found::Damaged => Ok(true),
            shelf::Found::Version(function) => {
                found.push(function);
                Ok(true)
            }
        }
    }
}

/// The way to the greatest number that exists, where the first does and every number below one that
/// exists does too: the way is doubled until that is too far, and then halves of what is left. One that is
/// new costs two tries, none that is new one.
#[derive(Debug)]
struct Climb {
    from: u32,
    /// Exists.
    there: u32,
    /// Does not.
    beyond: Option<u32>,
    step: u32,
}

impl Climb {
    fn new(from: u32) -> Self {
        Self { from, there: from, beyond: None, step: 1 }
    }

    /// Which number to try, if any is left.
    fn next(&self) -> Option<u32> {
        match self.beyond {
            None => self.there.checked_add(self.step),
            Some(beyond) if beyond - self.there > 1 => Some(self.there + (beyond - self.there) / 2),
            Some(_) => None,
        }
    }

    fn tell(&mut self, number: u32, exists: bool) {
        if exists {
            self.step = number - self.from;
            self.there = number;
        } else {
            self.beyond = Some(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn climbs_to_the_top_in_few_steps() {
        for (from, top) in [(0, 0), (0, 1), (0, 2), (5, 5), (5, 6), (0, 1000), (7, 1000), (1, 999_999_999)] {
            let (mut climb, mut steps) = (Climb::new(from), 0);
            while let Some(number) = climb.next() {
                climb.tell(number, number <= top);
                steps += 1;
            }
            assert_eq!(climb.there, top);
            let most = match top - from {
                0 => 1,
                1 => 2,
                more => 2 + 2 * more.ilog2(),
            };
            assert!(steps <= most, "{steps} steps from {from} to {top}, {most} are enough");
        }
    }
}
