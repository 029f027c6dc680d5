//! The store: what every backend must do, and what only an FTP server can do to it.

use std::{any::Any, path::PathBuf, sync::Arc};

use sharpfaas_host::{
    config::{Secret, StoreConfig, StoreUrl},
    store::{self, FunctionStore},
};
use tempfile::TempDir;

pub mod conformance;
mod ftp;

/// A store to test, and the local folder in which it is.
pub struct Backend {
    pub config: StoreConfig,
    pub password: Option<Secret>,
    pub path: PathBuf,
    /// Ends with the test.
    pub _guard: Box<dyn Any + Send>,
}

impl Backend {
    /// A store object of its own, with connections of its own.
    pub fn open(&self) -> Arc<dyn FunctionStore> {
        store::open(&self.config, self.password.clone()).expect("the store opens")
    }
}

mod dir {
    use super::*;

    async fn start() -> Option<Backend> {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("some/store");
        let config = StoreConfig { url: StoreUrl::File(path.clone()), ..StoreConfig::default() };
        Some(Backend { config, password: None, path, _guard: Box::new(folder) })
    }

    conformance::conformance!(start);
}
