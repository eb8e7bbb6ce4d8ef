//! What a configuration must not be, and the bound that it is told.

use std::path::Path;

use quorate_statemachine::InvalidArgument;

use super::{BackupSection, Config, LimitsSection, TlsSection, TraceSection, VerifySection, given};
use crate::backup::Place;

/// Ten minutes: nobody waits longer for a leader, and Raft reckons with a multiple of it.
const ELECTION_MS_MAX: u64 = 600_000;

impl Config {
    /// Checks the relations between options.
    pub fn validate(&self) -> Result<(), InvalidArgument> {
        if !self.node.name.is_empty() {
            quorate_statemachine::Name::parse("node.name", self.node.name.clone())?;
        }
        self.node.check_command_version()?;
        self.backup.validate()?;
        self.trace.validate()?;
        let raft = &self.raft;
        check(
            raft.heartbeat_ms >= 10,
            "raft.heartbeat_ms",
            "at least 10",
            raft.heartbeat_ms,
        )?;
        check(
            raft.election_min_ms >= raft.heartbeat_ms.saturating_mul(2),
            "raft.election_min_ms",
            "at least twice raft.heartbeat_ms",
            raft.election_min_ms,
        )?;
        check(
            raft.election_max_ms > raft.election_min_ms && raft.election_max_ms <= ELECTION_MS_MAX,
            "raft.election_max_ms",
            "more than raft.election_min_ms, and at most 600000",
            raft.election_max_ms,
        )?;
        check(
            raft.snapshot_entries >= 1,
            "raft.snapshot_entries",
            "at least 1",
            raft.snapshot_entries,
        )?;
        check(
            self.limits.watches >= 1,
            "limits.watches",
            "at least 1",
            self.limits.watches,
        )?;
        self.limits.validate()?;
        self.verify.validate()?;
        self.tls.validate()
    }
}

impl LimitsSection {
    /// What is in flight.
    fn validate_in_flight(&self) -> Result<(), InvalidArgument> {
        check(
            self.commands_in_flight >= 1,
            "limits.commands_in_flight",
            "at least 1",
            self.commands_in_flight,
        )?;
        // All but an eighth, the part of upkeep, takes one command.
        let bytes_min = quorate_statemachine::limits::COMMAND_BYTES_MAX;
        let takes_one = |bytes: usize| bytes - bytes / 8 >= bytes_min;
        let wanted = format!("at least {bytes_min}, one command, and a seventh more");
        let (all, own) = (self.bytes_in_flight, self.bytes_in_flight_per_principal);
        check(takes_one(all), "limits.bytes_in_flight", &wanted, all)?;
        check(
            own == 0 || takes_one(own),
            "limits.bytes_in_flight_per_principal",
            &format!("0, or {wanted}"),
            own,
        )
    }

    /// What the ports take.
    fn validate(&self) -> Result<(), InvalidArgument> {
        self.validate_in_flight()?;
        let (connections, streams) = (self.connections, self.streams_per_connection);
        check(
            connections >= 1,
            "limits.connections",
            "at least 1",
            connections,
        )?;
        // A client has two streams, and one for each watch.
        let option = "limits.streams_per_connection";
        check(streams >= 8, option, "at least 8", streams)?;
        let handshake = self.handshake_ms;
        check(
            handshake >= 100,
            "limits.handshake_ms",
            "at least 100",
            handshake,
        )?;
        check(
            self.idle_ms >= 100,
            "limits.idle_ms",
            "at least 100",
            self.idle_ms,
        )
    }
}

impl VerifySection {
    fn validate(&self) -> Result<(), InvalidArgument> {
        let every = self.every_ms;
        let possible = every == 0 || every >= 100;
        check(possible, "verify.every_ms", "at least 100, or 0", every)
    }
}

impl TlsSection {
    fn validate(&self) -> Result<(), InvalidArgument> {
        let need = |option: &str, path: &Path, for_what: &str| {
            let wanted = format!("a file, since {for_what} is set");
            let there = given(path).is_some();
            check(there, option, &wanted, "empty")
        };
        for (option, path) in [
            ("tls.key", &self.key),
            ("tls.ca", &self.ca),
            ("tls.peer_cert", &self.peer_cert),
            ("tls.peer_ca", &self.peer_ca),
        ] {
            if given(path).is_some() {
                need("tls.cert", &self.cert, option)?;
            }
        }
        if self.is_on() {
            need("tls.key", &self.key, "tls.cert")?;
            need("tls.ca", &self.ca, "tls.cert")?;
        }
        if given(&self.peer_cert).is_some() {
            need("tls.peer_key", &self.peer_key, "tls.peer_cert")?;
        }
        if given(&self.peer_key).is_some() {
            need("tls.peer_cert", &self.peer_cert, "tls.peer_key")?;
        }
        let reload = self.reload_ms;
        check(reload >= 50, "tls.reload_ms", "at least 50", reload)
    }
}

impl BackupSection {
    fn validate(&self) -> Result<(), InvalidArgument> {
        if self.is_on() {
            Place::parse("backup.to", &self.to)?;
        }
        check_url("backup.endpoint", &self.endpoint, &["https://", "http://"])?;
        let (every_s, alarm_after_s) = (self.every_s, self.alarm_after_s);
        check(every_s >= 1, "backup.every_s", "at least 1", every_s)?;
        check(
            alarm_after_s > every_s,
            "backup.alarm_after_s",
            "more than backup.every_s",
            alarm_after_s,
        )
    }
}

impl TraceSection {
    fn validate(&self) -> Result<(), InvalidArgument> {
        check_url("trace.otlp", &self.otlp, &["http://"])
    }
}

fn check(
    holds: bool,
    field: &str,
    limit: &str,
    actual: impl std::fmt::Display,
) -> Result<(), InvalidArgument> {
    if holds {
        return Ok(());
    }
    Err(InvalidArgument::new(
        field,
        "is out of range",
        limit,
        actual.to_string(),
    ))
}

/// Empty, or a URL of a host by one of these schemes.
fn check_url(field: &str, text: &str, schemes: &[&str]) -> Result<(), InvalidArgument> {
    let host = schemes.iter().find_map(|scheme| text.strip_prefix(scheme));
    let known = |c: char| c.is_ascii_alphanumeric() || ".-_:[]".contains(c);
    match host {
        None if text.is_empty() => Ok(()),
        Some(host) if !host.is_empty() && host.chars().all(known) => Ok(()),
        _ => {
            let wanted = format!(
                "{}HOST:PORT without credentials",
                schemes.join("HOST:PORT or ")
            );
            Err(no_place(field, &wanted, text))
        }
    }
}

/// Somebody may have put credentials there: they are not told.
pub fn no_place(field: &str, wanted: &str, actual: &str) -> InvalidArgument {
    let actual = match actual.contains('@') {
        true => "a text with @".to_owned(),
        false => actual.to_owned(),
    };
    InvalidArgument::new(field, "is no such place", wanted, actual)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RaftSection;

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(Config::default().validate(), Ok(()));
    }

    #[test]
    fn a_collector_is_reached_by_http_or_not_at_all() {
        let with = |otlp: &str| {
            let mut config = Config::default();
            config.trace.otlp = otlp.to_owned();
            config.validate()
        };
        assert_eq!(with("http://127.0.0.1:4317"), Ok(()));
        for bad in [
            "127.0.0.1:4317",
            "https://collector:4317",
            "http://",
            "http://a b",
        ] {
            let error = with(bad).expect_err("no http:// and an address");
            assert_eq!((&*error.field, &*error.actual), ("trace.otlp", bad));
        }
        let error = with("http://me:secret@h:4317").expect_err("a password");
        assert_eq!(error.actual, "a text with @");
    }

    #[test]
    fn a_store_is_reached_at_a_host_and_credentials_are_not_told() {
        let endpoint = |text| check_url("backup.endpoint", text, &["https://", "http://"]);
        for good in [
            "",
            "https://store.example",
            "http://127.0.0.1:9000",
            "http://[::1]:1",
        ] {
            assert_eq!(endpoint(good), Ok(()), "{good}");
        }
        for bad in [
            "store.example",
            "https://",
            "https://h/path",
            "https://id:secret@h",
        ] {
            let error = endpoint(bad).expect_err(bad).to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn an_election_that_nobody_waits_for_is_refused() {
        let mut config = Config::default();
        config.raft.election_max_ms = ELECTION_MS_MAX;
        assert_eq!(config.validate(), Ok(()));
        for beyond in [ELECTION_MS_MAX + 1, u64::MAX] {
            config.raft.election_max_ms = beyond;
            let error = config.validate().expect_err("too long");
            assert_eq!(error.field, "raft.election_max_ms");
        }
        config.raft = RaftSection::default();
        config.raft.heartbeat_ms = u64::MAX;
        assert!(config.validate().is_err());
    }

    #[test]
    fn an_election_faster_than_the_heartbeat_is_refused_with_both_values() {
        let mut config = Config::default();
        config.raft.election_min_ms = 150;
        let error = config.validate().expect_err("less than two heartbeats");
        assert_eq!(error.field, "raft.election_min_ms");
        assert_eq!(error.actual, "150");
    }
}
