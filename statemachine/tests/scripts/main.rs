//! Golden scripts: each file under `testscripts/` is a situation, its commands and what they do.
//!
//! A line is one command of the log, or one query. Log indexes start at 1 and grow by one each.
//!
//! ```text
//! at 1000                                           sets the leader's clock
//! at 1000 claim key=a owner=w1 token=t1 ttl=10s     the same, and then the command
//! claim renew release reclaim revoke renew-many     leases
//! get list history explain                          and their queries
//! push claim-items renew-item settle cancel requeue work queues
//! item items queues                                 and their queries
//! acquire renew-lock renew-locks release-lock cancel-wait revoke-lock proclaim  locks
//! lock locks waiters find                           and their queries
//! register append complete set-ref set-wait ack-wake  processes
//! grant revoke-grant move-grants detach-session      who may use them
//! process processes events count-events grants-to grants-of has-grant  and their queries
//! open delete put-note put-blobs stage commit tombstone vacuum collect  sessions
//! push-work claim-work renew-work abandon-work cancel-work  their work
//! push-input claim-inputs abandon-inputs cancel-inputs cancel-inputs-from  and their inputs
//! note-attachment commit-attachments forget-attachment  what is stored elsewhere for them
//! session sessions nodes path node blobs work inputs attachments  and their queries
//! put-user put-role put-token enable-access ...     access control: `access.rs`
//! authenticate id=t1 secret=s                       whom a token proves, at the clock
//! tick record-digest found allocate-node-id         the cluster
//! step COMMAND ... / composite                      gathers steps; does them all or none
//! repeat N LINE                                     {i} is the round, {last} the last index
//! dump [TABLE ...]                                  every row, and the digest
//! ```
//!
//! Any command and query takes `as=NAME`, or `as="?"` for a caller without a name; without it the
//! cluster itself asks.
//! Any command takes `request=ID not-before=INDEX`, `fence=KEY@TOKEN`, `lock-fence=KEY@TOKEN` and
//! `claim-fence=QUEUE/ITEM@TOKEN`. After each command the digest that is kept up to date must equal
//! the one computed from all rows. Run with `UPDATE_GOLDENFILES=1` to write what happens now into
//! the scripts, then read the difference. How sessions write their values: `sessions.rs`.

#![allow(clippy::disallowed_methods, reason = "scripts are files")]

mod access;
mod args;
mod dump;
mod language;
mod locks;
mod print;
mod processes;
mod session_dump;
mod session_print;
mod sessions;

use std::path::{Path, PathBuf};

use quorate_statemachine::access::{self as machine_access, Rights};
use quorate_statemachine::tables::{MetaRow, meta_key};
use quorate_statemachine::transaction::read;
use quorate_statemachine::view::MemoryView;
use quorate_statemachine::{Action, Command, Entry, Principal, Query, Timestamp, apply, query};

use args::{Args, Bad, parse_number};

#[derive(Default)]
struct Runner {
    view: MemoryView,
    clock: Timestamp,
    last_index: u64,
    steps: Vec<Action>,
}

impl goldenscript::Runner for Runner {
    type Command = goldenscript::Command;

    fn run(
        &mut self,
        command: &goldenscript::Command,
        _context: &goldenscript::Context,
    ) -> Result<String, Bad> {
        let mut args = Args::new(&command.args, 0, self.last_index);
        if command.name != "repeat" {
            return self.line(&command.name, args);
        }
        let rounds: u64 = parse_number("repeat", &args.word().ok_or("repeat has no count")?)?;
        let mut out = String::new();
        for round in 0..rounds {
            let mut args = Args::new(&command.args, round, self.last_index);
            args.word();
            let word = args.word().ok_or("repeat has no command")?;
            out += &self.line(&word, args)?;
            out.push('\n');
        }
        Ok(out)
    }
}

impl Runner {
    fn line(&mut self, word: &str, mut args: Args) -> Result<String, Bad> {
        match word {
            "at" => {
                let clock = args.word().ok_or("at has no instant")?;
                self.clock = Timestamp(parse_number("at", &clock)?);
                match args.word() {
                    Some(word) => self.line(&word, args),
                    None => args.finish().map(|()| String::new()),
                }
            }
            "dump" => {
                let tables: Vec<String> = std::iter::from_fn(|| args.word()).collect();
                args.finish()?;
                dump::dump(&self.view, &tables)
            }
            "step" => {
                let word = args.word().ok_or("step has no command")?;
                let step = language::action(&word, &mut args)?.ok_or("step has no action")?;
                self.steps.push(step);
                args.finish().map(|()| String::new())
            }
            "authenticate" => self.authenticate(args),
            "composite" => {
                let steps = std::mem::take(&mut self.steps);
                self.command(Action::Composite(steps), args)
            }
            _ => self.action_or_query(word, args),
        }
    }

    fn action_or_query(&mut self, word: &str, mut args: Args) -> Result<String, Bad> {
        if let Some(action) = language::action(word, &mut args)? {
            return self.command(action, args);
        }
        if let Some(query) = language::query(word, &mut args)? {
            let principal = args.optional("as");
            args.finish()?;
            return self.query(&query, principal_of(principal.as_deref()));
        }
        Err(format!("{word:?} is no command").into())
    }

    fn authenticate(&self, mut args: Args) -> Result<String, Bad> {
        let (id, hash) = (args.name("id")?, access::hash(&args.required("secret")?));
        args.finish()?;
        let found = machine_access::authenticate(&self.view, self.now()?, &id, &hash)?;
        Ok(found.map_or_else(|| "nobody".to_owned(), |token| token.user.to_string()))
    }

    /// As a node does: what decoding refuses never becomes an entry.
    fn command(&mut self, action: Action, mut args: Args) -> Result<String, Bad> {
        let principal = args.optional("as");
        let request = args.request()?;
        let preconditions = args.preconditions()?;
        args.finish()?;
        let command = Command {
            request,
            preconditions,
            action,
        }
        .encode();
        if let Err(invalid) = Command::decode(&command) {
            return Ok(format!("invalid: {invalid}"));
        }
        self.apply(&command, principal_of(principal.as_deref()))
    }

    fn apply(&mut self, command: &[u8], principal: Principal<'_>) -> Result<String, Bad> {
        self.last_index += 1;
        let entry = Entry {
            index: self.last_index,
            proposed_at: self.clock,
            command,
            principal,
        };
        let applied = apply(&self.view, entry)?;
        self.view.commit(applied.changes);
        let meta = self.meta()?;
        assert_eq!(
            meta.digest,
            dump::digest_of(&self.view),
            "the digest fits the rows"
        );
        let reply = print::reply(&applied.reply);
        let notices = applied.notices.iter().map(print::notice);
        let notices: String = notices
            .map(|notice| format!("\n  notice: {notice}"))
            .collect();
        Ok(format!(
            "{} at {}: {reply}{notices}",
            self.last_index, meta.now.0
        ))
    }

    /// The query goes through its bytes too, and is asked at the clock or at the last entry.
    fn query(&self, asked: &Query, principal: Principal<'_>) -> Result<String, Bad> {
        let asked = match Query::decode(&asked.encode()) {
            Ok(asked) => asked,
            Err(invalid) => return Ok(format!("invalid: {invalid}")),
        };
        if let Err(refusal) = Rights::in_view(&self.view, principal)?.check_query(&asked) {
            return Ok(print::refused(&refusal));
        }
        Ok(print::answer(&query(&self.view, self.now()?, &asked)?))
    }

    fn now(&self) -> Result<Timestamp, Bad> {
        Ok(self.clock.max(self.meta()?.now))
    }

    fn meta(&self) -> Result<MetaRow, Bad> {
        Ok(read(&self.view, &meta_key())?.unwrap_or_default())
    }
}

fn principal_of(name: Option<&str>) -> Principal<'_> {
    match name {
        None => Principal::Cluster,
        Some("?") => Principal::Anonymous,
        Some(name) => Principal::Named(name),
    }
}

/// Runs every script of one folder, each on a state of its own.
fn run(folder: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("testscripts")
        .join(folder);
    let scripts = scripts_in(&folder);
    assert!(!scripts.is_empty(), "{} has no scripts", folder.display());
    for script in scripts {
        println!("script {}", script.display());
        let outcome = goldenscript::run(&mut Runner::default(), &script);
        outcome.unwrap_or_else(|error| panic!("{}: {error}", script.display()));
    }
}

fn scripts_in(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("the folder of scripts can be read");
    let mut scripts: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    scripts.sort();
    scripts
}

#[test]
fn access() {
    run("access");
}

#[test]
fn lease() {
    run("lease");
}

#[test]
fn lock() {
    run("lock");
}

#[test]
fn process() {
    run("process");
}

#[test]
fn queue() {
    run("queue");
}

#[test]
fn session() {
    run("session");
}

#[test]
fn composite() {
    run("composite");
}

#[test]
fn request() {
    run("request");
}

#[test]
fn expiry() {
    run("expiry");
}

#[test]
fn cluster() {
    run("cluster");
}

#[test]
fn every_script_starts_with_a_sentence_and_belongs_to_a_test() {
    let tested = [
        "access",
        "cluster",
        "composite",
        "expiry",
        "lease",
        "lock",
        "process",
        "queue",
        "request",
        "session",
    ];
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testscripts");
    for noun in scripts_in(&folder) {
        let name = noun
            .file_name()
            .and_then(|name| name.to_str())
            .expect("a name in UTF-8");
        assert!(tested.contains(&name), "no test runs the scripts in {name}");
        for script in scripts_in(&noun) {
            let text = std::fs::read_to_string(&script).expect("a script can be read");
            let first = text.lines().next().unwrap_or_default();
            let sentence = first.starts_with("# ") && first.len() > 20;
            assert!(sentence, "{} starts with a sentence", script.display());
        }
    }
}
