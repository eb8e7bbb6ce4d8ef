//! `quorate lock run`: a command that runs while a lock is held.
//!
//! ```text
//! lock run ----------------> the attendant --------> CMD ----> what it starts
//!  waits, holds, renews,      the parent: ends CMD    all in one process group, that of quorate:
//!  tells when it is lost      and all below it        the shell's job
//! ```

use std::process::ExitStatus;
use std::time::Duration;

use quorate_client::{
    AcquireError, Client, Hold, LeaseState, LockBuilder, LockGuard, LostReason, WatchEvent,
    WatchWhat, incarnation,
};
use quorate_statemachine::lock::{End, Found, Released};
use quorate_statemachine::notice::Notice;
use quorate_statemachine::{InvalidArgument, Name, Owner};
use rustix::process::{Pid, Signal, getpid, kill_process};
use serde::Serialize;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use super::attend::END_IT;
use super::processes::{adopt_orphans, end_all};
use super::rows::standing;
use super::signals::{Signals, pass_on};
use super::{view, waiters_of};
use crate::args::lock::{Attend, Run};
use crate::args::millis;
use crate::commands::changes;
use crate::exit::{Exit, Failure};
use crate::output::Format;
use crate::value::span;

/// Who holds, for runs inside the command: `OWNER_ID/INCARNATION_ID`.
const OWNER: &str = "QUORATE_LOCK_OWNER";

/// A wait that takes longer than this is talked about.
const SILENT_MAX: Duration = Duration::from_secs(1);

/// How long an interrupted wait may take to leave the queue. Without it the place is lost by its
/// time to live.
const LEAVE_MAX: Duration = Duration::from_secs(2);

/// Runs the command under the lock. Answers its exit code.
pub async fn run(client: &Client, args: &Run, format: Format) -> Result<u8, Failure> {
    let mut signals = Signals::new()?;
    let request = Request::new(client, args, std::env::var(OWNER).ok(), format)?;
    let guard = tokio::select! {
        biased;
        acquired = request.acquire() => acquired?,
        signal = signals.next() => {
            request.left().await;
            request.say(&format!("waits no longer: signal {}", signal.as_raw()));
            return Ok(by_signal(signal.as_raw()));
        }
    };
    let attendant = match Attendant::start(args, &request, &guard) {
        Ok(attendant) => attendant,
        Err(failure) => {
            request.done(guard, Exit::Error as u8, None).await?;
            return Err(failure);
        }
    };
    let (status, lost) = attendant.watch(&request, &guard, &mut signals).await?;
    let code = match (
        status.code(),
        std::os::unix::process::ExitStatusExt::signal(&status),
    ) {
        (Some(code), _) => u8::try_from(code).unwrap_or(Exit::Error as u8),
        (None, signal) => {
            // Somebody killed the attendant: what it looked after is ours now.
            end_all(None, args.kill_after).await;
            by_signal(signal.unwrap_or_default())
        }
    };
    request.done(guard, code, lost).await
}

fn by_signal(signal: i32) -> u8 {
    u8::try_from(128 + signal).unwrap_or(Exit::Error as u8)
}

/// What is asked for, and in whose name.
pub(super) struct Request<'a> {
    client: &'a Client,
    key: Name,
    owner: Owner,
    builder: LockBuilder,
    note: Vec<u8>,
    format: Format,
}

/// The note that others see beside the hold.
#[derive(Serialize)]
struct Note<'a> {
    host: &'a str,
    pid: i32,
    command: &'a str,
}

impl<'a> Request<'a> {
    /// `around` is the owner of the run that this one is inside of.
    pub fn new(
        client: &'a Client,
        args: &Run,
        around: Option<String>,
        format: Format,
    ) -> Result<Self, Failure> {
        let (host, pid) = (host(), getpid().as_raw_pid());
        let owner = match (&args.owner, around) {
            (Some(owner_id), _) => new_owner(owner_id)?,
            (None, Some(around)) => inherited(&around)?,
            (None, None) => new_owner(&format!("{host}:{pid}"))?,
        };
        // Not its arguments: they may hold secrets.
        let program = args.command.first().map(|it| it.to_string_lossy());
        let note = Note {
            host: &host,
            pid,
            command: program.as_deref().unwrap_or_default(),
        };
        let note = serde_json::to_vec(&note).map_err(std::io::Error::from)?;
        let mut builder = client
            .lock(&args.key)
            .holder(owner.clone())
            .ttl(args.ttl)
            .delay_after_death(args.delay)
            .metadata(note.clone());
        if let Some(wait) = args.wait {
            builder = builder.wait(wait);
        }
        if args.shared {
            builder = builder.shared();
        }
        if let Some(permits) = args.permits {
            builder = builder.permit_of(permits);
        }
        Ok(Self {
            client,
            key: Name::parse("key", args.key.as_str())?,
            owner,
            builder,
            note,
            format,
        })
    }

    /// Words for a person. In JSON formats stderr is for the one error.
    fn say(&self, words: &str) {
        if !self.format.is_json() {
            eprintln!("lock {:?}: {words}", self.key.as_str());
        }
    }

    /// Acquires the lock. A wait that takes its time says what it waits for.
    pub async fn acquire(&self) -> Result<LockGuard, Failure> {
        let mut acquire = std::pin::pin!(self.builder.acquire());
        let talk = async {
            sleep(SILENT_MAX).await;
            if let Ok(standing) = self.standing().await {
                self.say(&format!("waiting, it is {standing}"));
            }
        };
        let acquired = tokio::select! {
            biased;
            acquired = &mut acquire => acquired,
            () = talk => {
                let acquired = acquire.await;
                if let Ok(guard) = &acquired {
                    self.say(&format!("granted, with fencing token {}", guard.token()));
                }
                acquired
            }
        };
        match acquired {
            Ok(guard) => Ok(guard),
            Err(error) => Err(self.not_acquired(error).await),
        }
    }

    async fn standing(&self) -> Result<String, Failure> {
        let (view, now) = view(self.client, &self.key).await?;
        Ok(view.map_or_else(
            || "free now".to_owned(),
            |view| match view.lock.waiters {
                0 => standing(&view, now),
                waiters => format!("{}; in the queue: {waiters}", standing(&view, now)),
            },
        ))
    }

    async fn not_acquired(&self, error: AcquireError) -> Failure {
        let key = self.key.as_str();
        match error {
            AcquireError::Client(error) => error.into(),
            AcquireError::Deadlock { .. } => Failure::error("deadlock", error.to_string()),
            AcquireError::Cancelled { .. } => Failure::new(
                Exit::Contention,
                "cancelled",
                format!("lock {key:?}: the wait was cancelled, so the command was not run"),
            ),
            AcquireError::Busy { .. } => match self.standing().await {
                Ok(standing) => Failure::busy(format!("lock {key:?} is {standing}")),
                Err(_) => Failure::busy(error.to_string()),
            },
            AcquireError::TimedOut { waited, .. } => {
                let waited = span(millis(waited));
                let words = format!("lock {key:?} was not granted within {waited}");
                match self.standing().await {
                    Ok(standing) => Failure::busy(format!("{words}: it is {standing}")),
                    Err(_) => Failure::busy(words),
                }
            }
        }
    }

    /// Waits until the acquisition, which was dropped, has left the queue: it says so in the
    /// background, for which this process must live on.
    async fn left(&self) {
        let left = async {
            // Once more after it was not seen: it may have been on its way there.
            for _ in 0..2 {
                while self.is_member().await.unwrap_or(true) {
                    sleep(changes::PAUSE).await;
                }
                sleep(changes::PAUSE).await;
            }
        };
        // Should it take longer, the place is lost when its time is over.
        let _ = timeout(LEAVE_MAX, left).await;
    }

    async fn is_member(&self) -> Result<bool, Failure> {
        let (view, _) = view(self.client, &self.key).await?;
        let (mut members, _) = waiters_of(self.client, &self.key, 0).await?;
        members.extend(view.into_iter().flat_map(|view| view.holders));
        Ok(members
            .iter()
            .any(|it| it.owner == self.owner && it.metadata == self.note))
    }

    /// Why the lock is lost, as soon as it is.
    async fn lost(&self, guard: &LockGuard) -> String {
        let cancelled = guard.lost();
        tokio::select! {
            () = cancelled.cancelled() => match guard.state() {
                LeaseState::Lost(LostReason::Refused(refusal)) => {
                    let (client, hold) = (self.client, guard.hold());
                    match client.lock_find(&hold.key, hold.id).await {
                        Ok(Found::Over(end)) => why(&end, hold),
                        _ => refusal.to_string(),
                    }
                }
                _ => format!(
                    "no renewal was confirmed within its time to live of {}: the cluster was not \
                     to be reached, or quorate stood still",
                    span(millis(guard.hold().ttl))
                ),
            },
            end = self.left_by(guard.hold()) => why(&end, guard.hold()),
        }
    }

    /// Ends with the hold. The guard would learn it only at its next renewal, and the next in line
    /// holds the lock already.
    async fn left_by(&self, hold: &Hold) -> End {
        use futures::StreamExt;
        let mut of_client = [0; 8];
        of_client.copy_from_slice(&hold.id[..8]);
        let what = WatchWhat::LockAcquisitions(of_client);
        loop {
            // Without a watch, the guard finds out.
            if let Ok(mut events) = self.client.watch(what.clone(), 0).await {
                while let Some(event) = events.next().await {
                    let WatchEvent::Notices { notices, .. } = event else {
                        continue;
                    };
                    for notice in notices {
                        match notice {
                            Notice::LockLeft { id, end, .. } if id == hold.id => return end,
                            _ => {}
                        }
                    }
                }
            }
            sleep(changes::PAUSE).await;
        }
    }

    /// Gives the lock back after the command has ended with `code`.
    async fn done(&self, guard: LockGuard, code: u8, lost: Option<String>) -> Result<u8, Failure> {
        let (key, hold) = (self.key.as_str(), guard.hold().clone());
        let released = guard.release().await;
        let lost = match (lost, released) {
            (Some(lost), _) => Some(lost),
            (None, Ok(Released::NotHeld { end })) => Some(why(&end, &hold)),
            (None, Ok(_)) => None,
            (None, Err(error)) => {
                let ttl = span(millis(hold.ttl));
                self.say(&format!(
                    "not released, it ends by itself within {ttl}: {error}"
                ));
                None
            }
        };
        match lost {
            None => Ok(code),
            Some(lost) => Err(Failure::fenced(format!(
                "lock {key:?} was lost: {lost}; the command ended with exit code {code}"
            ))),
        }
    }
}

fn host() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

fn new_owner(owner_id: &str) -> Result<Owner, Failure> {
    Ok(Owner::new(
        Name::parse("owner_id", owner_id)?,
        Name::parse("incarnation_id", incarnation())?,
    ))
}

fn inherited(around: &str) -> Result<Owner, Failure> {
    let (owner_id, incarnation_id) = around.rsplit_once('/').ok_or_else(|| {
        InvalidArgument::new(OWNER, "is no owner", "OWNER_ID/INCARNATION_ID", around)
    })?;
    Ok(Owner::new(
        Name::parse(OWNER, owner_id)?,
        Name::parse(OWNER, incarnation_id)?,
    ))
}

/// Why a hold is over.
fn why(end: &End, hold: &Hold) -> String {
    match end {
        End::Revoked { by, .. } => format!("it was revoked by {by:?}"),
        End::Released { .. } => {
            format!(
                "somebody released it by its fencing token {}",
                hold.fencing_token
            )
        }
        End::Expired { .. } => format!(
            "it was not renewed within its time to live of {}",
            span(millis(hold.ttl))
        ),
        other => other.as_str().to_owned(),
    }
}

/// The process that runs the command.
struct Attendant {
    child: Child,
    pid: Pid,
    kill_after: Duration,
}

impl Attendant {
    fn start(args: &Run, request: &Request<'_>, guard: &LockGuard) -> Result<Self, Failure> {
        adopt_orphans()?;
        let owner = &request.owner;
        let output = match request.format.is_json() {
            true => "json",
            false => "table",
        };
        // This very program, also when its file was replaced during the wait.
        let child = Command::new("/proc/self/exe")
            .arg0("quorate")
            .args([Attend::NAME, "--output", output, "--parent"])
            .arg(getpid().as_raw_pid().to_string())
            .arg("--kill-after")
            .arg(format!("{}ms", millis(args.kill_after)))
            .arg("--")
            .args(&args.command)
            .env("QUORATE_LOCK_KEY", request.key.as_str())
            .env("QUORATE_FENCING_TOKEN", guard.token().to_string())
            .env(
                OWNER,
                format!("{}/{}", owner.owner_id, owner.incarnation_id),
            )
            .spawn()?;
        let pid = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        let pid = pid.ok_or_else(|| Failure::error("io", "the command has no process"))?;
        Ok(Self {
            child,
            pid,
            kill_after: args.kill_after,
        })
    }

    /// Waits until the command has ended, and has it ended if the lock is lost: then the second
    /// value says why.
    async fn watch(
        mut self,
        request: &Request<'_>,
        guard: &LockGuard,
        signals: &mut Signals,
    ) -> Result<(ExitStatus, Option<String>), Failure> {
        let mut loss = std::pin::pin!(request.lost(guard));
        let mut lost = None;
        loop {
            tokio::select! {
                biased;
                status = self.child.wait() => return Ok((status?, lost)),
                why = &mut loss, if lost.is_none() => {
                    let left = span(millis(self.kill_after));
                    request.say(&format!("lost; the command has {left} to end by itself"));
                    // It may have ended just now.
                    let _ = kill_process(self.pid, END_IT);
                    lost = Some(why);
                }
                signal = signals.next() => self.pass_on(signal),
            }
        }
    }

    fn pass_on(&self, signal: Signal) {
        pass_on(signal, self.pid);
    }
}
