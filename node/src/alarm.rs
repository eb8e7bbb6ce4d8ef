//! What an operator should know of a node that goes on: one alarm a kind, until it is over.
//!
//! Alarms are the node's own and not replicated: each says what is wrong here. They are in
//! `status`, `/readyz?verbose` and `quorate alarm list`. Who raises one clears it when its cause
//! has gone.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use quorate_rpc::v1;

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AlarmKind {
    /// The state of this node differs from that of most members.
    Quarantined,
    /// The members' states differ, and no quorum has the same.
    Diverged,
    /// The newest good backup is older than it should be, or there is none.
    BackupOld,
    /// A certificate in use ends soon, or has ended.
    CertificateExpiring,
    /// New certificates or keys cannot be used; those before them stay in use.
    CertificateRefused,
    /// Less of this node's disk is free than its reserve.
    DiskNearlyFull,
}

impl AlarmKind {
    /// For labels of metrics and for scripts.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Quarantined => "quarantined",
            Self::Diverged => "diverged",
            Self::BackupOld => "backup_old",
            Self::CertificateExpiring => "certificate_expiring",
            Self::CertificateRefused => "certificate_refused",
            Self::DiskNearlyFull => "disk_nearly_full",
        }
    }

    /// Whether the node must be given no work while it lasts. Other alarms are for people: the node
    /// stays ready.
    #[must_use]
    pub fn unready(self) -> bool {
        match self {
            Self::Quarantined => true,
            // Nobody is known to be wrong.
            Self::Diverged => false,
            Self::BackupOld => false,
            Self::CertificateExpiring | Self::CertificateRefused => false,
            // It answers, and the leader knows what to refuse.
            Self::DiskNearlyFull => false,
        }
    }
}

/// An alarm that is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alarm {
    /// What is wrong.
    pub kind: AlarmKind,
    /// The facts, and what to do.
    pub text: String,
    /// Since when, by this node's own clock.
    pub since: SystemTime,
}

/// The alarms of one node.
#[derive(Debug, Default)]
pub struct Alarms(Mutex<BTreeMap<AlarmKind, Alarm>>);

impl Alarms {
    /// Raises an alarm, or gives the one that is on a new text.
    pub fn raise(&self, kind: AlarmKind, text: impl Into<String>) {
        let text = text.into();
        let mut alarms = self.alarms();
        if let Some(alarm) = alarms.get_mut(&kind) {
            alarm.text = text;
            return;
        }
        tracing::warn!(alarm = kind.name(), text, "alarm");
        let since = SystemTime::now();
        alarms.insert(kind, Alarm { kind, text, since });
    }

    /// Ends an alarm; nothing if it is not on.
    pub fn clear(&self, kind: AlarmKind) {
        if let Some(alarm) = self.alarms().remove(&kind) {
            let lasted = alarm.since.elapsed().unwrap_or_default();
            tracing::info!(alarm = kind.name(), ?lasted, "alarm is over");
        }
    }

    /// Whether this one is on.
    #[must_use]
    pub fn is_on(&self, kind: AlarmKind) -> bool {
        self.alarms().contains_key(&kind)
    }

    /// Those that are on, in the order of their kinds.
    #[must_use]
    pub fn active(&self) -> Vec<Alarm> {
        self.alarms().values().cloned().collect()
    }

    fn alarms(&self) -> MutexGuard<'_, BTreeMap<AlarmKind, Alarm>> {
        // Nothing panics while it changes the map.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As `status` says it.
impl From<&Alarm> for v1::Alarm {
    fn from(alarm: &Alarm) -> Self {
        let since = alarm.since.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            kind: alarm.kind.name().to_owned(),
            text: alarm.text.clone(),
            since_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_is_on_from_its_first_cause_until_it_is_cleared() {
        let alarms = Alarms::default();
        alarms.clear(AlarmKind::Quarantined);
        assert_eq!(alarms.active(), []);
        alarms.raise(AlarmKind::Quarantined, "one");
        let first = alarms.active();
        alarms.raise(AlarmKind::Quarantined, "two");
        let second = alarms.active();
        assert_eq!((&*first[0].text, &*second[0].text), ("one", "two"));
        assert_eq!(first[0].since, second[0].since);
        assert_eq!(second.len(), 1);
        alarms.clear(AlarmKind::Quarantined);
        assert_eq!(alarms.active(), []);
    }
}
