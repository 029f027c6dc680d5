//! The tokens that this server knows: all of them, in memory, so that a request costs a look-up and no query.
//!
//! Each server follows the revision of the tokens in the database: once a second, and at the moment of a change
//! where the database can tell. It says there which revision it knows, so a change is not answered before every
//! server that is in touch with the database knows it. One that has lost touch for `stale_seconds` takes no
//! token any more; so a revoked token is good for nobody from the answer on, or, while a server is cut off, from
//! `stale_seconds` after that at the latest.

use std::{
    collections::HashMap,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use chrono::{DateTime, TimeDelta, Utc};
use ring::digest::{SHA256, digest};
use tokio::{runtime::Handle, sync::Mutex};
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use super::{Scopes, Token, TokenText, Verb, audit, token::NoRandomness};
use crate::{
    config::{Secret, seconds},
    database::{AuditEntry, Database, DatabaseError, TokenChange, TokenRow},
    function::{NameError, TokenName},
};

/// The name that the configuration's token has.
pub const CONFIGURED: &str = "configuration";
/// How many tokens there may be.
const MOST: usize = 10_000;
/// How often the revision is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How long a change waits for the other servers.
const SPREAD: Duration = Duration::from_secs(5);
/// The first pause between two looks at them; each is twice the last.
const SPREAD_PAUSE: Duration = Duration::from_millis(5);

/// Why a request is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unverified {
    /// It has no token.
    #[error("a token is needed: send 'Authorization: Bearer TOKEN'")]
    Missing,
    /// It has one that is none, was revoked, or has expired.
    #[error("the token is not valid: it is not known here, was revoked, or has expired")]
    Wrong,
    /// This server can't tell: it has not reached its database for too long.
    #[error("tokens cannot be checked now, because the database cannot be reached; try again later")]
    Stale,
}

/// Whom a request is from: a token, or nobody in particular where the server asks for none.
pub type Verified = Option<Arc<Token>>;

/// Why tokens were not changed.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Another has the name, or it is the configuration's.
    #[error("there is a token {0} already")]
    Taken(TokenName),
    /// None has the name.
    #[error("there is no token {0}")]
    Unknown(TokenName),
    /// As many as may be are there.
    #[error("there are {MOST} tokens, and no more may be: revoke some")]
    Full,
    /// Nobody could manage tokens then.
    #[error("nobody could make or revoke tokens then: make one that manages everything first, as with --manage '*'")]
    NoManager,
    /// The database.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// The system.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    /// A bug.
    #[error("scopes cannot be written: {0}")]
    Scopes(#[from] serde_json::Error),
}

/// A change that was made.
#[derive(Debug)]
pub struct Change<T> {
    /// What came of it.
    pub made: T,
    /// How many servers have not said yet that they know it: they are cut off from the database, and will take
    /// no tokens soon.
    pub behind: usize,
}

/// What is known of all tokens at one moment.
#[derive(Debug, Default)]
struct Known {
    revision: i64,
    tokens: HashMap<Uuid, Arc<Token>>,
}

/// The tokens of a server. A clone is another handle of the same.
#[derive(Debug, Clone)]
pub struct Tokens {
    inner: Arc<Inner>,
    _follower: Arc<AbortOnDropHandle<()>>,
}

#[derive(Debug)]
struct Inner {
    database: Database,
    node: Arc<str>,
    /// The one that the configuration names.
    configured: Option<Arc<Token>>,
    /// Whether a token is asked for though there is none.
    always: bool,
    known: RwLock<Arc<Known>>,
    loading: Mutex<()>,
    stale: Duration,
    started: Instant,
    /// When the database last said that what is known is right, in milliseconds since `started`.
    fresh: AtomicU64,
}

/// How a server uses tokens.
#[derive(Debug)]
pub struct Settings {
    /// A token that may do everything.
    pub configured: Option<Secret>,
    /// Whether a token is asked for even where there is none.
    pub always: bool,
    /// How long they are good without a word from the database, in seconds.
    pub stale_seconds: u64,
}

impl Tokens {
    /// Reads all tokens, and follows their changes on that runtime.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn open(
        database: Database,
        node: Arc<str>,
        settings: Settings,
        services: &Handle,
    ) -> Result<Self, DatabaseError> {
        let name = TokenName::parse(CONFIGURED).map_err(|error: NameError| DatabaseError::Query(error.to_string()))?;
        let inner = Arc::new(Inner {
            configured: settings.configured.map(|text| Arc::new(Token::of_configuration(name, text.expose()))),
            always: settings.always,
            known: RwLock::default(),
            loading: Mutex::default(),
            stale: seconds(settings.stale_seconds),
            started: Instant::now(),
            fresh: AtomicU64::new(0),
            database,
            node,
        });
        // Known to be there before it reads: whoever changes tokens meanwhile waits for it.
        inner.tell(0).await?;
        inner.load().await?;
        let follower = AbortOnDropHandle::new(services.spawn(follow(inner.clone())));
        Ok(Self { inner, _follower: Arc::new(follower) })
    }

    /// Whether requests need a token: as soon as there is one, and always where others than this machine reach
    /// the server.
    #[must_use]
    pub fn required(&self) -> bool {
        self.inner.always || self.any()
    }

    /// Whether there is a token, be it an expired one.
    #[must_use]
    pub fn any(&self) -> bool {
        self.inner.configured.is_some() || !self.inner.known().tokens.is_empty()
    }

    /// Whom a request with that token is from.
    ///
    /// # Errors
    /// When it may not come in.
    pub fn verify(&self, text: Option<&str>) -> Result<Verified, Unverified> {
        let inner = &*self.inner;
        let known = inner.known();
        if !inner.always && inner.configured.is_none() && known.tokens.is_empty() {
            return Ok(None);
        }
        let text = text.ok_or(Unverified::Missing)?;
        if let Some(configured) = &inner.configured
            && configured.has(digest(&SHA256, text.as_bytes()).as_ref())
        {
            return Ok(Some(configured.clone()));
        }
        if !inner.is_fresh() {
            return Err(Unverified::Stale);
        }
        let text = TokenText::parse(text).ok_or(Unverified::Wrong)?;
        let token = known.tokens.get(&text.id).filter(|token| token.has(&text.digest()));
        token.filter(|token| !token.has_expired(Utc::now())).cloned().map(Some).ok_or(Unverified::Wrong)
    }

    /// The token of that name, for a caller who has shown otherwise who they are.
    ///
    /// # Errors
    /// When there is none, or it has expired.
    pub fn named(&self, name: &str) -> Result<Arc<Token>, Unverified> {
        if !self.inner.is_fresh() {
            return Err(Unverified::Stale);
        }
        let known = self.inner.known();
        let token = known.tokens.values().find(|token| token.name.as_str() == name);
        token.filter(|token| !token.has_expired(Utc::now())).cloned().ok_or(Unverified::Wrong)
    }

    /// All tokens, in the order of their names.
    #[must_use]
    pub fn list(&self) -> Vec<Arc<Token>> {
        let mut tokens: Vec<_> = self.inner.known().tokens.values().cloned().collect();
        tokens.extend(self.inner.configured.clone());
        tokens.sort_by(|one, other| one.name.cmp(&other.name));
        tokens
    }

    /// Makes a token. The first one must manage everything, or nobody could make another.
    ///
    /// # Errors
    /// When the name is taken, nobody could manage tokens, or the database fails.
    pub async fn create(
        &self,
        name: TokenName,
        scopes: &Scopes,
        expires_at: Option<DateTime<Utc>>,
        entry: AuditEntry,
    ) -> Result<Change<TokenText>, TokenError> {
        let text = TokenText::generate()?;
        let row = TokenRow {
            id: text.id,
            name: name.clone(),
            digest: text.digest(),
            scopes: serde_json::to_string(scopes)?,
            created_at: Utc::now(),
            created_by: entry.actor.clone(),
            expires_at,
        };
        if name.as_str() == CONFIGURED {
            return Err(TokenError::Taken(name));
        }
        let manages = scopes.allow_all(Verb::Manage) && expires_at.is_none();
        let configured = self.inner.configured.is_some();
        let database = &self.inner.database;
        let allowed = |there: &[TokenRow]| manages || configured || there.iter().any(is_manager);
        match database.insert_token(&row, MOST, entry.clone(), allowed).await? {
            TokenChange::Done(revision) => Ok(self.changed(text, revision, &entry).await),
            TokenChange::Name => Err(TokenError::Taken(name)),
            TokenChange::Full => Err(TokenError::Full),
            TokenChange::Refused => Err(TokenError::NoManager),
        }
    }

    /// Revokes a token.
    ///
    /// # Errors
    /// When there is none of that name, nobody could manage tokens any more, or the database fails.
    pub async fn revoke(&self, name: TokenName, entry: AuditEntry) -> Result<Change<()>, TokenError> {
        let configured = self.inner.configured.is_some();
        let allowed = |left: &[TokenRow]| configured || left.iter().any(is_manager);
        match self.inner.database.delete_token(&name, entry.clone(), allowed).await? {
            TokenChange::Done(revision) => Ok(self.changed((), revision, &entry).await),
            TokenChange::Refused => Err(TokenError::NoManager),
            TokenChange::Name | TokenChange::Full => Err(TokenError::Unknown(name)),
        }
    }

    /// Sees a change that the database has through to every server.
    async fn changed<T>(&self, made: T, revision: i64, entry: &AuditEntry) -> Change<T> {
        audit::log(entry);
        let inner = &*self.inner;
        let failed = |error: DatabaseError| tracing::warn!(%error, "a change of tokens is not known everywhere yet");
        if let Err(error) = inner.load().await {
            failed(error);
            return Change { made, behind: 1 };
        }
        let behind = inner.spread(revision).await.unwrap_or_else(|error| {
            failed(error);
            1
        });
        Change { made, behind }
    }

    /// Takes leave: nobody waits for this server any more.
    pub async fn leave(&self) {
        if self.inner.database.is_shared()
            && let Err(error) = self.inner.database.forget_node(&self.inner.node).await
        {
            tracing::debug!(%error, "the database still knows this server");
        }
    }
}

/// Whether it may manage tokens, for ever.
fn is_manager(row: &TokenRow) -> bool {
    let scopes = serde_json::from_str::<Scopes>(&row.scopes);
    row.expires_at.is_none() && scopes.is_ok_and(|scopes| scopes.allow_all(Verb::Manage))
}

impl Inner {
    fn known(&self) -> Arc<Known> {
        // What is in it is whole, whatever panicked.
        self.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn is_fresh(&self) -> bool {
        let fresh = Duration::from_millis(self.fresh.load(Ordering::Acquire));
        self.started.elapsed().saturating_sub(fresh) <= self.stale
    }

    /// The database has said that what is known is right; it was asked then.
    fn refreshed(&self, asked: Instant) {
        let millis = asked.saturating_duration_since(self.started).as_millis();
        self.fresh.store(u64::try_from(millis).unwrap_or(u64::MAX), Ordering::Release);
    }

    async fn load(&self) -> Result<(), DatabaseError> {
        let _one = self.loading.lock().await;
        let asked = Instant::now();
        let (revision, rows) = self.database.tokens().await?;
        let before = self.known();
        let mut tokens = HashMap::with_capacity(rows.len());
        for row in rows {
            let (id, name) = (row.id, row.name.clone());
            if let Some(token) = before.tokens.get(&id) {
                // A token never changes.
                tokens.insert(id, token.clone());
                continue;
            }
            match Token::of_row(row) {
                Ok(token) => drop(tokens.insert(id, Arc::new(token))),
                Err(error) => tracing::error!(token = %name, %error, "the scopes of a token cannot be read"),
            }
        }
        let now = Arc::new(Known { revision, tokens });
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = now.clone();
        self.refreshed(asked);
        for (id, token) in &before.tokens {
            if !now.tokens.contains_key(id) {
                token.ended.cancel();
            }
        }
        self.tell(revision).await
    }

    /// Looks whether there is something new.
    async fn look(&self) -> Result<(), DatabaseError> {
        let asked = Instant::now();
        let (revision, known) = (self.database.token_revision().await?, self.known());
        if revision != known.revision {
            return self.load().await;
        }
        self.refreshed(asked);
        let now = Utc::now();
        known.tokens.values().filter(|token| token.has_expired(now)).for_each(|token| token.ended.cancel());
        self.tell(revision).await
    }

    async fn tell(&self, revision: i64) -> Result<(), DatabaseError> {
        if self.database.is_shared() { self.database.knows_tokens(&self.node, revision).await } else { Ok(()) }
    }

    /// Waits until all servers know that revision; how many don't.
    async fn spread(&self, revision: i64) -> Result<usize, DatabaseError> {
        if !self.database.is_shared() {
            return Ok(0);
        }
        let until = Instant::now() + SPREAD;
        let within = TimeDelta::from_std(self.stale).unwrap_or(TimeDelta::MAX);
        let mut pause = SPREAD_PAUSE;
        loop {
            let behind = self.database.behind_on_tokens(revision, within).await?;
            if behind.is_empty() || Instant::now() >= until {
                return Ok(behind.len());
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
    }
}

/// Follows the changes, until dropped.
async fn follow(inner: Arc<Inner>) {
    let mut news = inner.database.token_news();
    let mut reached = true;
    loop {
        let came = tokio::select! {
            came = news.next(), if reached => Some(came),
            () = tokio::time::sleep(LOOK) => None,
        };
        let done = match came {
            Some(Ok(())) => inner.load().await,
            Some(Err(error)) => Err(error),
            None => inner.look().await,
        };
        reached = done.is_ok();
        if let Err(error) = done {
            tracing::debug!(%error, "changes of tokens cannot be followed now");
        }
    }
}
