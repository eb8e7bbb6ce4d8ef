//! Target `apply`: commands that are in order by themselves, one after the other, in an order that
//! nobody thought of. Whatever they are, nothing breaks, and the rows stay whole.

use arbitrary::Unstructured;
use quorate_statemachine::{
    Action, Command, Precondition, Principal, Query, RequestId, access, cluster, lease, lock,
    process, queue, session,
};
use serde::de::DeserializeOwned;

use super::generate::{Error, Maker};
use super::twins::{Twins, is_proposed};

/// Entries of one input: enough for a grant, its end, and what comes of it.
const ENTRIES_MAX: usize = 96;

/// Makes an action of one operation.
type Make = fn(&mut Maker<'_, '_>) -> Result<Action, Error>;

fn make<T: DeserializeOwned + Into<Action>>(maker: &mut Maker<'_, '_>) -> Result<Action, Error> {
    maker.make::<T>().map(Into::into)
}

macro_rules! operations {
    ($($noun:ident { $($operation:ident)* })*) => {
        /// Of every operation.
        pub const OPERATIONS: &[Make] = &[$($(make::<$noun::$operation>),*),*];
    };
}

operations! {
    lease { Claim Renew RenewMany Release Reclaim Revoke }
    lock { Acquire Renew RenewMany Release CancelWait Revoke Proclaim }
    queue { Push Claim Renew Settle Cancel Requeue }
    process {
        Register Append Complete SetExternalRef SetWait AckWake PutGrant DeleteGrant MoveGrants
        DetachSession
    }
    session {
        Open Delete PutNote PutBlobs StageNodes Commit Tombstone Vacuum Collect PushWork ClaimWork
        RenewWork AbandonWork CancelWork PushInput ClaimInputs AbandonInputs CancelInputs
        CancelInputsFrom NoteAttachment CommitAttachments ForgetAttachment
    }
    cluster { Tick RecordDigest Found AllocateNodeId SetVersion HoldVersion NoteAction }
    access { PutUser DeleteUser PutRole DeleteRole PutToken RevokeToken Enable Disable }
}

/// Runs one input.
pub fn run(bytes: &[u8]) {
    let mut bytes = Unstructured::new(bytes);
    let mut twins = Twins::default();
    twins.clock = 1_000_000;
    for _ in 0..ENTRIES_MAX {
        if bytes.is_empty() {
            break;
        }
        step(&mut twins, &mut bytes);
    }
    twins.check();
    twins.end_all();
}

/// Time passes, and then a command or a query comes.
fn step(twins: &mut Twins, bytes: &mut Unstructured<'_>) {
    let mut maker = Maker::new(bytes, twins.index);
    twins.clock = match maker.below(16) {
        0 => twins.clock.saturating_sub(5_000),
        1 => twins.clock + 700_000,
        2 => twins.clock + 90_000_000,
        n => twins.clock + u64::from(n / 8) * 150,
    };
    if maker.below(12) == 0 {
        if let Ok(asked) = maker.make::<Query>()
            && Query::decode(&asked.encode()).is_ok()
        {
            twins.ask(&asked);
        }
        return;
    }
    let principal = match maker.below(12) {
        0 => Principal::Anonymous,
        1 => Principal::Named("a"),
        _ => Principal::Cluster,
    };
    let Ok(command) = command(&mut maker) else {
        return;
    };
    let encoded = command.encode();
    // What a node refuses before it proposes it is never in a log.
    if is_proposed(&command)
        && let Ok(read) = Command::decode(&encoded)
    {
        assert_eq!(read, command);
        twins.apply(&encoded, principal);
    }
}

fn command(maker: &mut Maker<'_, '_>) -> Result<Command, Error> {
    let extra = maker.below(12);
    let action = match extra {
        0 => {
            let count = 1 + maker.below(5);
            let steps = (0..count).map(|_| action(maker)).collect::<Result<_, _>>();
            Action::Composite(steps?)
        }
        _ => action(maker)?,
    };
    let mut command = Command::from(action);
    if extra < 3 {
        command.request = Some(maker.make::<RequestId>()?);
    }
    if extra == 3 {
        command.preconditions = maker.make::<Vec<Precondition>>()?;
    }
    Ok(command)
}

fn action(maker: &mut Maker<'_, '_>) -> Result<Action, Error> {
    let make = maker.one_of(OPERATIONS);
    make(maker)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_operation_is_made() {
        let mut made = BTreeSet::new();
        for make in OPERATIONS {
            // Some bytes make what the type refuses, as an empty name.
            let action = (0..=u8::MAX).find_map(|byte| {
                let bytes = [byte; 4_096];
                make(&mut Maker::new(&mut Unstructured::new(&bytes), 20)).ok()
            });
            made.insert(action.expect("something of it is made").tag());
        }
        let nouns = [
            lease::Command::TAGS,
            lock::Command::TAGS,
            queue::Command::TAGS,
            process::Command::TAGS,
            session::Command::TAGS,
            cluster::Command::TAGS,
            access::Command::TAGS,
        ];
        let all: BTreeSet<u16> = nouns.concat().iter().map(|(tag, _)| *tag).collect();
        assert_eq!(made, all, "list the new operation above");
    }
}
