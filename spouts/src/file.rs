//! A spout that emits the rows of a file.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use flate2::read::MultiGzDecoder;
use galerna_topology::{Data, Failed, Fault, Next, Output, Roots, Spout, TaskContext};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use crate::iterator::DEFAULT_ATTEMPTS;
use crate::rows::{BadRow, FileForm, Row, RowReader};

/// Rows that travel from the reading thread to the spout at once.
const CHUNK: usize = 256;
/// Chunks that may wait.
const CHUNKS: usize = 4;

/// A file that cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// Its name tells no form.
    #[error("the form of `{}` is not known; name it .csv, .ndjson, .jsonl or .json (and .gz behind it), or say the form", .0.display())]
    UnknownForm(PathBuf),
    /// The system refuses it.
    #[error("file `{}` cannot be opened: {cause}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
}

/// Counts of a [`FileSpout`].
#[derive(Debug, Default)]
pub struct FileTally {
    bad: AtomicU64,
    given_up: AtomicU64,
}

impl FileTally {
    /// Rows that could not be read.
    pub fn bad(&self) -> u64 {
        self.bad.load(Relaxed)
    }

    /// Rows that failed too often.
    pub fn given_up(&self) -> u64 {
        self.given_up.load(Relaxed)
    }
}

type OnBadRow = Arc<dyn Fn(&BadRow) + Send + Sync>;

/// Emits the rows of a file, NDJSON or CSV, gzipped when its name ends in `.gz`, each a root.
///
/// A row whose root failed is emitted again, up to [`DEFAULT_ATTEMPTS`] times in all; the spout is done when each row has
/// been acked or given up. A row that cannot be read is reported with its line and column and left out. The file is read on a
/// thread of its own, at most a thousand rows ahead.
///
/// ```
/// use galerna_spouts::FileSpout;
/// use galerna_topology::TopologyBuilder;
///
/// #[derive(Debug, Clone, serde::Deserialize)]
/// struct Row {
///     meter_id: String,
///     value: Option<f64>,
/// }
///
/// let mut topology = TopologyBuilder::new("meters");
/// let rows = topology.spout("rows", || FileSpout::<Row>::new("readings.csv.gz")).outputs();
/// topology.for_each("print", |row: Row| println!("{}: {:?}", row.meter_id, row.value)).shuffle(&rows);
/// topology.build().unwrap();
/// ```
pub struct FileSpout<T> {
    path: PathBuf,
    form: Option<FileForm>,
    on_bad_row: OnBadRow,
    tally: Arc<FileTally>,
    chunks: Option<mpsc::Receiver<Vec<Row<T>>>>,
    chunk: VecDeque<Row<T>>,
    again: VecDeque<Attempt<T>>,
    pending: usize,
}

/// A row and how often it has been emitted.
#[derive(Debug, Clone)]
pub struct Attempt<T> {
    row: Row<T>,
    attempts: u32,
}

impl<T: Data + DeserializeOwned> FileSpout<T> {
    /// Emits the rows of this file, of the form that its name tells. It is opened when the topology starts.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            form: None,
            on_bad_row: Arc::new(|bad| tracing::warn!("{bad}")),
            tally: Arc::default(),
            chunks: None,
            chunk: VecDeque::new(),
            again: VecDeque::new(),
            pending: 0,
        }
    }

    /// Reads it in this form, whatever its name.
    #[must_use]
    pub fn with_form(mut self, form: FileForm) -> Self {
        self.form = Some(form);
        self
    }

    /// Tells `on_bad_row` of rows that cannot be read; without it they are logged.
    #[must_use]
    pub fn with_bad_rows(mut self, on_bad_row: impl Fn(&BadRow) + Send + Sync + 'static) -> Self {
        self.on_bad_row = Arc::new(on_bad_row);
        self
    }

    /// Counts in this tally.
    #[must_use]
    pub fn with_tally(mut self, tally: Arc<FileTally>) -> Self {
        self.tally = tally;
        self
    }

    fn take(&mut self) -> Option<Attempt<T>> {
        if let Some(again) = self.again.pop_front() {
            return Some(again);
        }
        if self.chunk.is_empty()
            && let Some(chunks) = &mut self.chunks
        {
            match chunks.try_recv() {
                Ok(chunk) => self.chunk = chunk.into(),
                Err(mpsc::error::TryRecvError::Empty) => {}
                Err(mpsc::error::TryRecvError::Disconnected) => self.chunks = None,
            }
        }
        self.chunk.pop_front().map(|row| Attempt { row, attempts: 0 })
    }
}

/// Opens a file for reading, unpacking it when its name ends in `.gz`.
///
/// # Errors
/// [`FileError::Unreadable`] with what the system says.
pub fn open_file(path: &Path) -> Result<Box<dyn Read + Send>, FileError> {
    let file = File::open(path).map_err(|cause| FileError::Unreadable { path: path.to_owned(), cause })?;
    Ok(match path.extension() {
        Some(extension) if extension.eq_ignore_ascii_case("gz") => Box::new(MultiGzDecoder::new(file)),
        _ => Box::new(file),
    })
}

impl<T: Data + DeserializeOwned> Spout for FileSpout<T> {
    type MessageId = Attempt<T>;
    type Outputs = Output<T>;

    async fn open(&mut self, _: &TaskContext) -> Result<(), Fault> {
        let form = self
            .form
            .or_else(|| FileForm::of(&self.path))
            .ok_or_else(|| FileError::UnknownForm(self.path.clone()))?;
        let file = open_file(&self.path)?;
        let rows = RowReader::<_, T>::new(&self.path, form, file);
        let (read, chunks) = mpsc::channel(CHUNKS);
        let (on_bad_row, tally) = (self.on_bad_row.clone(), self.tally.clone());
        tokio::task::spawn_blocking(move || {
            let mut chunk = Vec::with_capacity(CHUNK);
            for row in rows {
                match row {
                    Ok(row) => chunk.push(row),
                    Err(bad) => {
                        tally.bad.fetch_add(1, Relaxed);
                        on_bad_row(&bad);
                    }
                }
                // An error says that the spout is gone.
                if chunk.len() == CHUNK && read.blocking_send(std::mem::take(&mut chunk)).is_err() {
                    return;
                }
            }
            drop(read.blocking_send(chunk));
        });
        self.chunks = Some(chunks);
        Ok(())
    }

    async fn next(&mut self, out: &mut Roots<'_, Self>) -> Result<Next, Fault> {
        while out.room() > 0 {
            let Some(mut attempt) = self.take() else {
                return Ok(match (&self.chunks, self.pending) {
                    (Some(_), _) => Next::Idle,
                    (None, 0) => Next::Done,
                    (None, _) => Next::Ended,
                });
            };
            attempt.attempts += 1;
            self.pending += 1;
            let value = attempt.row.value.clone();
            out.root(attempt).emit(value);
        }
        Ok(Next::Ready)
    }

    async fn ready(&mut self) {
        if !self.again.is_empty() || !self.chunk.is_empty() {
            return;
        }
        match &mut self.chunks {
            Some(chunks) => match chunks.recv().await {
                Some(chunk) => self.chunk = chunk.into(),
                None => self.chunks = None,
            },
            // What changes this is an ack or a failure, after which the engine asks anew.
            None if self.pending > 0 => std::future::pending().await,
            None => {}
        }
    }

    async fn acked(&mut self, ids: &mut Vec<Attempt<T>>) {
        self.pending -= ids.len();
    }

    async fn failed(&mut self, failed: &mut Vec<Failed<Attempt<T>>>) {
        self.pending -= failed.len();
        for Failed { id, failure } in failed.drain(..) {
            if id.attempts < DEFAULT_ATTEMPTS {
                self.again.push_back(id);
            } else {
                self.tally.given_up.fetch_add(1, Relaxed);
                let (file, line) = (self.path.display(), id.row.line);
                tracing::error!(%file, line, attempts = id.attempts, %failure, "a row is given up");
            }
        }
    }
}
