//! Process leases: leases of the cluster under the process's name.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use lash_core::{PROCESS_LEASE_SCHEMA_VERSION, PluginError, ProcessLease, ProcessLeaseCompletion};
use quorate_client::{Client, ClientError};
use quorate_statemachine::lease::{Claim, Claimed, Lease, Release, Renew, SameOwner};
use quorate_statemachine::limits::TTL_MS_MAX;
use quorate_statemachine::{
    Command, FencingToken, InvalidArgument, LeaseToken, Name, Operation, Owner, Precondition,
    Refusal,
};
use tokio::time::Instant;

use crate::builder::FencingTokens;
use crate::error::{Result, failed, session, unknown};
use crate::names::plain;
use crate::registry::QuorateProcesses;

/// The cluster holds a lease so much longer than its holder is told, so that a slow round trip does
/// not lose a short one. A TTL of 0 has none: it is over at once.
pub const LEASE_MARGIN: Duration = Duration::from_millis(50);

/// The incarnation of every owner: lash gives a worker one id, and takes two claims under it for
/// those of one worker.
const INCARNATION: &str = "lash";

/// What lash is shown as the lease token: the holder's proof, and the log index of the grant, since
/// not every call of lash's brings the fencing token along.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GrantToken {
    pub(crate) proof: LeaseToken,
    pub(crate) fence: FencingToken,
}

impl fmt::Display for GrantToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.proof.as_str(), self.fence)
    }
}

impl FromStr for GrantToken {
    type Err = PluginError;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            session(format!(
                "lease token `{text}` was not given by this registry"
            ))
        };
        let (proof, fence) = text.rsplit_once('.').ok_or_else(wrong)?;
        Ok(Self {
            proof: LeaseToken::parse(proof).map_err(|_| wrong())?,
            fence: fence.parse().map_err(|_| wrong())?,
        })
    }
}

/// How long the cluster holds a lease for which lash asks `ttl_ms`.
pub(crate) fn held_ms(ttl_ms: u64) -> std::result::Result<u64, InvalidArgument> {
    let margin = LEASE_MARGIN.as_millis() as u64;
    let longest = TTL_MS_MAX - margin;
    InvalidArgument::check_count("lease_ttl_ms", ttl_ms, 0, longest)?;
    Ok(if ttl_ms == 0 { 0 } else { ttl_ms + margin })
}

/// When the holder of a lease is told that it ends.
pub(crate) fn told_end(lease: &Lease) -> u64 {
    if lease.ttl_ms == 0 {
        return lease.expires_at.0;
    }
    told_ms(lease.expires_at.0)
}

pub(crate) fn told_ms(held_ms: u64) -> u64 {
    held_ms.saturating_sub(LEASE_MARGIN.as_millis() as u64)
}

/// A proof that nobody else mints.
pub(crate) fn new_proof() -> LeaseToken {
    let proof = format!("{:032x}", fastrand::u128(..));
    LeaseToken::parse(proof).expect("32 digits are a token")
}

/// lash takes any error for the loss of the lease: what passes is waited out for as long as the
/// lease lasts.
pub(crate) async fn leased<O: Operation>(
    client: &Client,
    operation: O,
    preconditions: Vec<Precondition>,
    ttl_ms: u64,
) -> std::result::Result<O::Reply, ClientError> {
    let by_ttl = Instant::now() + Duration::from_millis(ttl_ms);
    let command = Command {
        request: None,
        preconditions,
        action: operation.into(),
    };
    let deadline = by_ttl.max(client.deadline());
    let (_, response) = client.execute_command_by(command, deadline).await?;
    O::reply(response)
        .ok_or_else(|| ClientError::Protocol("the answer is of another command".to_owned()))
}

fn out_of_range(invalid: InvalidArgument) -> PluginError {
    session(invalid.to_string())
}

impl QuorateProcesses {
    pub(crate) async fn claim(
        &self,
        process_id: &str,
        owner_id: &str,
        ttl_ms: u64,
    ) -> Result<ProcessLease> {
        let claim = Claim {
            key: self.shared.names.lease(process_id)?,
            owner: Owner::new(
                plain("owner_id", owner_id)?,
                plain("incarnation", INCARNATION)?,
            ),
            lease_token: new_proof(),
            ttl_ms: held_ms(ttl_ms).map_err(out_of_range)?,
            same_owner: SameOwner::Fresh,
            metadata: Vec::new(),
        };
        let known = Precondition::Process {
            id: self.shared.names.process(process_id)?,
        };
        let what = || format!("claim of process `{process_id}`");
        match leased(&self.shared.client, claim, vec![known], ttl_ms).await {
            Ok(Claimed::Granted(lease)) => Ok(self.told(process_id, &lease)),
            Ok(Claimed::Busy(holder)) => Err(session(format!(
                "process `{process_id}` is already leased by `{}` until {}",
                holder.owner.owner_id, holder.expires_at.0
            ))),
            Err(error) => Err(match error.refusal() {
                Some(Refusal::NotFound { .. }) => unknown(process_id),
                _ => failed(&what(), &error),
            }),
        }
    }

    pub(crate) async fn renew(&self, lease: &ProcessLease, ttl_ms: u64) -> Result<ProcessLease> {
        let process_id = &lease.process_id;
        let gone = |why: &str| {
            session(format!(
                "lease of process `{process_id}` is missing or expired: {why}"
            ))
        };
        let token: GrantToken = match lease.lease_token.parse() {
            Ok(token) => token,
            Err(error) => return Err(gone(&PluginError::to_string(&error))),
        };
        let renew = Renew {
            key: self.shared.names.lease(process_id)?,
            lease_token: token.proof,
            fencing_token: token.fence,
            ttl_ms: held_ms(ttl_ms).map_err(out_of_range)?,
        };
        match leased(&self.shared.client, renew, Vec::new(), ttl_ms).await {
            Ok(renewed) => Ok(ProcessLease {
                expires_at_epoch_ms: told_ms(renewed.expires_at.0),
                ..lease.clone()
            }),
            Err(ClientError::Refused(refusal)) => Err(gone(&refusal.to_string())),
            Err(error) => Err(failed(
                &format!("renewal of process `{process_id}`"),
                &error,
            )),
        }
    }

    pub(crate) async fn complete_lease(&self, done: &ProcessLeaseCompletion) -> Result<()> {
        // A token of another's making fits no lease, and giving back what one has not is no error.
        let Ok(token) = done.lease_token.parse::<GrantToken>() else {
            return Ok(());
        };
        let release = Release {
            key: self.shared.names.lease(&done.process_id)?,
            lease_token: token.proof,
            fencing_token: token.fence,
        };
        let released = self.shared.client.execute(release).await;
        let what = || format!("release of process `{}`", done.process_id);
        match released {
            Ok(_)
            | Err(ClientError::Refused(Refusal::Fenced { .. } | Refusal::NotFound { .. })) => {
                Ok(())
            }
            Err(error) => Err(failed(&what(), &error)),
        }
    }

    fn told(&self, process_id: &str, lease: &Lease) -> ProcessLease {
        let token = GrantToken {
            proof: lease.lease_token.clone(),
            fence: lease.fencing_token,
        };
        let owner: &Name = &lease.owner.owner_id;
        ProcessLease {
            schema_version: PROCESS_LEASE_SCHEMA_VERSION,
            process_id: process_id.to_owned(),
            owner_id: owner.to_string(),
            lease_token: token.to_string(),
            fencing_token: match self.shared.tokens {
                FencingTokens::LogIndex => lease.fencing_token,
                FencingTokens::Epoch => lease.epoch,
            },
            claimed_at_epoch_ms: lease.granted_at.0,
            expires_at_epoch_ms: told_end(lease),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_is_shown_and_nothing_else_is() {
        let token = GrantToken {
            proof: LeaseToken::parse("a.b").expect("a token"),
            fence: 7,
        };
        assert_eq!(token.to_string(), "a.b.7");
        assert_eq!("a.b.7".parse::<GrantToken>().expect("its form"), token);
        for text in ["", "7", "a", "a.", ".7", "a.x", "a.-1"] {
            assert!(text.parse::<GrantToken>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_lease_is_held_longer_than_told_and_a_ttl_of_zero_is_not() {
        assert_eq!(held_ms(0).expect("zero"), 0);
        assert_eq!(held_ms(20).expect("short"), 70);
        assert_eq!(held_ms(TTL_MS_MAX - 50).expect("long"), TTL_MS_MAX);
        let error = held_ms(TTL_MS_MAX - 49).expect_err("too long").to_string();
        let numbers = "limit 0 to 86399950, actual 86399951";
        assert!(error.contains(numbers), "{error}");
    }
}
