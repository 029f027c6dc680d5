//! What servers of one PostgreSQL tell each other.

use sea_orm::{
    DbBackend,
    sqlx::postgres::{PgListener, PgPoolOptions},
};
use uuid::Uuid;

use crate::{
    database::{Database, DatabaseError},
    function::InvocationId,
};

/// Something that another server, or this one, told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// There are jobs to run.
    Ready,
    /// Something has a time that is to be waited for.
    Later,
    /// A job was given up while this attempt ran.
    Cancel(InvocationId),
    /// The connection was lost and is back: anything may have been told meanwhile.
    Back,
}

/// Listens, on a connection of its own.
#[derive(Debug)]
pub struct Listener(PgListener);

impl Database {
    /// Begins to listen; none where there is nobody to listen to, as with SQLite.
    ///
    /// # Errors
    /// When the database can't be reached.
    pub async fn listen(&self) -> Result<Option<Listener>, DatabaseError> {
        if self.connection.get_database_backend() != DbBackend::Postgres {
            return Ok(None);
        }
        let options = self.connection.get_postgres_connection_pool().connect_options();
        let connect = async {
            // Not of the pool: it would hold a connection for ever, and there may be only one.
            let own = PgPoolOptions::new().max_connections(1).acquire_timeout(self.limit);
            let mut listener = PgListener::connect_with(&own.connect_lazy_with((*options).clone())).await?;
            listener.listen("sharpfaas_jobs").await?;
            Ok::<_, sea_orm::sqlx::Error>(listener)
        };
        match tokio::time::timeout(self.limit, connect).await {
            Ok(Ok(listener)) => Ok(Some(Listener(listener))),
            Ok(Err(error)) => Err(DatabaseError::Unavailable(error.to_string())),
            Err(_) => Err(DatabaseError::Unavailable("no answer in time".into())),
        }
    }
}

impl Listener {
    /// Waits for what is told next.
    ///
    /// # Errors
    /// When the connection is lost and can't be made again now.
    pub async fn next(&mut self) -> Result<Heard, DatabaseError> {
        loop {
            let told = self.0.try_recv().await.map_err(|error| DatabaseError::Unavailable(error.to_string()))?;
            let Some(told) = told else { return Ok(Heard::Back) };
            match told.payload() {
                "ready" => return Ok(Heard::Ready),
                "later" => return Ok(Heard::Later),
                text => {
                    let id = text.strip_prefix("cancel ").and_then(|id| Uuid::parse_str(id).ok());
                    // Other words are of a later program.
                    if let Some(id) = id {
                        return Ok(Heard::Cancel(InvocationId(id)));
                    }
                }
            }
        }
    }
}
