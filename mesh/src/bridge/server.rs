//! The Redis server or cluster that REDIS_URL names.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use proto::Redacted;
use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion, TlsCertificates};

/// A Redis server, or a Redis Cluster.
pub(super) struct Server {
    /// The server, or the nodes of the cluster that are tried first.
    pub(super) nodes: Vec<ConnectionInfo>,
    pub(super) cluster: bool,
    /// The trusted certificates, if there are more than the public roots.
    pub(super) roots: Option<TlsCertificates>,
    /// The URL without user and password.
    pub(super) address: String,
    /// The database number in the URL. Pub/sub has no databases, so the number has no effect, and the bridge does not
    /// select the database.
    pub(super) database: i64,
}

impl Server {
    /// Parses `redis[s][+cluster]://[user][:password]@host[:port][,host[:port]..][/db]`.
    ///
    /// # Errors
    ///
    /// Returns a sentence that says what is wrong with the URL, without the password.
    pub(super) fn parse(url: &str, extra_roots: Option<&[u8]>) -> Result<Self, String> {
        let (scheme, rest) = url.split_once("://").ok_or("the Redis URL has no scheme: use redis:// or rediss://")?;
        let (plain, cluster) = match scheme {
            "redis" | "rediss" => (scheme, false),
            "redis+cluster" => ("redis", true),
            "rediss+cluster" => ("rediss", true),
            _ => {
                return Err(
                    "unknown scheme of a Redis URL: use redis, rediss, redis+cluster or rediss+cluster".to_owned()
                );
            }
        };
        let (authority, tail) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if tail.contains('@') {
            let sentence = "the Redis URL has an @ after its host: percent-encode special characters of the password \
                            (/ is %2F, ? is %3F, # is %23, @ is %40)";
            return Err(sentence.to_owned());
        }
        if tail.contains('#') {
            return Err("the Redis URL has a fragment (#): remove it; certificates are always verified".to_owned());
        }
        let (user, hosts) = authority.rsplit_once('@').map_or(("", authority), |(user, hosts)| (user, hosts));
        let at = if authority.contains('@') { "@" } else { "" };
        let nodes: Result<Vec<_>, _> = hosts.split(',').map(|host| node(plain, user, at, host, tail)).collect();
        let nodes = nodes?;
        if nodes.len() > 1 && !cluster {
            return Err("several Redis nodes need a cluster: use redis+cluster:// or rediss+cluster://".to_owned());
        }
        if cluster && nodes.iter().any(|node| node.redis_settings().db() != 0) {
            return Err("a Redis Cluster has only database 0: remove the database number".to_owned());
        }
        let tls = nodes.iter().any(|node| matches!(node.addr(), ConnectionAddr::TcpTls { .. }));
        let roots = extra_roots.filter(|_| tls).map(trust);
        let database = nodes.first().map_or(0, |node| node.redis_settings().db());
        // The bridge sends no SELECT, which would need one more right and would change nothing.
        let nodes = nodes.into_iter().map(without_database).collect();
        Ok(Self { nodes, cluster, roots, address: Redacted(url).to_string(), database })
    }

    pub(super) fn is_tls(&self) -> bool {
        self.nodes.iter().any(|node| matches!(node.addr(), ConnectionAddr::TcpTls { .. }))
    }
}

fn node(scheme: &str, user: &str, at: &str, host: &str, tail: &str) -> Result<ConnectionInfo, String> {
    let wrong = || {
        format!(
            "{} is not a Redis URL: use redis://host[:port]",
            Redacted(&format!("{scheme}://{user}{at}{host}{tail}"))
        )
    };
    if host.is_empty() {
        return Err(wrong());
    }
    let info = format!("{scheme}://{user}{at}{host}{tail}").into_connection_info().map_err(|_| wrong())?;
    // Only RESP3 carries messages and answers over one connection.
    let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3).set_skip_set_lib_name();
    Ok(info.set_redis_settings(settings))
}

fn without_database(node: ConnectionInfo) -> ConnectionInfo {
    let settings = node.redis_settings().clone().set_db(0);
    node.set_redis_settings(settings)
}

/// Combines the public roots and `extra_roots`, because the library takes one complete list in PEM format.
fn trust(extra_roots: &[u8]) -> TlsCertificates {
    let mut pem = Vec::new();
    for root in webpki_root_certs::TLS_SERVER_ROOT_CERTS {
        pem.extend_from_slice(b"-----BEGIN CERTIFICATE-----\n");
        for line in BASE64.encode(root).as_bytes().chunks(64) {
            pem.extend_from_slice(line);
            pem.push(b'\n');
        }
        pem.extend_from_slice(b"-----END CERTIFICATE-----\n");
    }
    pem.extend_from_slice(extra_roots);
    TlsCertificates { client_tls: None, root_cert: Some(pem) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(url: &str) -> String {
        match Server::parse(url, None) {
            Ok(server) => {
                let nodes = server.nodes.iter().map(|node| {
                    let settings = node.redis_settings();
                    let (user, password) = (settings.username().unwrap_or("-"), settings.password().unwrap_or("-"));
                    format!("{} {user} {password} {}", node.addr(), settings.db())
                });
                let database = if server.database == 0 { String::new() } else { format!(" /{}", server.database) };
                format!("{} [{}]{database}", server.address, nodes.collect::<Vec<_>>().join("; "))
            }
            Err(error) => error,
        }
    }

    #[test]
    fn urls_are_read_and_shown_without_their_secrets() {
        for (url, expected) in [
            ("redis://h", "redis://h [h:6379 - - 0]"),
            ("redis://h:1/3", "redis://h:1/3 [h:1 - - 0] /3"),
            ("redis://:p%2C%40@h:1", "redis://h:1 [h:1 - p,@ 0]"),
            ("rediss://u:p@h:1", "rediss://h:1 [h:1 u p 0]"),
            ("redis+cluster://u:p@a:1,b:2", "redis+cluster://a:1,b:2 [a:1 u p 0; b:2 u p 0]"),
            ("redis://:p@q@h:1/2?protocol=resp3", "redis://h:1/2 [h:1 - p@q 0] /2"),
            ("redis+cluster://[::1]:1", "redis+cluster://[::1]:1 [::1:1 - - 0]"),
        ] {
            assert_eq!(parsed(url), expected);
        }
    }

    #[test]
    fn invalid_redis_urls_are_refused_without_showing_secrets() {
        for url in [
            "",
            "h:6379",
            "http://h",
            "redis://",
            "redis://a,b",
            "redis+cluster://a,,b",
            "redis+cluster://a/2",
            "rediss://h#insecure",
            "redis://u:hunter2@h:port",
            "redis://u:hunter2@h:1/x",
            "redis://u:hunter2/secret@h:1",
            "redis://u:hunter2?secret@h:1",
            "redis://u:hunter2#secret@h:1",
            "redis://u:hunter2@secret/1@h:1",
        ] {
            let Err(error) = Server::parse(url, None) else { panic!("{url} was taken") };
            assert!(!error.contains("hunter2") && !error.contains("secret"), "{error}");
        }
    }
}
