//! Divides the process's file descriptors. Peers get the descriptors that links, operators and the hub itself do not
//! need.

use proto::limits::{
    ADMIN_FILES, LINK_FILES, MAX_DIALS_AT_ONCE, OTHER_FILES, REQUEST_FILES, RUNTIME_FILES, SMALLEST_FILE_SHARE,
    STANDARD_FILES,
};
use shard::FileShares;

use crate::config::Config;

/// How the file descriptors are divided.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Files {
    /// Maximum number of peers' WebSockets. The maximum is MAX_CONNECTIONS, or less if there are not enough files.
    pub seats: usize,
    /// Maximum number of open sockets for each kind of listener.
    pub shares: FileShares,
    /// Maximum number of dials to other hubs at a time. All dials together can open further connections in parallel, at
    /// most a quarter of this maximum. The connections of all dials together use at most half of the files reserved for
    /// links.
    pub dials: usize,
    /// Number of files that peers may not use.
    reserve: usize,
    /// Number of files that would be enough for MAX_CONNECTIONS.
    wanted: usize,
}

impl Files {
    /// Divides `max_files`, the maximum number of open files of the process. `None` means no limit.
    pub fn divide(config: &Config, max_files: Option<u64>) -> Self {
        let needs = Needs::of(config);
        let max_connections = config.max_connections;
        let wanted = max_connections.saturating_add(needs.all(usize::MAX).reserve());
        let max_files = max_files.and_then(|files| usize::try_from(files).ok());
        let Some(max_files) = max_files else {
            let shares = FileShares { admin: ADMIN_FILES, links: LINK_FILES, ..FileShares::UNLIMITED };
            return Self { seats: max_connections, shares, dials: MAX_DIALS_AT_ONCE, reserve: 0, wanted };
        };
        let kept = needs.all(max_files);
        let seats = max_files.saturating_sub(kept.reserve()).clamp(1, max_connections);
        let peers = max_files.saturating_sub(kept.reserve() - kept.requests).max(seats + kept.requests);
        let shares = FileShares { peers, links: kept.links, admin: kept.admin };
        let dials = (kept.links * 2 / 5).clamp(1, MAX_DIALS_AT_ONCE);
        Self { seats, shares, dials, reserve: kept.reserve(), wanted }
    }

    /// A warning for the operator, if there are not enough files.
    pub fn warning(&self, config: &Config, max_files: Option<u64>) -> Option<String> {
        let max_files = max_files.filter(|_| self.seats < config.max_connections)?;
        Some(format!(
            "MAX_CONNECTIONS is {}, but this process may open only {max_files} files and reserves {} of them for \
             listeners, links, probes and itself, so it admits {} peers: raise the hard limit (`ulimit -Hn`) to {} or \
             more, or lower MAX_CONNECTIONS",
            config.max_connections, self.reserve, self.seats, self.wanted
        ))
    }
}

/// What determines how many files a hub needs in addition to the sockets of its peers.
struct Needs {
    /// Standard streams, runtimes and listeners, which are always open.
    fixed: usize,
    /// Number of listeners for peers, and of listeners that redirect. Each listener for peers or for redirects needs
    /// one more file for its next connection.
    listeners: usize,
    meshed: bool,
    /// Number of hubs that this hub always dials.
    dialed: usize,
    admin: bool,
}

/// Number of files for each purpose.
struct Kept {
    fixed: usize,
    links: usize,
    admin: usize,
    requests: usize,
    other: usize,
}

impl Kept {
    fn reserve(&self) -> usize {
        self.fixed + self.links + self.admin + self.requests + self.other
    }
}

impl Needs {
    fn of(config: &Config) -> Self {
        let shards = usize::from(config.shards);
        let meshed = config.has_mesh();
        let redirects = usize::from(config.redirect_port.is_some());
        let others =
            usize::from(config.admin_port.is_some()) + usize::from(config.is_hub && config.mesh.port.is_some());
        let each = config.listen.len() * shards;
        let listeners = (1 + redirects) * each;
        // The main thread, each shard and the mesh have a runtime of their own.
        let runtimes = 1 + shards + usize::from(meshed);
        Self {
            fixed: STANDARD_FILES + runtimes * RUNTIME_FILES + others * each + listeners,
            listeners,
            meshed,
            dialed: config.bootstrap_hubs.len(),
            admin: config.admin_port.is_some(),
        }
    }

    /// Divides `max_files`. Each purpose with a maximum gets its part of `max_files`, between [`SMALLEST_FILE_SHARE`]
    /// and this maximum.
    fn all(&self, max_files: usize) -> Kept {
        let part = |of: usize, all: usize| (max_files / of).clamp(SMALLEST_FILE_SHARE, all);
        // Each dialed hub can have a link in each direction, until one of the two links is closed.
        let links = part(16, LINK_FILES).max(2 * self.dialed).min(LINK_FILES);
        Kept {
            fixed: self.fixed,
            links: if self.meshed { links } else { 0 },
            admin: if self.admin { part(32, ADMIN_FILES) } else { 0 },
            requests: part(32, REQUEST_FILES) + self.listeners,
            other: part(64, OTHER_FILES),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn divided(pairs: &[(&str, &str)], max_files: Option<u64>) -> Files {
        let pairs = [&[("HOST", "127.0.0.1"), ("SHARDS", "2")], pairs].concat();
        Files::divide(&Config::from_pairs(&pairs).unwrap(), max_files)
    }

    const MESHED: [(&str, &str); 4] =
        [("IS_HUB", "true"), ("MESH_TOKEN", "t"), ("ADMIN_PORT", "8082"), ("MESH_PORT", "8081")];

    #[test]
    fn peers_get_the_files_that_nothing_else_needs() {
        for max_files in [64_u64, 120, 256, 1024, 4096, 65_536] {
            for pairs in [&[][..], &MESHED] {
                let pairs = [pairs, &[("MAX_CONNECTIONS", "100000")]].concat();
                let files = divided(&pairs, Some(max_files));
                let FileShares { peers, links, admin } = files.shares;
                let fixed = Needs::of(&Config::from_pairs(&[&[("SHARDS", "2")], &pairs[..]].concat()).unwrap()).fixed;
                assert!(files.seats >= 1 && files.seats < peers, "{max_files}: {files:?}");
                assert!((1..=MAX_DIALS_AT_ONCE).contains(&files.dials), "{max_files}: {files:?}");
                let attempts = files.dials + (files.dials / 4).max(1);
                assert!(links == 0 || attempts <= links / 2, "{max_files}: {files:?}");
                assert!(fixed + peers + links + admin <= max_files as usize, "{max_files}: {files:?}");
            }
        }
    }

    #[test]
    fn with_enough_files_max_connections_is_unchanged() {
        for pairs in [&[][..], &MESHED] {
            assert_eq!(divided(pairs, None).seats, 1000);
            let config = Config::from_pairs(pairs).unwrap();
            let wanted = divided(pairs, Some(100)).wanted as u64;
            assert!(wanted < 1000 + 1024, "{wanted}");
            let enough = divided(pairs, Some(wanted));
            assert_eq!((enough.seats, enough.warning(&config, Some(wanted))), (1000, None));
            assert_eq!(divided(pairs, Some(4096)).seats, 1000);
        }
    }

    #[test]
    fn the_warning_about_files_has_numbers_and_advice() {
        let files = divided(&MESHED, Some(120));
        let config = Config::from_pairs(&MESHED).unwrap();
        let said = files.warning(&config, Some(120)).unwrap();
        let parts = [
            "MAX_CONNECTIONS is 1000".to_owned(),
            "only 120 files".to_owned(),
            format!("admits {} peers", files.seats),
        ];
        for part in parts.into_iter().chain([format!("to {} or more", files.wanted)]) {
            assert!(said.contains(&part), "{said}");
        }
    }

    #[test]
    fn a_hub_that_dials_many_hubs_reserves_files_for_them() {
        let hubs = (0..40).map(|n| format!("ws://h{n}")).collect::<Vec<_>>().join(",");
        let files = divided(&[("BOOTSTRAP_HUBS", &hubs), ("MESH_TOKEN", "t")], Some(300));
        assert_eq!((files.shares.links, files.dials), (80, 32));
        assert_eq!(divided(&MESHED, None).dials, MAX_DIALS_AT_ONCE);
    }
}
