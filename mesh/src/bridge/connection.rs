//! One connection to Redis, used for both directions.
//!
//! The bridge reconnects when the connection ends. The bridge does not use the connection manager of the `redis`
//! library, because that manager gives up after some attempts, and does not report a restored subscription.

use std::sync::Arc;

use proto::limits::{BRIDGE_CONNECT_TIMEOUT, BRIDGE_NODE_TIMEOUT, BRIDGE_PIPELINE_BYTES};
use redis::aio::MultiplexedConnection;
use redis::cluster::ClusterClientBuilder;
use redis::cluster_async::ClusterConnection;
use redis::{AsyncConnectionConfig, Client, ProtocolVersion, RedisResult, Value};

use super::inbox::Mouth;
use super::server::Server;

#[derive(Clone)]
pub(super) enum Connection {
    Server(MultiplexedConnection),
    /// Channels are sharded: each channel is at the node that owns the channel's slot.
    Cluster(ClusterConnection),
}

/// Why the bridge cannot use this server; `None` if it can.
///
/// A message published at the master reaches its replicas. A message published at a replica reaches no other server. So
/// a hub at a replica could receive messages but not send any.
fn unfit(hello: &Value) -> Option<&'static str> {
    let Value::Map(fields) = hello else { return None };
    let field = |name: &str| {
        let text = |value: &Value| redis::from_redis_value_ref::<String>(value).unwrap_or_default();
        fields.iter().find(|(key, _)| text(key) == name).map(|(_, value)| text(value)).unwrap_or_default()
    };
    match (field("mode").as_str(), field("role").as_str()) {
        ("sentinel", _) => Some(
            "this is a Redis Sentinel, which forwards no messages: set REDIS_URL to an address that leads to the \
             master",
        ),
        // Masters and replicas of a cluster forward PUBLISH to all other nodes.
        ("cluster", _) => None,
        (_, "replica" | "slave") => Some(
            "this Redis is a replica, and messages published on it do not reach the master: set REDIS_URL to an \
             address that leads to the master, also after a failover",
        ),
        _ => None,
    }
}

impl Connection {
    /// Connects. Messages that Redis sends without a request go to `mouth`.
    pub(super) async fn open(server: &Server, mouth: Mouth) -> RedisResult<Self> {
        let push = move |info| mouth.take(info);
        if server.cluster {
            let mut builder = ClusterClientBuilder::new(server.nodes.clone())
                .use_protocol(ProtocolVersion::RESP3)
                .push_sender(push)
                .connection_timeout(BRIDGE_CONNECT_TIMEOUT)
                .response_timeout(BRIDGE_NODE_TIMEOUT)
                // Retries help if a slot has moved or a node was lost. All pauses before retries together must take
                // less time than the interval of probes, which is 2 s.
                .retries(3)
                .min_retry_wait(50)
                .max_retry_wait(500);
            if let Some(roots) = &server.roots {
                builder = builder.certs(roots.clone());
            }
            return Ok(Self::Cluster(builder.build()?.get_async_connection().await?));
        }
        let node = server.nodes[0].clone();
        let client = match &server.roots {
            Some(roots) => Client::build_with_tls(node, roots.clone())?,
            None => Client::open(node)?,
        };
        // Requests have no timeout. The bridge detects a silent Redis with its probes, which it sends after everything
        // else on the same socket.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(BRIDGE_CONNECT_TIMEOUT))
            .set_response_timeout(None)
            .set_write_backpressure_boundary(BRIDGE_PIPELINE_BYTES)
            .set_push_sender(push);
        Ok(Self::Server(client.get_multiplexed_async_connection_with_config(&config).await?))
    }

    pub(super) fn is_cluster(&self) -> bool {
        matches!(self, Self::Cluster(_))
    }

    /// Asks the server for its role, and returns the reason if the bridge cannot use it. Nodes of a cluster are not
    /// asked, because they are selected by their slots.
    pub(super) async fn unfit(&mut self) -> RedisResult<Option<&'static str>> {
        match self {
            Self::Server(connection) => Ok(unfit(&redis::cmd("HELLO").query_async(connection).await?)),
            Self::Cluster(_) => Ok(None),
        }
    }

    /// Subscribes to a channel, and waits for the confirmation of Redis.
    pub(super) async fn subscribe(&mut self, channel: &str) -> RedisResult<()> {
        match self {
            Self::Server(connection) => connection.subscribe(channel).await,
            Self::Cluster(connection) => connection.ssubscribe(channel).await,
        }
    }

    /// Publishes frames in one pipeline. In a cluster, all frames of one call must be for the same channel. Returns the
    /// error of each refused frame.
    pub(super) async fn publish(self, frames: Vec<(Arc<str>, Vec<u8>)>) -> RedisResult<Vec<redis::RedisError>> {
        let mut pipeline = redis::Pipeline::with_capacity(frames.len());
        pipeline.ignore_errors();
        let command = if self.is_cluster() { "SPUBLISH" } else { "PUBLISH" };
        for (channel, frame) in &frames {
            pipeline.cmd(command).arg(&**channel).arg(frame.as_slice());
        }
        drop(frames);
        let answers: Vec<RedisResult<Value>> = match self {
            Self::Server(mut connection) => pipeline.query_async(&mut connection).await?,
            Self::Cluster(mut connection) => pipeline.query_async(&mut connection).await?,
        };
        Ok(answers.into_iter().filter_map(Result::err).collect())
    }
}
