//! Machine code on disk: kept under a seal, loaded only when the seal is right.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Seek, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use super::{
    ArtifactError,
    folder::{Folder, open_plain, remove},
};
use crate::function::Digest;

fn sealed_name(component: &Digest, compatibility: &str) -> String {
    format!("code/{component}-{compatibility}")
}

/// The machine code of a component, where this server has it. What is not as it was written is
/// dropped, and is then not there.
pub(super) fn find(folder: &Folder, component: &Digest, compatibility: &str) -> Result<Option<File>, ArtifactError> {
    let (code, seal) = folder.code(component, compatibility);
    match open_sealed(folder, &code, &seal, &sealed_name(component, compatibility)) {
        Ok(Some(file)) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound && !code.exists() => Ok(None),
        Ok(None) => {
            tracing::warn!("dropping the machine code {}: it is not what this server wrote", code.display());
            discard(folder, component, compatibility).map(|()| None)
        }
        Err(error) => {
            tracing::warn!("dropping the machine code {}: {error}", code.display());
            discard(folder, component, compatibility).map(|()| None)
        }
    }
}

fn open_sealed(folder: &Folder, code: &Path, seal: &Path, name: &str) -> io::Result<Option<File>> {
    let mut file = open_plain(code)?;
    let seal = fs::read(seal)?;
    // This very file is handed on, so what was looked at is what is loaded.
    let sealed = folder.is_sealed(name, &mut file, &seal)?;
    file.rewind()?;
    Ok(sealed.then_some(file))
}

/// Seals what the compiler wrote into `made`, and moves it into its place.
pub(super) fn install(
    folder: &Folder,
    made: &Path,
    component: &Digest,
    compatibility: &str,
) -> Result<(), ArtifactError> {
    let failed = || ArtifactError::local("putting machine code into its place");
    let mut bytes = open_plain(made).map_err(failed())?;
    let tag = folder.seal(&sealed_name(component, compatibility), &mut bytes).map_err(failed())?;
    let made_seal = made.with_extension("seal");
    let (code, seal) = folder.code(component, compatibility);
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(&made_seal).map_err(failed())?;
    file.write_all(&tag).map_err(failed())?;
    // The seal first: code without its seal would be dropped again.
    fs::rename(&made_seal, seal).and_then(|()| fs::rename(made, code)).map_err(failed())
}

/// Removes machine code; none there is fine.
pub(super) fn discard(folder: &Folder, component: &Digest, compatibility: &str) -> Result<(), ArtifactError> {
    let (code, seal) = folder.code(component, compatibility);
    remove(&code).and_then(|()| remove(&seal)).map_err(ArtifactError::local("dropping machine code"))
}
