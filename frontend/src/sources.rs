//! Whose readings are taken: the list of sources, in memory, refreshed in the background and kept on disk.
//!
//! A call only reads the list in memory. A refresh replaces it whole, or not at all: an API that is down, answers in part
//! or suddenly knows far fewer sources changes nothing, and is told of in the log, in the metrics and by `/readyz`.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use galerna_directory::{AccountsSource, DirectoryError, Listing, SourcesSource, TokenHash};
use galerna_lock::{Mutex, RwLock};
use galerna_model::{Account, Source};
use galerna_model::{AccountId, Clock, QueueName, SourceId, Timestamp};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::call_error::CallError;
use crate::disk_copy;
use crate::options::SourcesOptions;

/// A source whose readings are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KnownSource {
    pub(crate) id: SourceId,
    pub(crate) account: AccountId,
    pub(crate) queue: QueueName,
    pub(crate) token: TokenHash,
}

/// A list of sources as it once was.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) sources: HashMap<SourceId, Arc<KnownSource>>,
    /// When it was read from the API.
    pub(crate) read: Timestamp,
}

/// Why a refresh changed nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RefreshError {
    /// The lists could not be read whole.
    #[error("the list of sources cannot be refreshed: {0}")]
    Directory(#[from] DirectoryError),
    /// They were not read in time.
    #[error("the list of sources cannot be refreshed: no answer within {0:?}")]
    Timeout(std::time::Duration),
    /// The new list lost too much at once to be believed.
    #[error(
        "the refreshed list keeps only {kept} of {known} known sources and is not taken; if it is right, refresh once with force"
    )]
    Suspicious {
        /// Sources known.
        known: usize,
        /// How many of them it keeps.
        kept: usize,
    },
    /// It has no source at all that can be used.
    #[error("the refreshed list holds no active source of an active account and is not taken")]
    Empty,
}

impl RefreshError {
    /// For metrics.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Directory(_) => "unreadable",
            Self::Timeout(_) => "timeout",
            Self::Suspicious { .. } | Self::Empty => "suspicious",
        }
    }
}

/// How far a list that lost sources is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Belief {
    /// Not when it lost much at once.
    Guarded,
    /// Whatever it lost, if anything is left.
    Forced,
    /// Whatever it says: it was just changed.
    Changed,
}

/// What a refresh did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refreshed {
    /// Sources known now.
    pub sources: usize,
    /// Entries of the lists that could not be used; what was known of them is kept.
    pub issues: usize,
}

/// Where the lists come from.
#[derive(Clone)]
pub struct Directory {
    /// Accounts, for their queues.
    pub accounts: Arc<dyn AccountsSource>,
    /// Sources, for their tokens.
    pub sources: Arc<dyn SourcesSource>,
}

impl Directory {
    /// Both lists of one place.
    pub fn new<T: AccountsSource + SourcesSource>(of: T) -> Self {
        let of = Arc::new(of);
        Self { accounts: Arc::clone(&of) as Arc<dyn AccountsSource>, sources: of }
    }
}

pub(crate) struct Sources {
    table: RwLock<Option<Arc<Table>>>,
    problem: Mutex<Option<(&'static str, String)>>,
    directory: Directory,
    options: SourcesOptions,
    clock: Arc<dyn Clock>,
    /// Somebody asked for a source that is not known.
    pub(crate) missed: Notify,
    /// One refresh at a time.
    refreshing: tokio::sync::Mutex<()>,
}

impl Sources {
    /// Starts with the copy on disk, when there is one.
    pub(crate) async fn open(directory: Directory, options: SourcesOptions, clock: Arc<dyn Clock>) -> Self {
        let mut table = None;
        if let Some(path) = options.disk_copy.clone() {
            match disk_copy::load(path.clone()).await {
                Ok(Some(copy)) => {
                    tracing::info!(sources = copy.sources.len(), read = %copy.read, "sources known from the copy on disk");
                    table = Some(Arc::new(copy));
                }
                Ok(None) => {}
                Err(e) => {
                    tracing::error!(path = %path.display(), error = %e, "the copy of the sources cannot be used")
                }
            }
        }
        Self {
            table: RwLock::new(table),
            problem: Mutex::default(),
            directory,
            options,
            clock,
            missed: Notify::new(),
            refreshing: tokio::sync::Mutex::default(),
        }
    }

    fn table(&self) -> Option<Arc<Table>> {
        self.table.read().clone()
    }

    /// Sources known, and the age of the list in milliseconds.
    pub(crate) fn state(&self) -> Option<(usize, i64)> {
        self.table().map(|t| (t.sources.len(), self.clock.now().millis_since(t.read).max(0)))
    }

    /// What is wrong with the list, if anything: a code and a sentence.
    pub(crate) fn problem(&self) -> Option<(&'static str, String)> {
        self.problem.lock().clone()
    }

    /// Who sends. An unknown source and a wrong token cost the same and are told the same.
    pub(crate) fn authenticate(
        &self,
        key: Option<&str>,
        token: Option<&str>,
    ) -> Result<Arc<KnownSource>, CallError> {
        let table = self.table().ok_or(CallError::NoSources)?;
        let id = key.and_then(|key| SourceId::new(key).ok());
        let known = id.and_then(|id| table.sources.get(&id));
        let token = token.unwrap_or_default();
        let matches = known.map_or(TokenHash::NOBODY, |k| k.token).matches(token);
        match known {
            Some(known) if matches && !token.is_empty() => Ok(Arc::clone(known)),
            Some(_) => Err(CallError::Unauthorized),
            None => {
                self.missed.notify_one();
                Err(CallError::Unauthorized)
            }
        }
    }

    /// Reads the lists and takes them if they can be believed.
    pub(crate) async fn refresh(&self, belief: Belief) -> Result<Refreshed, RefreshError> {
        let _refreshing = self.refreshing.lock().await;
        let result = self.read_and_take(belief).await;
        let problem = match &result {
            Ok(refreshed) => {
                tracing::debug!(sources = refreshed.sources, issues = refreshed.issues, "sources refreshed");
                None
            }
            Err(e) => Some((e.code(), e.to_string())),
        };
        let before = std::mem::replace(&mut *self.problem.lock(), problem.clone());
        // Told once, not with every try; the metrics go on telling.
        if let Some((_, cause)) = problem
            && before.is_none_or(|(_, known)| known != cause)
        {
            tracing::error!(error = cause, "the sources were not refreshed");
        }
        result
    }

    async fn read_and_take(&self, belief: Belief) -> Result<Refreshed, RefreshError> {
        let read = self.clock.now();
        let lists = timeout(self.options.timeout, async {
            tokio::try_join!(self.directory.accounts.accounts(), self.directory.sources.sources())
        });
        let (accounts, sources) = lists.await.map_err(|_| RefreshError::Timeout(self.options.timeout))??;
        let before = self.table();
        let none = HashMap::new();
        let known = before.as_ref().map_or(&none, |t| &t.sources);
        let (next, issues) = combine(&accounts, &sources, known);
        if next.is_empty() && belief != Belief::Changed {
            return Err(RefreshError::Empty);
        }
        let kept = known.keys().filter(|id| next.contains_key(*id)).count();
        let few = (kept as f64) < self.options.keep_ratio * known.len() as f64;
        if belief == Belief::Guarded && known.len() - kept > self.options.may_lose && few {
            return Err(RefreshError::Suspicious { known: known.len(), kept });
        }
        let table = Arc::new(Table { sources: next, read });
        if let Some(path) = self.options.disk_copy.clone()
            && let Err(e) = disk_copy::save(path.clone(), Arc::clone(&table)).await
        {
            tracing::error!(path = %path.display(), error = %e, "the sources cannot be kept on disk; a start while their API is down would know none");
        }
        let sources = table.sources.len();
        *self.table.write() = Some(table);
        Ok(Refreshed { sources, issues })
    }
}

/// Active sources of active accounts. What an entry that cannot be used names stays as it was.
fn combine(
    accounts: &Listing<Account>,
    sources: &Listing<Source>,
    known: &HashMap<SourceId, Arc<KnownSource>>,
) -> (HashMap<SourceId, Arc<KnownSource>>, usize) {
    let mut unclear_accounts: HashSet<&str> =
        accounts.issues.iter().filter_map(|i| i.id.as_deref()).collect();
    let mut unclear: HashSet<&str> = sources.issues.iter().filter_map(|i| i.id.as_deref()).collect();
    let mut issues = accounts.issues.len() + sources.issues.len();
    let mut queues: HashMap<&AccountId, &Account> = HashMap::new();
    for account in &accounts.entries {
        if queues.insert(&account.id, account).is_some_and(|other| other != account) {
            unclear_accounts.insert(account.id.as_str());
            issues += 1;
        }
    }
    let mut entries: HashMap<&SourceId, &Source> = HashMap::new();
    for source in &sources.entries {
        if entries.insert(&source.id, source).is_some_and(|other| other != source) {
            unclear.insert(source.id.as_str());
            issues += 1;
        }
    }
    let mut next = HashMap::with_capacity(entries.len());
    for source in entries.into_values().filter(|s| s.active && !unclear.contains(s.id.as_str())) {
        let taken = if unclear_accounts.contains(source.account.as_str()) {
            known.get(&source.id).filter(|k| k.account == source.account).cloned()
        } else {
            match (queues.get(&source.account), TokenHash::parse(&source.token_hash)) {
                (Some(account), Ok(token)) if account.active => Some(Arc::new(KnownSource {
                    id: source.id.clone(),
                    account: account.id.clone(),
                    queue: account.queue.clone(),
                    token,
                })),
                (Some(account), Err(e)) if account.active => {
                    issues += 1;
                    tracing::warn!(source = %source.id, error = %e, "a source cannot be used");
                    known.get(&source.id).cloned()
                }
                _ => None,
            }
        };
        if let Some(taken) = taken {
            next.insert(source.id.clone(), taken);
        }
    }
    for (id, kept) in known.iter().filter(|(id, _)| unclear.contains(id.as_str())) {
        next.insert(id.clone(), Arc::clone(kept));
    }
    (next, issues)
}

#[cfg(test)]
mod tests {
    use super::*;
    use galerna_directory::{AccountsApi, HttpDirectory, HttpOptions, Issue};
    use galerna_model::ManualClock;

    fn account(id: &str, active: bool) -> Account {
        Account {
            id: AccountId::new(id).unwrap(),
            name: id.to_owned(),
            queue: QueueName::new(format!("Q{id}")).unwrap(),
            active,
        }
    }

    fn source(id: &str, account: &str, token: &str) -> Source {
        Source {
            id: SourceId::new(id).unwrap(),
            account: AccountId::new(account).unwrap(),
            token_hash: TokenHash::of(token).to_string(),
            active: true,
        }
    }

    fn ids(table: &HashMap<SourceId, Arc<KnownSource>>) -> Vec<&str> {
        let mut ids: Vec<&str> = table.keys().map(SourceId::as_str).collect();
        ids.sort_unstable();
        ids
    }

    #[test]
    fn active_sources_of_active_accounts_are_known_and_unclear_ones_stay_as_they_were() {
        let accounts = Listing::from(vec![account("a", true), account("b", false)]);
        let all = vec![
            source("s1", "a", "t1"),
            source("s2", "b", "t2"),
            source("s3", "nobody", "t3"),
            Source { active: false, ..source("s4", "a", "t4") },
            source("s5", "a", "t5"),
        ];
        let (first, issues) = combine(&accounts, &all.clone().into(), &HashMap::new());
        assert_eq!((ids(&first), issues), (vec!["s1", "s5"], 0));
        assert_eq!(first[&SourceId::new("s1").unwrap()].queue.as_str(), "Qa");

        let mut broken = Listing::from(vec![
            Source { token_hash: "nonsense".to_owned(), ..source("s1", "a", "x") },
            source("s6", "a", "t6"),
            source("s6", "a", "another"),
        ]);
        broken.issues.push(Issue { id: Some("s5".to_owned()), queue: None, problem: "wrong".to_owned() });
        let (second, issues) = combine(&accounts, &broken, &first);
        assert_eq!((ids(&second), issues), (vec!["s1", "s5"], 3));
        assert_eq!(second, first);

        let mut accounts = Listing::from(vec![account("b", true)]);
        accounts.issues.push(Issue { id: Some("a".to_owned()), queue: None, problem: "wrong".to_owned() });
        let (third, _) = combine(&accounts, &all.into(), &first);
        assert_eq!(ids(&third), ["s1", "s2", "s5"]);
    }

    async fn served(sources: usize) -> (AccountsApi, Directory, tokio::task::JoinHandle<()>) {
        let list = (0..sources).map(|n| source(&format!("s{n}"), "a", &format!("t{n}"))).collect();
        let api = AccountsApi::new(vec![account("a", true)], list);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let router = api.router();
        let serving = tokio::spawn(async move { drop(axum::serve(listener, router).await) });
        galerna_tls::install_default_provider();
        let http = HttpOptions { attempts: 1, ..HttpOptions::default() };
        (api, Directory::new(HttpDirectory::new(&address, http).unwrap()), serving)
    }

    #[tokio::test]
    async fn a_list_that_lost_far_too_much_is_refused_until_it_is_forced() {
        let (api, directory, _serving) = served(100).await;
        let clock = ManualClock::at(Timestamp(1_000_000));
        let sources = Sources::open(directory, SourcesOptions::default(), Arc::new(clock.clone())).await;
        assert!(matches!(sources.authenticate(Some("s1"), Some("t1")), Err(CallError::NoSources)));
        assert_eq!(sources.refresh(Belief::Guarded).await.unwrap(), Refreshed { sources: 100, issues: 0 });
        clock.advance(7_000);
        assert_eq!(sources.state(), Some((100, 7_000)));

        api.set_sources((0..50).map(|n| source(&format!("s{n}"), "a", "new")).collect());
        let refused = sources.refresh(Belief::Guarded).await.unwrap_err();
        assert!(matches!(refused, RefreshError::Suspicious { known: 100, kept: 50 }), "{refused}");
        assert_eq!(sources.problem().unwrap().0, "suspicious");
        assert!(sources.authenticate(Some("s99"), Some("t99")).is_ok());
        api.set_sources(Vec::new());
        assert!(matches!(sources.refresh(Belief::Guarded).await, Err(RefreshError::Empty)));
        assert!(matches!(sources.refresh(Belief::Forced).await, Err(RefreshError::Empty)));
        // Whoever removed the last one knows that there is none.
        let known = sources.table().unwrap();
        assert_eq!(sources.refresh(Belief::Changed).await.unwrap().sources, 0);
        assert_eq!(sources.authenticate(Some("s1"), Some("t1")).unwrap_err(), CallError::Unauthorized);
        *sources.table.write() = Some(known);

        api.set_sources((0..50).map(|n| source(&format!("s{n}"), "a", "new")).collect());
        assert_eq!(sources.refresh(Belief::Forced).await.unwrap().sources, 50);
        assert!(sources.problem().is_none());
        assert_eq!(sources.authenticate(Some("s99"), Some("t99")).unwrap_err(), CallError::Unauthorized);
        assert_eq!(sources.authenticate(Some("s1"), Some("t1")).unwrap_err(), CallError::Unauthorized);
        assert!(sources.authenticate(Some("s1"), Some("new")).is_ok());
    }

    #[tokio::test]
    async fn a_frontend_that_starts_while_the_api_is_down_knows_what_it_knew() {
        let folder = tempfile::tempdir().unwrap();
        let options = SourcesOptions {
            disk_copy: Some(folder.path().join("new/sources.json")),
            ..SourcesOptions::default()
        };
        let clock = ManualClock::at(Timestamp(1_000_000));
        let (_api, directory, serving) = served(20).await;
        let sources = Sources::open(directory.clone(), options.clone(), Arc::new(clock.clone())).await;
        sources.refresh(Belief::Guarded).await.unwrap();
        serving.abort();
        drop(serving.await);

        clock.advance(60_000);
        let again = Sources::open(directory, options.clone(), Arc::new(clock)).await;
        assert_eq!(again.state(), Some((20, 60_000)));
        assert!(matches!(again.refresh(Belief::Guarded).await, Err(RefreshError::Directory(_))));
        assert_eq!(again.authenticate(Some("s7"), Some("t7")).unwrap().queue.as_str(), "Qa");
        let text = std::fs::read_to_string(options.disk_copy.unwrap()).unwrap();
        assert!(!text.contains("\"t7\""), "tokens are kept hashed");
    }

    #[tokio::test]
    async fn every_wrong_pair_of_source_and_token_is_told_the_same() {
        let (_api, directory, _serving) = served(3).await;
        let clock = Arc::new(ManualClock::at(Timestamp(0)));
        let sources = Sources::open(directory, SourcesOptions::default(), clock).await;
        sources.refresh(Belief::Guarded).await.unwrap();
        for (key, token) in [
            (None, None),
            (Some("s1"), None),
            (None, Some("t1")),
            (Some("s1"), Some("")),
            (Some("s1"), Some("t2")),
            (Some("nobody"), Some("t1")),
            (Some("a b/c"), Some("t1")),
            (Some(""), Some("")),
            (Some("s1"), Some("t1 ")),
        ] {
            assert_eq!(
                sources.authenticate(key, token).unwrap_err(),
                CallError::Unauthorized,
                "{key:?} {token:?}"
            );
        }
        assert!(sources.authenticate(Some("s1"), Some("t1")).is_ok());
    }
}
