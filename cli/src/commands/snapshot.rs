//! `quorate snapshot`: the state as a file, and a new cluster from one.

use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::Path;

use quorate_client::admin::Admin;
use quorate_node::backup::{self, Place};
use quorate_node::disaster::{self, DisasterError};
use quorate_node::snapshot_file::{self, FileError, Header, Summary};
use quorate_statemachine::{Timestamp, tables};
use serde::Serialize;
use tempfile::NamedTempFile;

use super::made::{self, Made};
use super::progress::Progress;
use crate::args::snapshot::{Inspect, Restore, Save};
use crate::exit::Failure;
use crate::output::Printer;
use crate::value::time;

/// Saves the cluster's state.
pub async fn save(
    admin: &Admin,
    stale: bool,
    args: &Save,
    printer: &mut Printer,
) -> Result<(), Failure> {
    let file = &args.file;
    if file.exists() {
        return Err(Failure::invalid(format!(
            "{} exists, and nothing was done; give another name, or remove it",
            file.display()
        )));
    }
    let dir = match file.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    let fresh = NamedTempFile::new_in(dir).map_err(|error| io("create a file in", dir, &error))?;
    receive(admin, stale, &fresh).await?;
    let synced = fresh.as_file().sync_all();
    synced.map_err(|error| io("write to", fresh.path(), &error))?;
    // What is on the disk is what counts, not what was sent.
    let (header, summary) = read_through(fresh.path())?;
    let kept = fresh.persist_noclobber(file);
    kept.map_err(|error| io("write to", file, &error.error))?;
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    synced.map_err(|error| io("write to", dir, &error))?;
    Ok(show(printer, file, &header, &summary)?)
}

async fn receive(admin: &Admin, stale: bool, fresh: &NamedTempFile) -> Result<(), Failure> {
    let mut parts = admin.save_snapshot(stale).await?;
    let mut out = fresh.as_file();
    let mut progress = Progress::new("saved");
    let mut bytes = 0;
    while let Some(part) = parts.next().await? {
        let written = out.write_all(&part.data);
        written.map_err(|error| io("write to", fresh.path(), &error))?;
        bytes += part.data.len();
        let (rows, about) = (part.rows, part.rows_estimated.max(part.rows));
        progress.tell(|| format!("{rows} of about {about} rows, {} KiB", bytes >> 10));
    }
    progress.end();
    Ok(())
}

/// Checks a file.
pub fn inspect(args: &Inspect, mut printer: Printer) -> Result<(), Failure> {
    let (header, summary) = read_through(&args.file)?;
    Ok(show(&mut printer, &args.file, &header, &summary)?)
}

/// Makes a new cluster's first member.
pub fn restore(args: &Restore, mut printer: Printer) -> Result<(), Failure> {
    made::check(&args.first)?;
    let mut source = open(&args.file)?;
    let size = source.size;
    let mut progress = Progress::new("read");
    let read = &mut |bytes: u64| {
        progress.tell(|| format!("{} of {} KiB", bytes >> 10, size >> 10));
    };
    let restored = disaster::restore(&args.first.wanted(), &mut source.input, read);
    progress.end();
    let restored = restored.map_err(|error| match error {
        DisasterError::File(error) => bad_file(&args.file, &error),
        other => made::refused(&other),
    })?;
    let shown = Made::new(
        &args.first.data_dir,
        &restored.identity,
        restored.tokens_above,
        restored.header.cluster_id,
    );
    Ok(printer.value(&shown, &shown.text())?)
}

fn read_through(path: &Path) -> Result<(Header, Summary), Failure> {
    let read = snapshot_file::verify(&mut open(path)?.input);
    read.map_err(|error| bad_file(path, &error))
}

/// What a file is read from.
struct Source {
    input: Box<dyn Read>,
    size: u64,
    /// Where a store is read.
    _runtime: Option<tokio::runtime::Runtime>,
}

fn open(path: &Path) -> Result<Source, Failure> {
    let place = path.to_str().map(|text| Place::parse("FILE", text));
    if let Some(Ok(Place::S3 { bucket, prefix })) = place {
        return fetch(&bucket, &prefix);
    }
    let file = File::open(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Failure::not_found("file", &path.display().to_string()),
        _ => io("read", path, &error),
    })?;
    Ok(Source {
        size: file.metadata().map_or(0, |found| found.len()),
        input: Box::new(BufReader::new(file)),
        _runtime: None,
    })
}

fn fetch(bucket: &str, name: &str) -> Result<Source, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let opened = runtime.block_on(backup::read(bucket, name));
    let (size, input) = opened.map_err(|error| Failure::error("store", error.to_string()))?;
    Ok(Source {
        input,
        size,
        _runtime: Some(runtime),
    })
}

fn bad_file(path: &Path, error: &FileError) -> Failure {
    Failure::error("bad_snapshot", format!("{}: {error}", path.display()))
}

fn io(doing: &str, path: &Path, error: &std::io::Error) -> Failure {
    Failure::error("io", format!("cannot {doing} {}: {error}", path.display()))
}

#[derive(Serialize)]
struct Shown {
    file: String,
    format_version: u8,
    build: String,
    cluster_id: String,
    node_id: String,
    node_name: String,
    index: String,
    term: String,
    cluster_time: String,
    saved_at: String,
    digest: String,
    bytes: String,
    rows: String,
    members: Vec<String>,
    tables: Vec<ShownTable>,
}

#[derive(Serialize)]
struct ShownTable {
    table: String,
    rows: String,
    bytes: String,
}

fn show(
    printer: &mut Printer,
    file: &Path,
    header: &Header,
    summary: &Summary,
) -> std::io::Result<()> {
    let shown = Shown::new(file, header, summary);
    printer.value(&shown, &shown.text())
}

impl Shown {
    fn new(file: &Path, header: &Header, summary: &Summary) -> Self {
        let last = header.covers.last_log_id;
        let members = header.covers.last_membership.membership();
        let voters: Vec<u64> = members.voter_ids().collect();
        let members = members.nodes().map(|(id, member)| {
            let role = if voters.contains(id) {
                "voter"
            } else {
                "learner"
            };
            format!("{id} {} {role}", member.name)
        });
        let tables = summary.tables.iter().map(|(tag, size)| ShownTable {
            table: table_name(*tag),
            rows: size.rows.to_string(),
            bytes: size.bytes.to_string(),
        });
        Self {
            file: file.display().to_string(),
            format_version: snapshot_file::FORMAT_VERSION,
            build: header.build.clone(),
            cluster_id: header.cluster_id.clone(),
            node_id: header.node_id.to_string(),
            node_name: header.node_name.clone(),
            index: last.map_or(0, |id| id.index).to_string(),
            term: last.map_or(0, |id| id.leader_id.term).to_string(),
            cluster_time: time(Timestamp(header.now_ms)),
            saved_at: time(Timestamp(header.saved_at_ms)),
            digest: summary.digest.to_string(),
            bytes: summary.file_bytes.to_string(),
            rows: summary.rows().to_string(),
            members: members.collect(),
            tables: tables.collect(),
        }
    }

    fn text(&self) -> String {
        let mut text = format!(
            "{}: whole, format version {}, {} bytes\n\
             cluster       {}\n\
             members       {}\n\
             log           index {}, term {}\n\
             cluster time  {}\n\
             saved         {} by node {} ({}), build {}\n\
             digest        {}\n\
             rows          {}",
            self.file,
            self.format_version,
            self.bytes,
            self.cluster_id,
            self.members.join(", "),
            self.index,
            self.term,
            self.cluster_time,
            self.saved_at,
            self.node_id,
            self.node_name,
            self.build,
            self.digest,
            self.rows,
        );
        for ShownTable { table, rows, bytes } in &self.tables {
            text.push_str(&format!(
                "\n  {table:<24} {rows:>10} rows {bytes:>14} bytes"
            ));
        }
        text
    }
}

fn table_name(tag: u8) -> String {
    let known = tables::REGISTRY.iter().find(|(known, _)| *known == tag);
    known.map_or_else(|| format!("{tag:#04x}"), |(_, name)| (*name).to_owned())
}
