//! What can be typed: the global flags and the table of commands.
//!
//! Each noun's verbs are in a file of their own below.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use crate::output::Format;

pub mod access;
pub mod alarm;
pub mod audit;
pub mod bench;
pub mod cert;
pub mod cluster;
pub mod dev;
pub mod lease;
pub mod lock;
pub mod member;
pub mod offline;
pub mod process;
pub mod queue;
pub mod recover;
pub mod serve;
pub mod session;
pub mod snapshot;
pub mod top;
pub mod upgrade;

/// Leases, queues and process records that survive the loss of nodes.
#[derive(Debug, Parser)]
#[command(
    name = "quorate",
    disable_version_flag = true,
    disable_help_subcommand = true,
    after_help = "Global flags (endpoints, output, timeouts, certificates): quorate --help",
    after_long_help = EXIT_CODES
)]
pub struct Cli {
    /// What holds for every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

pub const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  error
  2  usage or invalid argument
  3  not found
  4  contention: held by another, nothing to claim
  5  fence or precondition lost
  6  not allowed
  7  no leader, or unreachable
  8  timed out, outcome unknown
  9  resource exhausted, try later";

/// Flags of every command, each with an environment variable.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global flags")]
pub struct Global {
    /// Client addresses of any members; the leader is found from them
    #[arg(
        long,
        env = "QUORATE_ENDPOINTS",
        default_value = "127.0.0.1:7400",
        value_delimiter = ',',
        value_name = "HOST:PORT,…",
        global = true,
        hide_short_help = true
    )]
    pub endpoints: Vec<String>,
    /// How to print data
    #[arg(
        short,
        long,
        env = "QUORATE_OUTPUT",
        value_enum,
        default_value_t = Format::Table,
        global = true,
        hide_short_help = true
    )]
    pub output: Format,
    /// How long a call may take, retries included [default: 5s; 60s for a change of membership]
    #[arg(
        long,
        env = "QUORATE_TIMEOUT",
        value_parser = duration,
        value_name = "DURATION",
        global = true,
        hide_short_help = true
    )]
    pub timeout: Option<Duration>,
    /// How fresh an answer to a read must be
    #[arg(
        long,
        env = "QUORATE_CONSISTENCY",
        value_enum,
        default_value_t = ReadConsistency::Linearizable,
        global = true,
        hide_short_help = true
    )]
    pub consistency: ReadConsistency,
    /// Certificates of the authority that signed the nodes' certificates (PEM)
    #[arg(
        long,
        env = "QUORATE_CACERT",
        value_name = "FILE",
        global = true,
        hide_short_help = true
    )]
    pub cacert: Option<PathBuf>,
    /// Own certificate (PEM)
    #[arg(
        long,
        env = "QUORATE_CERT",
        value_name = "FILE",
        requires = "key_file",
        global = true,
        hide_short_help = true
    )]
    pub cert: Option<PathBuf>,
    /// Private key of the own certificate (PEM)
    #[arg(
        long,
        env = "QUORATE_KEY",
        value_name = "FILE",
        requires = "cert",
        global = true,
        hide_short_help = true
    )]
    pub key_file: Option<PathBuf>,
    /// File that holds the bearer token; without it, the token in QUORATE_TOKEN
    #[arg(
        long,
        env = "QUORATE_TOKEN_FILE",
        value_name = "FILE",
        global = true,
        hide_short_help = true
    )]
    pub token_file: Option<PathBuf>,
    /// Send the token to other machines without TLS, where others may read it
    #[arg(
        long,
        env = "QUORATE_INSECURE_TOKEN",
        global = true,
        hide_short_help = true
    )]
    pub insecure_token: bool,
}

impl Global {
    /// How long an ordinary call may take.
    pub fn call_timeout(&self) -> Duration {
        self.timeout.unwrap_or(Duration::from_secs(5))
    }

    /// How long a change of membership may take: a learner has to catch up.
    pub fn change_timeout(&self) -> Duration {
        self.timeout.unwrap_or(Duration::from_secs(60))
    }
}

/// How fresh an answer must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReadConsistency {
    /// Everything acknowledged before the request is in the answer.
    Linearizable,
    /// The same while clocks drift less than the leader's lease allows; cheaper.
    Lease,
    /// Whatever the asked node has.
    Stale,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a whole cluster on this machine for trying out
    Dev(dev::Dev),
    /// Run one node
    Serve(serve::Serve),
    /// One row a member: role, log, applied, lag, digest, health
    Status,
    /// The cluster as it is now, on the terminal, until q
    Top(top::Top),
    /// Commit a proposal through every endpoint and print how long it took
    Health,
    /// The cluster as a whole: make one of nodes that are blank
    #[command(subcommand)]
    Cluster(cluster::Verb),
    /// Alarms: what the members say an operator should look at
    #[command(subcommand)]
    Alarm(alarm::Verb),
    /// Access control: users, roles and tokens; on and off
    #[command(subcommand)]
    Access(access::Verb),
    /// Who did what and when, from the log of a member
    Audit(audit::Audit),
    /// Certificates: make an authority, nodes' and clients' certificates, and look at them
    #[command(subcommand)]
    Cert(cert::Verb),
    /// Members of the cluster: list, add, promote, remove, hand leadership over
    #[command(subcommand)]
    Member(member::Verb),
    /// Leases: claim, renew, release, look, explain, watch
    #[command(subcommand)]
    Lease(lease::Verb),
    /// Locks: run a command under one, look who holds and who waits, end holds and waits
    #[command(subcommand)]
    Lock(lock::Verb),
    /// Work queues: push, claim, renew, settle, look
    #[command(subcommand)]
    Queue(queue::Verb),
    /// Process records and their events
    #[command(subcommand)]
    Process(process::Verb),
    /// Sessions: where they stand, their graphs, and the inputs and work that wait for them
    #[command(subcommand)]
    Session(session::Verb),
    /// Compare the state digests of all members at one log index
    Verify,
    /// Which commands the cluster may use while its members run different builds
    #[command(subcommand)]
    Upgrade(upgrade::Verb),
    /// Look into the data directory of a stopped node
    #[command(subcommand)]
    Offline(offline::Verb),
    /// Snapshots as files: save, look, make a new cluster of one
    #[command(subcommand)]
    Snapshot(snapshot::Verb),
    /// Make a new cluster of what is left of one that lost its quorum for good; needs no cluster
    Recover(recover::Recover),
    /// Measure: operations per second and latency
    Bench(bench::Bench),
    /// Print a completion script for a shell
    Completion {
        /// The shell
        shell: Shell,
    },
    /// Print the version
    Version,
}

/// A shell to complete for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// bash
    Bash,
    /// zsh
    Zsh,
    /// fish
    Fish,
}

impl Cli {
    /// Reads the process's own command line and environment.
    pub fn read() -> Result<Self, clap::Error> {
        Self::read_from(std::env::args_os())
    }

    /// Reads a command line, the program's name first.
    pub fn read_from<I, T>(line: I) -> Result<Self, clap::Error>
    where
        I: IntoIterator<Item = T>,
        T: Into<std::ffi::OsString> + Clone,
    {
        let mut command = command();
        let matches = command.try_get_matches_from_mut(line)?;
        Self::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
    }
}

/// The table of commands as clap sees it.
///
/// `--key` is the private key, as with other tools, except for the verbs that have a `--key` of
/// their own (a dedupe or idempotency key): there the private key is `--key-file`, which works
/// everywhere.
pub fn command() -> clap::Command {
    let root = Cli::command();
    let base = root
        .get_arguments()
        .find(|arg| arg.get_id() == KEY_FILE)
        .cloned()
        .expect("the global flags have a key file");
    let aliased = base.clone().visible_alias("key");
    let names = subcommand_names(&root);
    let mut root = root.mut_arg(KEY_FILE, |_| aliased.clone());
    for name in names {
        root = root.mut_subcommand(name, |verb| with_key_file(verb, &base, &aliased));
    }
    root
}

const KEY_FILE: &str = "key_file";

fn with_key_file(command: clap::Command, base: &clap::Arg, aliased: &clap::Arg) -> clap::Command {
    let has_own = command
        .get_arguments()
        .any(|arg| arg.get_long() == Some("key"));
    let names = subcommand_names(&command);
    let mut command = command.arg(if has_own { base } else { aliased });
    for name in names {
        command = command.mut_subcommand(name, |verb| with_key_file(verb, base, aliased));
    }
    command
}

fn subcommand_names(command: &clap::Command) -> Vec<String> {
    command
        .get_subcommands()
        .map(|verb| verb.get_name().to_owned())
        .collect()
}

/// Reads `500ms`, `10s`, `5m`, `2h` or `1d`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let expected = || format!("{text:?} is no duration: give a whole number and ms, s, m, h or d");
    let number: u64 = number.parse().map_err(|_| expected())?;
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(expected()),
    };
    let ms = number.checked_mul(unit_ms).ok_or_else(expected)?;
    Ok(Duration::from_millis(ms))
}

/// Whole milliseconds of a duration that [`duration`] read.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::read_from(line.split_whitespace())
    }

    #[test]
    fn the_table_of_commands_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn durations_read_as_the_contract_says() {
        for (text, ms) in [("500ms", 500), ("10s", 10_000), ("5m", 300_000), ("0s", 0)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7_200)));
        assert_eq!(duration("1d"), Ok(Duration::from_secs(86_400)));
        for text in [
            "",
            "10",
            "s",
            "1.5s",
            "-1s",
            "10 s",
            "18446744073709551615m",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn global_flags_stand_before_and_behind_a_verb() {
        for line in [
            "quorate --endpoints a:1,b:2 -o json lease get k",
            "quorate lease get k --endpoints a:1,b:2 --output json",
            "quorate lease --endpoints=a:1,b:2 get -ojson k",
        ] {
            let cli = parse(line).expect(line);
            assert_eq!(cli.global.endpoints, ["a:1", "b:2"], "{line}");
            assert_eq!(cli.global.output, Format::Json, "{line}");
        }
    }

    #[test]
    fn the_private_key_and_a_dedupe_key_do_not_mix() {
        let cli = parse("quorate lease list --cert c --key k").expect("no key of its own");
        assert_eq!(cli.global.key_file, Some(PathBuf::from("k")));
        let cli = parse("quorate --cert c --key k queue push q --payload 1 --key d").expect("both");
        assert_eq!(cli.global.key_file, Some(PathBuf::from("k")));
        let Command::Queue(queue::Verb::Push(push)) = cli.command else {
            panic!("it is a push");
        };
        assert_eq!(push.key.as_deref(), Some("d"));
        let cli = parse("quorate queue push q --payload 1 --cert c --key-file k").expect("long");
        assert_eq!(cli.global.key_file, Some(PathBuf::from("k")));
    }

    #[test]
    fn short_help_is_about_the_command_and_long_help_tells_all() {
        let short = parse("quorate lease -h")
            .expect_err("help is no command")
            .to_string();
        assert!(short.contains("claim"), "{short}");
        assert!(!short.contains("--endpoints"), "{short}");
        let long = parse("quorate lease get --help")
            .expect_err("help")
            .to_string();
        assert!(long.contains("QUORATE_ENDPOINTS"), "{long}");
    }

    #[test]
    fn the_verbs_of_the_contract_parse() {
        for line in [
            "status",
            "top",
            "top --interval 500ms",
            "health",
            "cert ca --out pki --domain d",
            "cert node n1 --host a --host 10.0.0.1 --ca pki --days 30",
            "cert client ops --force",
            "cert show pki/n1.pem",
            "member list",
            "member add n4 --peer a:1 --client a:2",
            "member promote 4 --dry-run",
            "member remove 4 --yes",
            "member transfer-leader",
            "member transfer-leader 2",
            "lease list",
            "lease list jobs/",
            "lease claim k --owner me --ttl 10s",
            "lease renew k --token 7",
            "lease release k --token 7",
            "lease revoke k --yes",
            "lease history k",
            "lease explain k",
            "lease watch",
            "lock run k -- cmd --flag",
            "lock run k --ttl 10s --wait 30s --owner me --delay 1s --kill-after 5s -- cmd",
            "lock run k --shared -- cmd",
            "lock run k --permits 3 --wait 0s -- cmd -o json",
            "lock list",
            "lock list jobs/ --limit 5",
            "lock get k",
            "lock waiters k",
            "lock cancel-wait k 0198a2b4-0000-7000-8000-000000000000",
            "lock release k --token 7",
            "lock revoke k --token 7 --by me --yes",
            "lock graph jobs/",
            "lock watch jobs/",
            "queue list",
            "queue push q --payload {} --key d --delay 5s --priority 9",
            "queue claim q --owner me --ttl 30s --max 5 --wait 10s",
            "queue renew q 9 --token 7 --ttl 30s",
            "queue settle q 9 --token 7",
            "queue settle q 9 --token 7 --retry-in 5s",
            "queue settle q 9 --token 7 --dead --note broken",
            "queue cancel q 9 --yes",
            "queue peek q",
            "queue dead q",
            "queue requeue q 9",
            "process list --state running",
            "process get p",
            "process events p --after 3 --follow",
            "process append p --type t --payload {} --key k --fence a=b=7",
            "process register p",
            "process complete p --state succeeded --outcome {}",
            "session list",
            "session list lash/ --limit 5",
            "session get s",
            "session get s --graph",
            "session inputs s --lane main --all --limit 5",
            "session work s --lane main --limit 5",
            "verify",
            "bench lock --clients 8 --seconds 1",
            "bench read --count 100 --keys 10 --connections 2 -o json",
            "completion bash",
            "version",
        ] {
            parse(&format!("quorate {line}")).expect(line);
        }
    }

    #[test]
    fn access_control_has_its_verbs() {
        for line in [
            "access status",
            "access enable --yes",
            "access disable",
            "access on --yes",
            "access off",
            "access user put ci --role builder --role looker --certificate",
            "access user list",
            "access user delete ci --yes",
            "access role put builder --rule write:lease:build/ --rule read:cluster",
            "access role delete builder",
            "access token create ci --ttl 30d --out ci.token",
            "access token list ci",
            "access token revoke 0123 --yes",
            "audit",
            "audit --user ci --prefix build/ --command lease. --since 1h --before 5m --limit 9",
            "audit --anonymous --after 7 --ticks",
        ] {
            parse(&format!("quorate {line}")).expect(line);
        }
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        for line in [
            "lease claim k --ttl 10s",
            "access role put builder --rule do:lease:",
            "audit --user ci --anonymous",
            "audit --limit 0",
            "queue settle q 9 --token 7 --dead --retry-in 5s",
            "bench lock --seconds 1 --count 5",
            "lease renew k --token -1",
            "lock run k",
            "lock run k cmd",
            "lock run k --shared --permits 3 -- cmd",
            "lock run k --permits 0 -- cmd",
            "lock release k",
            "lease list --cert a",
            "session get",
            "session inputs s --graph",
            "session work s --all",
            "session work s --lane",
            "session list --limit -1",
        ] {
            assert!(parse(&format!("quorate {line}")).is_err(), "{line}");
        }
    }
}
