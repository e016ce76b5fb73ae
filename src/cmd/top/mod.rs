//! The command `peerpigeon top` shows hubs, links and networks in a terminal.

mod draw;
mod history;
mod model;
mod once;
mod page;
mod sample;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::header::AUTHORIZATION;
use hyper::http::request::Builder;
use hyper::{Request, StatusCode, Uri};
use mesh::{ConnectError, Tls};
use proto::Redacted;
use ratatui::crossterm::event::{self, Event};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use self::history::History;
pub use self::model::Sort;
use self::model::{Hub, Model, Wish};
use self::page::Page;
use self::sample::{Failure, Flooder, MetricsJson, Roster, Sample, Stats};
use super::{duration, http};
use crate::config::{Token, certificates};

/// Maximum time for reading all pages of a hub.
const PATIENCE: Duration = Duration::from_secs(5);

/// Time of a poll that reading the history leaves unused.
const SPARE: Duration = Duration::from_millis(500);

/// Maximum time for reading the history of a hub, which is a part of [`PATIENCE`].
const HISTORY_PATIENCE: Duration = Duration::from_secs(2);

/// Minimum of `--interval`: a shorter interval is raised to it. Each shard answers one address 100 pages at once and
/// then 2 per second, so a hub may refuse pages if polls stay this fast.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(200);

/// Every fifth poll also reads the pages that change slowly.
const SLOW_PAGES: u64 = 5;

/// Exit code of `--once --exit-code` if a hub has a fault.
const FAULTS: u8 = 2;

/// Maximum number of pressed keys that wait to be handled.
const KEYS: usize = 64;

/// Watch hubs, their links and their networks in the terminal
///
/// Reads /metrics, /hubstats and /stats of each hub. Below the hubs, it lists faults: slow links, long turns, floods,
/// certificates that expire soon, Redis, and resources near their limits.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Without --token-file, the variable ADMIN_TOKEN contains the token of the hubs.\n\nExit codes of \
        --once: 0 every hub answers; 1 a hub does not answer; 2 with --exit-code, a hub has a fault; 64 invalid command \
        line."
)]
pub struct Args {
    /// URLs at which the hubs serve the pages of operators (ADMIN_PORT, or else PORT), such as http://localhost:8082
    #[arg(value_name = "URL", required = true, value_parser = http::url)]
    urls: Vec<Uri>,

    /// File with the ADMIN_TOKEN of the hubs
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,

    /// Time between two polls
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = duration::parse)]
    interval: Duration,

    /// Order of the hubs
    #[arg(long, value_enum, default_value_t = Sort::Given)]
    sort: Sort,

    /// Poll twice, print the hubs as text, and exit: for scripts
    #[arg(long)]
    once: bool,

    /// With --once, exit with 2 if a hub has a fault
    #[arg(long, requires = "once")]
    exit_code: bool,

    /// File with additional CA certificates (PEM) for https://
    #[arg(long, value_name = "FILE", value_parser = certificates)]
    ca: Option<Arc<[u8]>>,
}

/// The hubs to watch, and the options.
#[derive(Debug)]
pub struct Watch {
    urls: Vec<Uri>,
    token: Option<Token>,
    interval: Duration,
    sort: Sort,
    once: bool,
    exit_code: bool,
    ca: Option<Arc<[u8]>>,
}

impl Args {
    /// The hubs of this command line. `env` returns a variable by its name.
    ///
    /// # Errors
    ///
    /// A sentence about the token, if it is invalid.
    pub fn watch(self, env: &dyn Fn(&str) -> Option<OsString>) -> Result<Watch, String> {
        let token = super::admin_token(self.token_file.as_deref(), env)?;
        let interval = self.interval.max(SHORTEST_INTERVAL);
        let Self { urls, sort, once, exit_code, ca, .. } = self;
        Ok(Watch { urls, token, interval, sort, once, exit_code, ca })
    }
}

/// Watches the hubs until the user quits. With `--once`, prints them once.
pub async fn run(watch: Watch) -> ExitCode {
    let urls: Vec<String> = watch.urls.iter().map(|url| Redacted(&url.to_string()).to_string()).collect();
    let mut model = Model::new(urls.iter().map(String::as_str), watch.sort);
    if watch.once {
        let mut polls = Polls::default();
        for is_second in [false, true] {
            if is_second {
                tokio::time::sleep(watch.interval).await;
            }
            let asks = model.hubs.iter().map(|hub| (None, hub.last.is_none())).collect();
            let results = watch.poll(asks, None).await;
            polls.take(&mut model, results);
        }
        let printed = io::stdout().write_all(once::text(&model).as_bytes());
        if model.hubs.iter().any(|hub| hub.error.is_some()) {
            return ExitCode::FAILURE;
        }
        if watch.exit_code && model.hubs.iter().any(|hub| !hub.faults().is_empty()) {
            return ExitCode::from(FAULTS);
        }
        return super::printed(printed);
    }
    if !io::stdout().is_terminal() {
        _ = writeln!(io::stderr(), "peerpigeon top: the output is not a terminal: use --once");
        return ExitCode::FAILURE;
    }
    let done = Box::pin(show(&mut model, &watch)).await;
    ratatui::restore();
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            _ = writeln!(io::stderr(), "peerpigeon top: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Draws, polls, and handles keys.
async fn show(model: &mut Model, watch: &Watch) -> io::Result<()> {
    let mut terminal = ratatui::try_init()?;
    let mut keys = keys()?;
    let mut polls = Polls::default();
    loop {
        let next = tokio::time::Instant::now() + watch.interval;
        let mut poll = std::pin::pin!(watch.poll(polls.asks(model), model.wanted_roster()));
        let mut is_due = false;
        let mut is_polled = false;
        while !is_due || !is_polled {
            terminal.draw(|frame| draw::draw(model, frame))?;
            let event = tokio::select! {
                event = keys.recv() => event.unwrap_or_else(|| Err(io::ErrorKind::UnexpectedEof.into()))?,
                results = &mut poll, if !is_polled => {
                    polls.take(model, results);
                    is_polled = true;
                    continue;
                }
                () = tokio::time::sleep_until(next), if !is_due => {
                    is_due = true;
                    continue;
                }
            };
            // An event that is no key, such as a new size of the terminal, only needs a redraw.
            if let Event::Key(key) = event {
                match model.key(key) {
                    Wish::Quit => return Ok(()),
                    Wish::Poll => is_due = true,
                    Wish::Nothing => {}
                }
            }
        }
    }
}

/// Reads events of the terminal on a separate thread. The thread ends with the process, because reading cannot be
/// cancelled.
fn keys() -> io::Result<mpsc::Receiver<io::Result<Event>>> {
    let (events, keys) = mpsc::channel(KEYS);
    let read = move || {
        loop {
            let event = event::read();
            let is_over = event.is_err();
            if events.blocking_send(event).is_err() || is_over {
                return;
            }
        }
    };
    std::thread::Builder::new().name("keys".to_owned()).spawn(read)?;
    Ok(keys)
}

/// The pages of a hub that change slowly.
type Known = (Stats, (Option<Flooder>, BTreeMap<String, u64>));

/// The results of a poll. The results are the pages of each hub with the time of their reading, and the members of the
/// network on the screen.
type Results = (Vec<(Instant, Result<Sample, Failure>)>, Option<(usize, Result<Roster, String>)>);

/// Counts the polls, and measures the time between the polls of each hub.
#[derive(Default)]
struct Polls {
    count: u64,
    /// Time of the last result of each hub.
    last: Vec<Instant>,
}

impl Polls {
    /// The slowly changing pages of each hub, if the next poll need not read them again. During a flood, each poll reads
    /// them, because a flooder can return with a new id at any time. The second value is true if the
    /// next poll must read the hub's history, because there is no sample yet.
    fn asks(&mut self, model: &Model) -> Vec<(Option<Known>, bool)> {
        let reads_all = self.count.is_multiple_of(SLOW_PAGES);
        self.count += 1;
        let known = |hub: &Hub| {
            let last = hub.last.as_ref()?;
            Some((last.stats.clone(), (last.flooder.clone(), last.networks.clone())))
        };
        model
            .hubs
            .iter()
            .map(|hub| (known(hub).filter(|known| !reads_all && known.1.0.is_none()), hub.last.is_none()))
            .collect()
    }

    /// Adds the results of a poll to the model.
    fn take(&mut self, model: &mut Model, (results, roster): Results) {
        let times: Vec<Instant> = results.iter().map(|(at, _)| *at).collect();
        for (index, (hub, (at, result))) in model.hubs.iter_mut().zip(results).enumerate() {
            let last = self.last.get(index).copied().unwrap_or(at);
            hub.polled(result, at.saturating_duration_since(last).as_secs_f64());
        }
        self.last = times;
        model.roster = roster;
        model.polled();
    }
}

impl Watch {
    /// Polls all hubs at the same time, and asks one hub for the members of a network.
    async fn poll(&self, asks: Vec<(Option<Known>, bool)>, network: Option<(usize, String)>) -> Results {
        let polls = self.urls.iter().zip(asks).map(async |(url, (known, reads_history))| {
            let result = tokio::time::timeout(PATIENCE, self.pages(url, known, reads_history)).await;
            let result = result.unwrap_or(Err(Failure::Slow));
            (result.as_ref().map_or_else(|_| Instant::now(), |sample| sample.read), result)
        });
        let roster = async {
            let (asked, name) = network?;
            let query = form_urlencoded::Serializer::new(String::new()).append_pair("name", &name).finish();
            let path = format!("/dashboard/network?{query}");
            let roster = self.json(self.urls.get(asked)?, &path).await;
            Some((asked, roster.map_err(|failure| failure.to_string())))
        };
        tokio::join!(all(polls.collect()), roster)
    }

    /// Reads the pages of a hub.
    async fn pages(&self, url: &Uri, known: Option<Known>, reads_history: bool) -> Result<Sample, Failure> {
        let begun = Instant::now();
        let page = Page::parse(&self.page(url, "/metrics").await?);
        let read = Instant::now();
        let begin = Instant::now();
        let hubstats = self.json(url, "/hubstats").await?;
        let answer = begin.elapsed();
        let (stats, (flooder, networks)) = match known {
            Some(known) => known,
            None => {
                let json: MetricsJson = self.json(url, "/metrics?format=json").await?;
                (self.json(url, "/stats").await?, json.parts())
            }
        };
        // The history is less important than the pages. It is read last, within the time that is left for the poll, and
        // its failure is no failure of the poll.
        let left = PATIENCE.saturating_sub(begun.elapsed() + SPARE);
        let history = if reads_history {
            tokio::time::timeout(left, self.events(url)).await.ok().and_then(Result::ok)
        } else {
            None
        };
        let history = history.map(|text| History::parse(&text));
        Ok(Sample { page, read, history, hubstats, answer, stats, flooder, networks })
    }

    async fn json<T: DeserializeOwned>(&self, url: &Uri, path: &str) -> Result<T, Failure> {
        let text = self.page(url, path).await?;
        serde_json::from_str(&text).map_err(|error| Failure::Down(format!("{path} is not a page of a hub: {error}")))
    }

    async fn page(&self, url: &Uri, path: &str) -> Result<String, Failure> {
        let request = self.request(url, path);
        let tls = || Tls::new(self.ca.as_deref());
        let asked = Box::pin(http::ask(url, request, Bytes::new(), tls, &[], PATIENCE)).await;
        self.answer(path, asked)
    }

    /// The history of the live view.
    async fn events(&self, url: &Uri) -> Result<String, Failure> {
        let path = "/dashboard/events";
        let tls = || Tls::new(self.ca.as_deref());
        let asked = Box::pin(http::ask_until(url, self.request(url, path), tls, HISTORY_PATIENCE, history::END)).await;
        self.answer(path, asked)
    }

    fn request(&self, url: &Uri, path: &str) -> Builder {
        let request = Request::get(format!("{}{path}", url.path().trim_end_matches('/')));
        match &self.token {
            Some(token) => request.header(AUTHORIZATION, format!("Bearer {}", token.expose())),
            None => request,
        }
    }

    fn answer(&self, path: &str, asked: Result<(StatusCode, String), ConnectError>) -> Result<String, Failure> {
        match asked {
            Ok((status, text)) if status.is_success() => Ok(text),
            Ok((status, text)) if status.as_u16() == 401 => {
                let why = if self.token.is_some() {
                    "the token of ADMIN_TOKEN or --token-file is wrong"
                } else {
                    "give ADMIN_TOKEN or --token-file"
                };
                Err(Failure::Refused(format!("{status}: {why} ({:.100})", text.trim())))
            }
            Ok((status, _)) if status.as_u16() == 404 => {
                let text = format!("this URL has no page {path}: give the URL of ADMIN_PORT, if the hub has one");
                Err(Failure::Refused(text))
            }
            Ok((status, text)) => {
                let text = format!("{path} answers {status}: {:.100}", text.trim());
                Err(if status.is_client_error() { Failure::Refused(text) } else { Failure::Down(text) })
            }
            Err(ConnectError::Late) => Err(Failure::Slow),
            Err(error) => Err(Failure::Down(error.to_string())),
        }
    }
}

/// Waits for all futures at the same time, and returns their results in order. There is one future for each hub on the
/// command line.
async fn all<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut running: Vec<_> = futures.into_iter().map(|future| (Some(Box::pin(future)), None)).collect();
    std::future::poll_fn(|cx| {
        for (future, result) in &mut running {
            if let Some(polled) = future
                && let std::task::Poll::Ready(ready) = polled.as_mut().poll(cx)
            {
                (*future, *result) = (None, Some(ready));
            }
        }
        if running.iter().all(|(future, _)| future.is_none()) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    running.into_iter().filter_map(|(_, result)| result).collect()
}
