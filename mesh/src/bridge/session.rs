//! One connection to Redis, from connecting to its end.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use proto::HubId;
use proto::limits::{BRIDGE_BATCH, BRIDGE_CONNECT_TIMEOUT, BRIDGE_PIPELINES, BRIDGE_PROBE, MAX_ONE_WAY};
use redis::RedisError;
use thread::planted;
use tls::Explained;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tracing::{debug, info, warn};

use super::connection::Connection;
use super::frame::HEADER;
use super::fresh::{Fresh, Judgment};
use super::inbox::{Inbox, Push, inbox};
use super::publish_queue::To;
use super::question::ask;
use super::server::Server;
use super::stamp::Stamp;
use super::{BridgeEvent, BridgeState, Events, bounded};

/// Why a connection has ended.
pub(super) enum End {
    /// The mesh has ended.
    Unwanted,
    /// The connection failed, and the bridge reconnects.
    Failed(String),
}

impl From<RedisError> for End {
    fn from(error: RedisError) -> Self {
        Self::Failed(match Explained::among(&error) {
            Some(sentence) => format!("TLS: {sentence}"),
            None => error.to_string(),
        })
    }
}

/// Connects, subscribes, and transfers frames until something fails.
pub(super) async fn run(state: Rc<BridgeState>, server: Rc<Server>, events: Events) -> End {
    planted("redis");
    match connect(&state, &server).await {
        Ok((connection, inbox, fresh)) => {
            let beats = [Beat::default(), Beat::default()];
            let mut session = RedisSession {
                state,
                events,
                connection,
                inbox,
                fresh,
                publishing: JoinSet::new(),
                role: JoinSet::new(),
                beats,
                up: false,
                lost: false,
            };
            match Box::pin(session.serve()).await {
                Ok(never) => match never {},
                Err(end) => end,
            }
        }
        Err(end) => end,
    }
}

async fn connect(state: &BridgeState, server: &Server) -> Result<(Connection, Inbox, Rc<RefCell<Fresh>>), End> {
    let fresh = Fresh::new().ok_or_else(|| End::Failed("the system has no random numbers".to_owned()))?;
    let fresh = Rc::new(RefCell::new(fresh));
    *state.fresh.borrow_mut() = Some(Rc::clone(&fresh));
    let slow = |what| move |_| End::Failed(format!("{what} timed out"));
    let (mouth, inbox) = inbox();
    let mut connection = Box::pin(timeout(BRIDGE_CONNECT_TIMEOUT, Connection::open(server, mouth)))
        .await
        .map_err(slow("connecting"))??;
    let subscribe = async {
        check_role(&mut connection).await?;
        for channel in &state.channels {
            connection.subscribe(channel).await?;
        }
        Ok::<_, End>(())
    };
    Box::pin(timeout(BRIDGE_CONNECT_TIMEOUT, subscribe)).await.map_err(slow("subscribing"))??;
    Ok((connection, inbox, fresh))
}

/// Fails if the bridge cannot use the server, for example because it is a replica. A server that does not report its
/// role is accepted.
async fn check_role(connection: &mut Connection) -> Result<(), End> {
    match connection.unfit().await {
        Ok(Some(reason)) => Err(End::Failed(reason.to_owned())),
        Ok(None) | Err(_) => Ok(()),
    }
}

/// Tracks whether a channel works, that is, whether frames of this connection come back on it.
#[derive(Clone, Copy, Default)]
struct Beat {
    /// Whether a frame of this connection came back since the last probe was due.
    heard: bool,
    /// Whether a published frame must come back before the next probe.
    asked: bool,
    /// Whether a frame of this connection has ever come back.
    works: bool,
}

struct RedisSession {
    state: Rc<BridgeState>,
    events: Events,
    connection: Connection,
    inbox: Inbox,
    /// The challenges and answers of this connection.
    fresh: Rc<RefCell<Fresh>>,
    publishing: JoinSet<Published>,
    /// The request that checks whether the server is still a master. The bridge asks for the role of the server with
    /// each probe, but never while an earlier request is unanswered.
    role: JoinSet<Result<(), End>>,
    /// The state of the channel of all hubs, and that of this hub's channel.
    beats: [Beat; 2],
    up: bool,
    /// Whether messages were lost since the last probe was due. The probe may be one of the lost messages.
    lost: bool,
}

/// The result of one pipeline.
struct Published {
    /// The lane that waits for the result, in a cluster.
    lane: Option<To>,
    probe: bool,
    frames: usize,
    bytes: usize,
    result: redis::RedisResult<Vec<RedisError>>,
}

enum Never {}

impl RedisSession {
    async fn serve(&mut self) -> Result<Never, End> {
        let mut ticks = interval(BRIDGE_PROBE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut pushes = Vec::new();
        let state = Rc::clone(&self.state);
        loop {
            tokio::select! {
                n = self.inbox.recv_many(&mut pushes, BRIDGE_BATCH) => {
                    if n == 0 {
                        return Err(End::Failed("the connection has ended".to_owned()));
                    }
                    self.take(&mut pushes).await?;
                }
                () = state.wake.notified() => {}
                Some(published) = self.publishing.join_next() => match published {
                    Ok(published) => self.published(published)?,
                    Err(error) => return Err(End::Failed(error.to_string())),
                },
                Some(checked) = self.role.join_next() => match checked {
                    Ok(checked) => checked?,
                    Err(error) => return Err(End::Failed(error.to_string())),
                },
                due = ticks.tick() => {
                    self.inbox.drain(&mut pushes);
                    self.take(&mut pushes).await?;
                    self.judge(due)?;
                    self.tick();
                    self.probe();
                    self.ask_role();
                }
            }
            self.publish();
        }
    }

    /// Processes the pushes of Redis.
    async fn take(&mut self, pushes: &mut Vec<Push>) -> Result<(), End> {
        for push in pushes.drain(..) {
            match push {
                Push::Message { channel, frame } => self.received(&channel, frame).await?,
                // The library reconnects to a lost node and subscribes again. The probes show whether that worked.
                Push::Disconnected if self.connection.is_cluster() => {}
                Push::Disconnected => return Err(End::Failed("Redis closed the connection".to_owned())),
                Push::Unsubscribed => return Err(End::Failed("Redis ended a subscription".to_owned())),
            }
        }
        let lost = self.inbox.take_lost();
        self.lost |= lost > 0;
        self.state.view.borrow_mut().lost += lost;
        Ok(())
    }

    async fn received(&mut self, channel: &[u8], mut frame: Vec<u8>) -> Result<(), End> {
        let at = self.state.channels.iter().position(|own| own.as_bytes() == channel);
        let opened = at.and_then(|at| Some((at, self.state.seal.open(&self.state.channels[at], &frame).ok()?)));
        let Some((at, from)) = opened else {
            let mut view = self.state.view.borrow_mut();
            view.refused += 1;
            if view.refused == 1 {
                let detail = "the frame is signed with another MESH_TOKEN, or no hub published it: see \
                    PeerPigeonRedisForeign in the runbook";
                warn!(address = %view.address, detail, "bridge_frame_refused");
            }
            return Ok(());
        };
        let payload = &frame[HEADER..];
        // A hub of version 2.0 publishes empty frames to itself.
        if payload.is_empty() {
            return Ok(());
        }
        if self.fresh.borrow().is_own(payload) {
            (self.beats[at].heard, self.beats[at].works) = (true, true);
            return self.rise().await;
        }
        let judgment = self.fresh.borrow_mut().judge(from, at, payload);
        self.respond(from, &judgment);
        // Before `Up`, it is not known whether this hub can answer.
        if judgment.met && self.up && from != self.state.hub {
            self.tell(BridgeEvent::Met).await?;
        }
        let envelopes = HEADER + Stamp::len(payload);
        if !judgment.taken || !self.up || frame.len() == envelopes {
            return Ok(());
        }
        {
            let mut view = self.state.view.borrow_mut();
            view.received += 1;
            view.bytes_in += frame.len() as u64;
        }
        frame.drain(..envelopes);
        self.tell(BridgeEvent::Received { from, frame }).await
    }

    /// Sends the hub the reply that its frame requires, and records the verdict about the frame.
    fn respond(&self, from: HubId, judgment: &Judgment) {
        let state = &self.state;
        let mut queue = state.queue.borrow_mut();
        if judgment.answer {
            // The frame needs no envelopes, because its stamp echoes the challenge.
            queue.push(Some(from), &state.seal, |_| {});
        }
        if let Some(question) = judgment.ask {
            queue.push(Some(from), &state.seal, |out| ask(question, from, state.hub).encode(out));
        }
        let mut view = state.view.borrow_mut();
        if !judgment.taken {
            view.stale[usize::from(judgment.repeated)] += 1;
        }
        if judgment.twins || (judgment.met && from == state.hub) {
            let detail = "two live hubs have this id: unset HUB_ID, or set a different one on each hub";
            warn!(hub = %from, address = %view.address, detail, "bridge_hub_id_taken");
        }
    }

    async fn rise(&mut self) -> Result<(), End> {
        if self.up || !self.beats.iter().all(|beat| beat.works) {
            return Ok(());
        }
        self.up = true;
        let address = self.state.rise();
        info!(%address, "bridge_up");
        self.tell(BridgeEvent::Up).await
    }

    async fn tell(&self, event: BridgeEvent) -> Result<(), End> {
        self.events.send((self.state.hub, event)).await.map_err(|_| End::Unwanted)
    }

    /// Ends the connection if a probe has not come back in time.
    fn judge(&mut self, due: Instant) -> Result<(), End> {
        // If the process or the reader was stopped, messages that arrived meanwhile have not been read. A missing probe
        // then proves nothing.
        let late = due.elapsed() > BRIDGE_PROBE / 4 || self.lost;
        let silent = self.beats.iter().position(|beat| beat.asked && !beat.heard);
        self.lost = false;
        match silent {
            Some(at) if !late => {
                Err(End::Failed(format!("no answer on {} for {BRIDGE_PROBE:?}", self.state.channels[at])))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Draws challenges, and records and logs which hubs do not answer challenges.
    fn tick(&self) {
        let mut fresh = self.fresh.borrow_mut();
        fresh.tick();
        let one_way: Vec<HubId> = fresh.one_way().take(MAX_ONE_WAY).collect();
        let mut view = self.state.view.borrow_mut();
        for hub in one_way.iter().filter(|hub| !view.one_way.contains(hub)) {
            let detail = "that hub does not receive the frames of this hub over Redis, or somebody publishes its \
                          recorded frames again: check REDIS_URL and the Redis rights of that hub";
            warn!(%hub, address = %view.address, detail, "bridge_one_way");
        }
        for hub in view.one_way.iter().filter(|hub| !one_way.contains(hub)) {
            info!(%hub, address = %view.address, "bridge_one_way_ended");
        }
        view.one_way = one_way;
    }

    /// Publishes a probe on the channel of all hubs if no frame of this connection has come back on it since the last
    /// call. This hub's own channel is always probed, since a hub sends itself nothing else.
    fn probe(&mut self) {
        for (at, to) in [None, Some(self.state.hub)].into_iter().enumerate() {
            let beat = &mut self.beats[at];
            beat.asked = !beat.heard || to.is_some();
            beat.heard = false;
            if beat.asked {
                self.start(vec![(to, self.state.seal.begin())], None, true);
            }
        }
    }

    /// Asks whether the server is still a master. A failover can demote the server without closing its connections.
    fn ask_role(&mut self) {
        if self.role.is_empty() {
            let mut connection = self.connection.clone();
            self.role.spawn_local(async move { check_role(&mut connection).await });
        }
    }

    /// Starts pipelines until [`BRIDGE_PIPELINES`] are in progress.
    fn publish(&mut self) {
        let cluster = self.connection.is_cluster();
        while self.publishing.len() < BRIDGE_PIPELINES {
            let mut queue = self.state.queue.borrow_mut();
            let frames = if cluster { queue.take_lane() } else { queue.take() };
            drop(queue);
            let Some((to, _)) = frames.first() else { break };
            let lane = cluster.then_some(*to);
            self.start(frames, lane, false);
        }
    }

    fn start(&mut self, frames: Vec<(To, Vec<u8>)>, lane: Option<To>, probe: bool) {
        let bytes = frames.iter().map(|(_, frame)| frame.len()).sum();
        let mut fresh = self.fresh.borrow_mut();
        let seal = |(to, mut frame): (To, Vec<u8>)| {
            let channel = self.state.channel(to);
            fresh.stamp(to, &mut frame);
            self.state.seal.finish(&channel, &mut frame);
            (channel, frame)
        };
        let sealed: Vec<(Arc<str>, Vec<u8>)> = frames.into_iter().map(seal).collect();
        let frames = sealed.len();
        let connection = self.connection.clone();
        // Frames keep their order. Tasks of this runtime start in the order in which they are spawned. When a task
        // starts, it puts its pipeline into the queue of the Redis connection, which is longer than BRIDGE_PIPELINES.
        self.publishing.spawn_local(async move {
            let result = Box::pin(connection.publish(sealed)).await;
            Published { lane, probe, frames, bytes, result }
        });
    }

    fn published(&mut self, published: Published) -> Result<(), End> {
        let Published { lane, probe, frames, bytes, result } = published;
        let mut queue = self.state.queue.borrow_mut();
        if let Some(to) = lane {
            queue.release(to);
        }
        if probe {
            // A probe that Redis refuses does not come back. A missing right is one possible reason.
            return result?.into_iter().next().map_or(Ok(()), |error| Err(error.into()));
        }
        queue.accepted(bytes);
        drop(queue);
        let (refused, error) = match result {
            Ok(errors) => (errors.len(), errors.into_iter().next()),
            // Other nodes of the cluster may work. If this hub needs the failed node, its probes will fail.
            Err(error) if self.connection.is_cluster() => (frames, Some(error)),
            Err(error) => return Err(error.into()),
        };
        let mut view = self.state.view.borrow_mut();
        view.published += (frames - refused) as u64;
        view.bytes_out += bytes as u64;
        drop(view);
        if let Some(error) = error {
            let error = error.to_string();
            let error = bounded(&error);
            debug!(%error, refused, "bridge_publish_failed");
            self.state.failed(refused as u64, error);
        }
        Ok(())
    }
}
