//! Pages that are made once for all who ask at a time, on a thread of their own.
//!
//! A request gets a page that was begun after it arrived, and all that wait get the same one. Each page can be made
//! [`RENDER_RATE`] times a second, and [`RENDER_BURST`] times at once; beyond that the last one has to do. So a page is never
//! older than a quarter of a second, whoever asks, and a flood costs the shards no more than copies of bytes.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use proto::limits::{RENDER_BURST, RENDER_RATE, RENDER_TIMEOUT};
use shard::Pace;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::render::{Kind, Renderer};

/// The pages as they were last made. Their thread ends when this is dropped.
pub(super) struct Rendered {
    slots: [Slot; Kind::ALL.len()],
}

struct Slot {
    /// One place: a question that is still waiting there stands for all that come meanwhile.
    ask: mpsc::Sender<()>,
    made: watch::Receiver<Option<Made>>,
}

struct Made {
    /// Questions up to this moment are answered by it.
    answers: Instant,
    body: Bytes,
}

impl Rendered {
    /// Starts the thread.
    pub(super) fn start(renderer: Renderer) -> io::Result<Self> {
        let renderer = Arc::new(renderer);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let mut tasks = JoinSet::new();
        let slots = Kind::ALL.map(|kind| {
            let ((ask, asked), (publish, made)) = (mpsc::channel(1), watch::channel(None));
            tasks.spawn_on(make(kind, Arc::clone(&renderer), asked, publish), runtime.handle());
            Slot { ask, made }
        });
        std::thread::Builder::new().name("pages".to_owned()).spawn(move || {
            runtime.block_on(async {
                while let Some(ended) = tasks.join_next().await {
                    if let Err(error) = ended {
                        // Peers need no pages: the hub goes on, and this page answers 503.
                        tracing::error!(%error, "page_failed");
                    }
                }
            });
        })?;
        Ok(Self { slots })
    }

    /// A page. `None` if it cannot be made, or not in time.
    pub(super) async fn page(&self, kind: Kind) -> Option<Bytes> {
        let slot = &self.slots[kind as usize];
        let now = Instant::now();
        if let Err(mpsc::error::TrySendError::Closed(())) = slot.ask.try_send(()) {
            return None;
        }
        let mut made = slot.made.clone();
        let answer = made.wait_for(|made| made.as_ref().is_some_and(|made| made.answers >= now));
        let made = tokio::time::timeout(RENDER_TIMEOUT, answer).await.ok()?.ok()?;
        made.as_ref().map(|made| made.body.clone())
    }
}

/// Makes a page each time that it is asked for.
async fn make(
    kind: Kind,
    renderer: Arc<Renderer>,
    mut asked: mpsc::Receiver<()>,
    publish: watch::Sender<Option<Made>>,
) {
    let mut pace = Pace::new(RENDER_RATE, RENDER_BURST);
    while asked.recv().await.is_some() {
        let answers = Instant::now();
        let last = if pace.take_within(answers, Duration::ZERO).is_some() {
            None
        } else {
            publish.borrow().as_ref().map(|made| made.body.clone())
        };
        let body = match last {
            Some(body) => body,
            None => renderer.render(kind).await,
        };
        publish.send_replace(Some(Made { answers, body }));
    }
}
