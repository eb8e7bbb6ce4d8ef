//! The words of the scripts: one line is one action or one query.

use quorate_statemachine::lease::{self, Observed, SameOwner};
use quorate_statemachine::lock::{self, Mode};
use quorate_statemachine::queue::{self, ItemState, Outcome};
use quorate_statemachine::{Action, LeaseToken, Name, Query, RequestId, cluster};

use crate::args::{Args, Bad, id_of, parse_item, parse_number, split};
use crate::{access, processes, sessions};

/// The action that a line asks for, if its word is one of an action.
pub fn action(word: &str, args: &mut Args) -> Result<Option<Action>, Bad> {
    if let Some(action) = lease_action(word, args)? {
        return Ok(Some(action));
    }
    if let Some(action) = queue_action(word, args)? {
        return Ok(Some(action));
    }
    if let Some(action) = lock_action(word, args)? {
        return Ok(Some(action));
    }
    if let Some(action) = processes::action(word, args)? {
        return Ok(Some(action));
    }
    if let Some(action) = access::action(word, args)? {
        return Ok(Some(action));
    }
    if let Some(action) = sessions::action(word, args)? {
        return Ok(Some(action));
    }
    Ok(Some(match word {
        "tick" => cluster::Tick {}.into(),
        "record-digest" => cluster::RecordDigest {}.into(),
        "found" => cluster::Found {
            cluster_id: args.name("cluster")?,
            node_id: args.required_number("node")?,
        }
        .into(),
        "allocate-node-id" => cluster::AllocateNodeId {}.into(),
        "set-version" => cluster::SetVersion {
            version: args.required_number("to")?,
        }
        .into(),
        "hold-version" => cluster::HoldVersion { held: true }.into(),
        "note-action" => cluster::NoteAction {
            action: args.required("action")?,
        }
        .into(),
        "let-version-go" => cluster::HoldVersion { held: false }.into(),
        _ => return Ok(None),
    }))
}

fn lease_action(word: &str, args: &mut Args) -> Result<Option<Action>, Bad> {
    Ok(Some(match word {
        "claim" => lease_claim(args)?.into(),
        "renew" => lease::Renew {
            key: args.name("key")?,
            lease_token: args.token("token")?,
            fencing_token: args.required_number("fencing")?,
            ttl_ms: args.duration("ttl")?,
        }
        .into(),
        "renew-many" => renew_many(args)?.into(),
        "release" => lease::Release {
            key: args.name("key")?,
            lease_token: args.token("token")?,
            fencing_token: args.required_number("fencing")?,
        }
        .into(),
        "reclaim" => {
            let (owner_id, incarnation_id) = args.owner_names("observed-owner")?;
            let observed = Observed {
                owner_id,
                incarnation_id,
                lease_token: args.token("observed-token")?,
                fencing_token: args.required_number("observed-fencing")?,
            };
            lease::Reclaim {
                observed,
                claim: lease_claim(args)?,
            }
            .into()
        }
        "revoke" => lease::Revoke {
            key: args.name("key")?,
            only: args
                .optional("only")
                .map(|text| parse_number("only", &text))
                .transpose()?,
            by: args.text("by"),
        }
        .into(),
        _ => return Ok(None),
    }))
}

fn lease_claim(args: &mut Args) -> Result<lease::Claim, Bad> {
    Ok(lease::Claim {
        key: args.name("key")?,
        owner: args.owner()?,
        lease_token: args.token("token")?,
        ttl_ms: args.duration("ttl")?,
        same_owner: match args.text("same-owner").as_str() {
            "" | "busy" => SameOwner::Busy,
            "fresh" => SameOwner::Fresh,
            "extend" => SameOwner::Extend,
            other => return Err(format!("same-owner: {other:?} is no such answer").into()),
        },
        metadata: args.bytes("metadata")?,
    })
}

/// `renew-many ttl=10s KEY/LEASETOKEN@FENCING ...`
fn renew_many(args: &mut Args) -> Result<lease::RenewMany, Bad> {
    let ttl_ms = args.duration("ttl")?;
    let mut renewals = Vec::new();
    while let Some(word) = args.word() {
        let (grant, fencing) = split(&word, '@')?;
        let (key, token) = split(grant, '/')?;
        renewals.push(lease::Renew {
            key: Name::parse("key", key)?,
            lease_token: LeaseToken::parse(token)?,
            fencing_token: parse_number("fencing", fencing)?,
            ttl_ms,
        });
    }
    Ok(lease::RenewMany { renewals })
}

fn lock_action(word: &str, args: &mut Args) -> Result<Option<Action>, Bad> {
    Ok(Some(match word {
        "acquire" => acquire(args)?.into(),
        "renew-lock" => lock::Renew {
            key: args.name("key")?,
            id: args.id()?,
            ttl_ms: optional_ms(args, "ttl")?,
        }
        .into(),
        "renew-locks" => renew_locks(args)?.into(),
        "release-lock" => lock::Release {
            key: args.name("key")?,
            id: args.id()?,
        }
        .into(),
        "cancel-wait" => lock::CancelWait {
            key: args.name("key")?,
            id: args.id()?,
        }
        .into(),
        "revoke-lock" => lock::Revoke {
            key: args.name("key")?,
            only: args
                .optional("only")
                .map(|text| parse_number("only", &text))
                .transpose()?,
            by: args.text("by"),
        }
        .into(),
        "proclaim" => lock::Proclaim {
            key: args.name("key")?,
            fencing_token: args.required_number("fencing")?,
            metadata: args.bytes("metadata")?,
        }
        .into(),
        _ => return Ok(None),
    }))
}

/// `acquire key=a id=r1 owner=w1 [mode=exclusive|shared|permit-of-3] [ttl=10s] [wait-ttl=10s]
/// [wait=30s] [reentrant=yes] [delay=5s] [metadata=text] [seen=INDEX]`
fn acquire(args: &mut Args) -> Result<lock::Acquire, Bad> {
    Ok(lock::Acquire {
        key: args.name("key")?,
        id: RequestId {
            id: args.id()?,
            not_before: args.number("seen", 0)?,
        },
        owner: args.owner()?,
        mode: lock_mode(&args.text("mode"))?,
        ttl_ms: optional_ms(args, "ttl")?.unwrap_or(10_000),
        wait_ttl_ms: optional_ms(args, "wait-ttl")?.unwrap_or(10_000),
        max_wait_ms: optional_ms(args, "wait")?,
        reentrant: args.text("reentrant") == "yes",
        delay_ms: args.optional_duration("delay")?,
        metadata: args.bytes("metadata")?,
    })
}

fn optional_ms(args: &mut Args, key: &str) -> Result<Option<u64>, Bad> {
    match args.optional(key) {
        Some(text) => crate::args::parse_duration(&text).map(Some),
        None => Ok(None),
    }
}

fn lock_mode(text: &str) -> Result<Mode, Bad> {
    Ok(match text {
        "" | "exclusive" => Mode::Exclusive,
        "shared" => Mode::Shared,
        other => {
            let of = other.strip_prefix("permit-of-").ok_or("no such mode")?;
            Mode::Permit {
                of: parse_number("mode", of)?,
            }
        }
    })
}

/// `renew-locks KEY/ID ...`
fn renew_locks(args: &mut Args) -> Result<lock::RenewMany, Bad> {
    let mut renewals = Vec::new();
    while let Some(word) = args.word() {
        let (key, id) = split(&word, '/')?;
        renewals.push(lock::Renew {
            key: Name::parse("key", key)?,
            id: id_of(id)?,
            ttl_ms: None,
        });
    }
    Ok(lock::RenewMany { renewals })
}

fn queue_action(word: &str, args: &mut Args) -> Result<Option<Action>, Bad> {
    Ok(Some(match word {
        "push" => queue::Push {
            queue: args.name("queue")?,
            payload: args.bytes("payload")?,
            dedupe_key: args.optional_name("dedupe")?,
            delay_ms: args.optional_duration("delay")?,
            priority: args.number("priority", 0)?,
            max_attempts: args.number("max-attempts", 0)?,
        }
        .into(),
        "claim-items" => queue::Claim {
            queue: args.name("queue")?,
            owner: args.owner()?,
            ttl_ms: args.duration("ttl")?,
            max: args.number("max", 1)?,
        }
        .into(),
        "renew-item" => queue::Renew {
            queue: args.name("queue")?,
            item_id: args.item()?,
            fencing_token: args.required_number("fencing")?,
            ttl_ms: args.duration("ttl")?,
        }
        .into(),
        "settle" => queue::Settle {
            queue: args.name("queue")?,
            item_id: args.item()?,
            fencing_token: args.required_number("fencing")?,
            outcome: outcome(args)?,
        }
        .into(),
        "cancel" => queue::Cancel {
            queue: args.name("queue")?,
            item_id: args.item()?,
        }
        .into(),
        "requeue" => queue::Requeue {
            queue: args.name("queue")?,
            item_id: args.item()?,
        }
        .into(),
        _ => return Ok(None),
    }))
}

fn outcome(args: &mut Args) -> Result<Outcome, Bad> {
    match args.required("outcome")?.as_str() {
        "done" => Ok(Outcome::Done),
        "retry" => {
            let delay_ms = args.optional_duration("delay")?;
            Ok(Outcome::Retry {
                delay_ms,
                note: args.text("note"),
            })
        }
        "dead" => Ok(Outcome::Dead {
            note: args.text("note"),
        }),
        other => Err(format!("outcome: {other:?} is no outcome").into()),
    }
}

/// The query that a line asks for, if its word is one of a query.
pub fn query(word: &str, args: &mut Args) -> Result<Option<Query>, Bad> {
    if let Some(query) = processes::query(word, args)? {
        return Ok(Some(Query::Process(query)));
    }
    if let Some(query) = sessions::query(word, args)? {
        return Ok(Some(Query::Session(query)));
    }
    if let Some(query) = access::query(word, args)? {
        return Ok(Some(Query::Access(query)));
    }
    Ok(Some(match word {
        "get" | "list" | "history" | "explain" => Query::Lease(lease_query(word, args)?),
        "item" | "items" | "queues" => Query::Queue(queue_query(word, args)?),
        "lock" | "locks" | "waiters" | "find" => Query::Lock(lock_query(word, args)?),
        _ => return Ok(None),
    }))
}

fn lease_query(word: &str, args: &mut Args) -> Result<lease::Query, Bad> {
    Ok(match word {
        "get" => lease::Query::Get(lease::Get {
            key: args.name("key")?,
        }),
        "list" => lease::Query::List(lease::List {
            prefix: args.text("prefix"),
            after: args.optional_name("after")?,
            limit: args.number("limit", 0)?,
        }),
        _ => lease::Query::History(lease::HistoryOf {
            key: args.name("key")?,
        }),
    })
}

fn lock_query(word: &str, args: &mut Args) -> Result<lock::Query, Bad> {
    Ok(match word {
        "lock" => lock::Query::Get(lock::Get {
            key: args.name("key")?,
        }),
        "locks" => lock::Query::List(lock::List {
            prefix: args.text("prefix"),
            after: args.optional_name("after")?,
            limit: args.number("limit", 0)?,
        }),
        "waiters" => lock::Query::Waiters(lock::Waiters {
            key: args.name("key")?,
            after: args
                .optional("after")
                .map(|text| parse_number("after", &text))
                .transpose()?,
            limit: args.number("limit", 0)?,
        }),
        _ => lock::Query::Find(lock::Find {
            key: args.name("key")?,
            id: args.id()?,
        }),
    })
}

fn queue_query(word: &str, args: &mut Args) -> Result<queue::Query, Bad> {
    Ok(match word {
        "item" => queue::Query::Get(queue::Get {
            queue: args.name("queue")?,
            item_id: args.item()?,
        }),
        "items" => queue::Query::ListItems(queue::ListItems {
            queue: args.name("queue")?,
            state: args
                .optional("state")
                .map(|word| item_state(&word))
                .transpose()?,
            after: args
                .optional("after")
                .map(|text| parse_item(&text))
                .transpose()?,
            limit: args.number("limit", 0)?,
        }),
        _ => queue::Query::List(queue::List {
            prefix: args.text("prefix"),
            after: args.optional_name("after")?,
            limit: args.number("limit", 0)?,
        }),
    })
}

fn item_state(word: &str) -> Result<ItemState, Bad> {
    [
        ItemState::Ready,
        ItemState::Delayed,
        ItemState::Claimed,
        ItemState::Dead,
    ]
    .into_iter()
    .find(|state| state.as_str() == word)
    .ok_or_else(|| format!("{word:?} is no item state").into())
}
