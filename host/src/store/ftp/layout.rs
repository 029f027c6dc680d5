//! What stands where on the server, and the steps of publishing and reading. Each can be repeated from
//! its start on another connection, wherever it broke.

use std::path::Path;

use tokio::fs::File;

use super::{
    connection::{Connection, Sink, Source},
    fault::{Fault, Refusal},
};
use crate::{
    function::{Lane, Location, PushId, Version, manifest::MAX_MANIFEST_BYTES},
    store::{Commit, GONE, MANIFEST, PACKAGE, STAGING, StoreError, push_of},
};

/// The paths of a store.
#[derive(Debug)]
pub(super) struct Layout {
    /// The store's folder, without a slash at its end.
    root: String,
}

/// What stands where a version should go.
enum Found {
    /// The push itself.
    Ours,
    /// Something else.
    Other,
    Nothing,
}

impl Layout {
    pub(super) fn new(root: &str) -> Self {
        Self { root: root.to_owned() }
    }

    pub(super) fn root(&self) -> &str {
        if self.root.is_empty() { "/" } else { &self.root }
    }

    pub(super) fn staging(&self) -> String {
        format!("{}/{STAGING}", self.root)
    }

    fn staged(&self, push: PushId) -> String {
        format!("{}/{STAGING}/{push}", self.root)
    }

    pub(super) fn lane(&self, lane: &Lane) -> String {
        format!("{}/{lane}", self.root)
    }

    pub(super) fn version(&self, lane: &Lane, version: Version) -> String {
        format!("{}/{lane}/{version}", self.root)
    }

    pub(super) fn function(&self, at: &Location) -> String {
        format!("{}/{at}", self.root)
    }

    /// Uploads both files into a fresh staging folder and checks their sizes.
    pub(super) async fn stage(
        &self,
        c: &mut Connection,
        push: PushId,
        package: &Path,
        manifest: &[u8],
    ) -> Result<(), Fault> {
        let mut file = File::open(package).await?;
        let folder = self.make_staged(c, push).await?;
        let size = c.upload(&format!("{folder}/{PACKAGE}"), Source::File(&mut file)).await?;
        c.upload(&format!("{folder}/{MANIFEST}"), Source::Memory(manifest)).await?;
        for (name, sent) in [(PACKAGE, size), (MANIFEST, manifest.len() as u64)] {
            let found = c.size(&folder, name).await?;
            if found != Some(sent) {
                let text = format!("{folder}/{name}: {sent} bytes were sent, {found:?} are there");
                return Err(Fault::Final(StoreError::Unusable(text)));
            }
        }
        Ok(())
    }

    async fn make_staged(&self, c: &mut Connection, push: PushId) -> Result<String, Fault> {
        let folder = self.staged(push);
        if c.make_folder(&folder).await?.is_err() {
            // It is the first push of all, or an earlier try left something.
            c.make_folders(&self.staging()).await?;
            self.clear(c, push).await?;
            c.make_folder(&folder).await?.map_err(Fault::Refused)?;
        }
        Ok(folder)
    }

    /// Renames the staged folder to `at`.
    pub(super) async fn commit(&self, c: &mut Connection, push: PushId, at: &Location) -> Result<Commit, Fault> {
        let (from, to) = (self.staged(push), self.function(at));
        let parent = self.version(&at.lane, at.version);
        // Mostly it is there, and then this is refused; if it is for another reason, the rename is too.
        let _ = c.make_folder(&parent).await?;
        let Err(refusal) = c.rename(&from, &to).await? else { return Ok(Commit::Done) };
        if let Some(commit) = self.outcome(c, push, &to).await? {
            return Ok(commit);
        }
        if c.read(&format!("{from}/{MANIFEST}"), MAX_MANIFEST_BYTES).await?.is_none() {
            return Err(Fault::Final(StoreError::Damaged(format!("staged push {push}"))));
        }
        // Nothing is there, and what should be renamed is: the lane is new, or another server took the
        // number between the rename and the look.
        tracing::debug!(refusal = refusal.text(), "the store refused a rename");
        c.make_folders(&parent).await?;
        let Err(refusal) = c.rename(&from, &to).await? else { return Ok(Commit::Done) };
        self.outcome(c, push, &to).await?.ok_or(Fault::Refused(refusal))
    }

    /// How a rename ended that was refused, judged by the target alone: the servers' codes differ, and
    /// an earlier rename of the same push may have worked.
    async fn outcome(&self, c: &mut Connection, push: PushId, target: &str) -> Result<Option<Commit>, Fault> {
        Ok(match self.look(c, push, target).await? {
            Found::Ours => Some(Commit::Done),
            Found::Other => Some(Commit::Taken),
            Found::Nothing => None,
        })
    }

    async fn look(&self, c: &mut Connection, push: PushId, folder: &str) -> Result<Found, Fault> {
        match c.read(&format!("{folder}/{MANIFEST}"), MAX_MANIFEST_BYTES).await? {
            Some(manifest) if push_of(&manifest) == Some(push) => Ok(Found::Ours),
            Some(_) => Ok(Found::Other),
            // Something that is no version of ours has the number.
            None if c.is_folder(folder).await? => Ok(Found::Other),
            None => Ok(Found::Nothing),
        }
    }

    /// Removes what is staged of a push: first out of the way of a rename that is still to come, then
    /// for good.
    pub(super) async fn clear(&self, c: &mut Connection, push: PushId) -> Result<(), Fault> {
        let staged = self.staged(push);
        let gone = format!("{staged}{GONE}");
        if c.rename(&staged, &gone).await?.is_err() {
            // Nothing is staged, or an earlier try got as far as this.
            remove_folder(c, &gone).await?;
            if c.rename(&staged, &gone).await?.is_err() {
                return remove_folder(c, &staged).await;
            }
        }
        remove_folder(c, &gone).await
    }

    /// Downloads a package into an empty file.
    pub(super) async fn fetch(&self, c: &mut Connection, at: &Location, size: u64, to: &mut File) -> Result<(), Fault> {
        let damaged = |what: String| Fault::Final(StoreError::Damaged(format!("package of {at}: {what}")));
        let path = format!("{}/{PACKAGE}", self.function(at));
        match c.download("RETR", &path, size, Sink::File(to)).await {
            Ok(count) if count == size => Ok(()),
            Ok(count) => Err(damaged(format!("it has {count} bytes, not {size}"))),
            Err(Fault::Refused(refusal)) if refusal.is_missing() => Err(damaged(refusal.text())),
            Err(other) => Err(other),
        }
    }

    /// Renames two staged folders onto one target; the second rename must fail.
    pub(super) async fn probe(&self, c: &mut Connection, pushes: [PushId; 3]) -> Result<(), Fault> {
        c.make_folders(&self.staging()).await?;
        for push in pushes {
            self.clear(c, push).await?;
        }
        let verdict = self.probe_with(c, pushes).await?;
        for push in pushes {
            let cleared = self.clear(c, push).await;
            // A store that fails the probe may fail here too: the verdict is what matters then.
            if verdict.is_ok() {
                cleared?;
            }
        }
        verdict.map_err(|text| Fault::Final(StoreError::Unusable(text)))
    }

    async fn probe_with(&self, c: &mut Connection, [a, b, target]: [PushId; 3]) -> Result<Result<(), String>, Fault> {
        for push in [a, b] {
            let folder = self.make_staged(c, push).await?;
            c.upload(&format!("{folder}/{MANIFEST}"), Source::Memory(push.to_string().as_bytes())).await?;
        }
        let to = self.staged(target);
        if let Err(refusal) = c.rename(&self.staged(a), &to).await? {
            return Ok(Err(format!("it does not rename folders: {}", refusal.text())));
        }
        let second = c.rename(&self.staged(b), &to).await?;
        let kept =
            |found: Option<Vec<u8>>, push: PushId| found.is_some_and(|bytes| bytes == push.to_string().as_bytes());
        let first_there = kept(c.read(&format!("{to}/{MANIFEST}"), MAX_MANIFEST_BYTES).await?, a);
        let second_there = kept(c.read(&format!("{}/{MANIFEST}", self.staged(b)), MAX_MANIFEST_BYTES).await?, b);
        Ok(match second {
            Err(Refusal { .. }) if first_there && second_there => Ok(()),
            _ => Err(
                "its rename onto a folder that holds something does not fail, so two servers could publish the same \
                      version: use another FTP server"
                    .into(),
            ),
        })
    }
}

/// Removes a folder and the files in it; that there is none is no error.
async fn remove_folder(c: &mut Connection, folder: &str) -> Result<(), Fault> {
    for name in [PACKAGE, MANIFEST] {
        c.remove_file(&format!("{folder}/{name}")).await?;
    }
    let Err(refusal) = c.remove_folder(folder).await? else { return Ok(()) };
    if !c.is_folder(folder).await? {
        return Ok(());
    }
    tracing::debug!(refusal = refusal.text(), "a staging folder holds more than it should");
    for name in c.names(folder).await? {
        if name != "." && name != ".." && !name.chars().any(char::is_control) {
            c.remove_file(&format!("{folder}/{name}")).await?;
        }
    }
    match c.remove_folder(folder).await? {
        Err(refusal) if c.is_folder(folder).await? => Err(Fault::Refused(refusal)),
        _ => Ok(()),
    }
}
