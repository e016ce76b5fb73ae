//! Renders pages on a separate thread, once for all simultaneous requests.
//!
//! A request usually gets a rendering that began after the request arrived. All requests that wait at the same time
//! share one rendering. Each page is rendered at most [`RENDER_RATE`] times per second, with bursts of
//! [`RENDER_BURST`]. Beyond this limit, requests get the last rendering, which began at most a quarter of a second ago.
//! So a flood of requests makes the shards only copy finished bytes, and not render pages.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use proto::limits::{RENDER_BURST, RENDER_RATE, RENDER_TIMEOUT, TICK};
use shard::Pace;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::render::{PageKind, Renderer};

/// The last rendering of each page. The thread ends when this value is dropped.
pub(super) struct Rendered {
    slots: [Slot; PageKind::ALL.len()],
}

struct Slot {
    /// A channel with a capacity of one. One queued request represents all requests that arrive while it is queued.
    ask: mpsc::Sender<()>,
    made: watch::Receiver<Option<Made>>,
}

struct Made {
    /// Requests that arrived before this time get this rendering.
    answers: Instant,
    /// `None` if the rendering failed.
    body: Option<Bytes>,
}

impl Rendered {
    /// Starts the thread, which calls `turned` once a tick. If the thread fails, it no longer calls `turned`, and the
    /// watchdog reports the thread.
    pub(super) fn start(renderer: Renderer, turned: impl Fn() + Send + 'static) -> io::Result<Self> {
        let renderer = Arc::new(renderer);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let mut tasks = JoinSet::new();
        let slots = PageKind::ALL.map(|kind| {
            let renderer = Arc::clone(&renderer);
            let render = move || {
                let renderer = Arc::clone(&renderer);
                async move { renderer.render(kind).await }
            };
            let (slot, making) = slot(kind, render);
            tasks.spawn_on(making, runtime.handle());
            slot
        });
        std::thread::Builder::new().name("pages".to_owned()).spawn(move || {
            runtime.block_on(async {
                let mut ticks = tokio::time::interval(TICK);
                loop {
                    tokio::select! {
                        made = tasks.join_next() => match made {
                            None => break,
                            Some(Ok(())) => {}
                            // The task of a page has panicked, so the whole thread panics.
                            Some(Err(error)) => std::panic::resume_unwind(error.into_panic()),
                        },
                        _ = ticks.tick() => turned(),
                    }
                }
            });
        })?;
        Ok(Self { slots })
    }

    /// Waits for a page. `None` if it cannot be rendered in time.
    pub(super) async fn page(&self, kind: PageKind) -> Option<Bytes> {
        self.slots[kind as usize].page().await
    }
}

impl Slot {
    async fn page(&self) -> Option<Bytes> {
        let now = Instant::now();
        if let Err(mpsc::error::TrySendError::Closed(())) = self.ask.try_send(()) {
            return None;
        }
        let mut made = self.made.clone();
        let answer = made.wait_for(|made| made.as_ref().is_some_and(|made| made.answers >= now));
        let made = tokio::time::timeout(RENDER_TIMEOUT, answer).await.ok()?.ok()?;
        made.as_ref().and_then(|made| made.body.clone())
    }
}

/// Creates a page's slot, and the task that renders the page on request while the slot exists.
fn slot<R, F>(kind: PageKind, render: R) -> (Slot, impl Future<Output = ()> + Send + 'static)
where
    R: Fn() -> F + Send + 'static,
    F: Future<Output = Bytes> + Send + 'static,
{
    let ((ask, mut asked), (publish, made)) = (mpsc::channel(1), watch::channel(None::<Made>));
    let making = async move {
        let mut pace = Pace::new(RENDER_RATE, RENDER_BURST);
        while asked.recv().await.is_some() {
            let answers = Instant::now();
            let body = if pace.take_within(answers, Duration::ZERO).is_some() {
                // Each rendering runs in its own task, so a panic ends one rendering and not the page. A panic may
                // recur with each rendering; the rate limit bounds how often it is logged.
                let made = tokio::spawn(render()).await;
                made.inspect_err(|error| tracing::error!(page = kind.label(), %error, "page_failed")).ok()
            } else {
                publish.borrow().as_ref().and_then(|made| made.body.clone())
            };
            publish.send_replace(Some(Made { answers, body }));
        }
    };
    (Slot { ask, made }, making)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_page_is_rendered_again_after_a_panic() {
        let times = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&times);
        let (slot, making) = slot(PageKind::Metrics, move || {
            let time = counted.fetch_add(1, Ordering::Relaxed);
            async move {
                assert!(time != 1, "a renderer that panics, for this test");
                Bytes::from(time.to_string())
            }
        });
        tokio::spawn(making);
        let asked = Instant::now();
        assert_eq!(slot.page().await, Some(Bytes::from("0")));
        assert_eq!(slot.page().await, None);
        assert_eq!(slot.page().await, Some(Bytes::from("2")));
        // Requests for a failed rendering are answered at once.
        assert!(asked.elapsed() < RENDER_TIMEOUT);
    }

    #[tokio::test]
    async fn a_failing_page_is_retried_at_the_limited_rate() {
        let times = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&times);
        let (slot, making) = slot(PageKind::Metrics, move || {
            counted.fetch_add(1, Ordering::Relaxed);
            async { panic!("a renderer that panics, for this test") }
        });
        tokio::spawn(making);
        let start = Instant::now();
        for _ in 0..100 {
            assert_eq!(slot.page().await, None);
        }
        let most = RENDER_BURST + 1 + RENDER_RATE * (start.elapsed().as_secs() as u32 + 1);
        assert!(times.load(Ordering::Relaxed) <= most, "{times:?} of {most}");
    }
}
