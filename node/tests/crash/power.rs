//! Power cuts: what was synced is there, whatever the disk lost of the rest.
//!
//! The child works on a file system of its own, in a file that is mounted as a device. It is
//! stopped *first*, or it would acknowledge what the disk no longer takes; then the file system is
//! shut down without writing anything more, which drops all that was not synced; then the child is
//! killed, and what is left is mounted again.
//!
//! That takes a superuser, a loop device and ext4. Without them nothing is tested, which is said on
//! standard error, also when the output of tests is held back; `QUORATE_POWER_ROUNDS=n`, the long
//! form, makes that a failure.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::DIR;
use crate::parent::{Model, check, number, run_child, seed};

/// Rounds of the short form.
const ROUNDS: u64 = 3;

/// Most things that the child says in a round.
const LINES_MAX: u64 = 300;

/// A system takes a fraction of this for a signal or a mount.
const PATIENCE: Duration = Duration::from_secs(30);

const IMAGE_BYTES: u64 = 1 << 30;

/// `EXT4_IOC_SHUTDOWN` without flushing the journal, as `xfs_io -x -c shutdown` does it. Python is
/// there wherever the documents are checked; the call itself would be unsafe code.
const SHUT_DOWN: &str = "import fcntl, os, struct, sys
directory = os.open(sys.argv[1], os.O_RDONLY)
fcntl.ioctl(directory, 0x8004587d, struct.pack('I', 2))";

fn run(program: &str, args: &[&str]) -> Result<String, String> {
    let output = Process::new(program).args(args).output();
    let output = output.map_err(|error| format!("cannot run {program}: {error}"))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        false => {
            let words = String::from_utf8_lossy(&output.stderr);
            Err(format!("{program} {args:?}: {}", words.trim()))
        }
    }
}

/// A file system on a loop device. Dropping it unmounts it.
struct Disk {
    device: String,
    mounted_at: PathBuf,
    is_mounted: bool,
}

impl Disk {
    fn new(dir: &Path) -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("only a superuser mounts".to_owned());
        }
        let (image, mounted_at) = (dir.join("image"), dir.join("mounted"));
        let sized = File::create(&image).and_then(|file| file.set_len(IMAGE_BYTES));
        sized.map_err(|error| error.to_string())?;
        fs::create_dir(&mounted_at).map_err(|error| error.to_string())?;
        let image = image.display().to_string();
        run("mkfs.ext4", &["-q", "-F", &image])?;
        let device = run("losetup", &["-f", "--show", &image])?;
        let mut disk = Self {
            device,
            mounted_at,
            is_mounted: false,
        };
        disk.mount()?;
        Ok(disk)
    }

    fn mount(&mut self) -> Result<(), String> {
        let at = self.mounted_at.display().to_string();
        run("mount", &["-t", "ext4", &self.device, &at])?;
        self.is_mounted = true;
        Ok(())
    }

    fn unmount(&mut self) -> Result<(), String> {
        let at = self.mounted_at.display().to_string();
        // A process that was just killed may hold it for a moment.
        let given_up = Instant::now() + PATIENCE;
        while let Err(problem) = run("umount", &[&at]) {
            if Instant::now() > given_up {
                return Err(problem);
            }
            std::thread::yield_now();
        }
        self.is_mounted = false;
        Ok(())
    }

    /// From here on nothing gets to the disk, and what had not got there is lost.
    fn cut(&self) -> Result<(), String> {
        let at = self.mounted_at.display().to_string();
        run("python3", &["-c", SHUT_DOWN, &at]).map(drop)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.is_mounted
            && let Err(problem) = self.unmount()
        {
            eprintln!("left mounted: {problem}");
        }
        let _ = run("losetup", &["-d", &self.device]);
    }
}

/// SIGSTOP, and waits until all of its threads stand still.
fn stop(child: &Child) {
    kill_process(Pid::from_child(child), Signal::STOP).unwrap();
    let given_up = Instant::now() + PATIENCE;
    while !stands_still(child.id()) {
        assert!(Instant::now() < given_up, "the child does not stand still");
        std::thread::yield_now();
    }
}

fn stands_still(pid: u32) -> bool {
    let mut tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    tasks.all(|task| {
        // A thread may end between the list and the look.
        let stat = fs::read_to_string(task.unwrap().path().join("stat")).unwrap_or_default();
        let state = stat.rsplit_once(") ").map(|(_, rest)| rest);
        state.is_none_or(|state| state.starts_with('T'))
    })
}

/// Stops the child, writes one file that is synced and one that is not, cuts, and kills.
fn cut_under(child: &mut Child, disk: &Disk) {
    stop(child);
    let mut synced = File::create(disk.mounted_at.join("synced")).unwrap();
    synced.write_all(b"synced").unwrap();
    synced.sync_all().unwrap();
    fs::write(disk.mounted_at.join("unsynced"), b"unsynced").unwrap();
    disk.cut().unwrap();
    child.kill().unwrap();
}

/// The cut was one: what was not synced is lost, and what was is there.
fn check_cut(disk: &Disk) {
    let read = |name: &str| fs::read(disk.mounted_at.join(name)).unwrap_or_default();
    assert_eq!(read("synced"), b"synced", "the disk lies");
    assert_eq!(read("unsynced"), b"", "the cut was none");
    fs::remove_file(disk.mounted_at.join("synced")).unwrap();
    let _ = fs::remove_file(disk.mounted_at.join("unsynced"));
}

fn not_run(why: &str) {
    let wanted = std::env::var("QUORATE_POWER_ROUNDS").is_ok();
    assert!(!wanted, "power cuts cannot be tested here: {why}");
    // Written past the harness, which holds back what a passing test prints.
    let words = format!("\n*** POWER CUTS WERE NOT TESTED: {why} ***\n\n");
    let _ = std::io::stderr().write_all(words.as_bytes());
}

#[tokio::test]
async fn a_node_whose_power_was_cut_has_everything_that_it_acknowledged() {
    if std::env::var(DIR).is_ok() {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let mut disk = match Disk::new(temp.path()) {
        Ok(disk) => disk,
        Err(why) => return not_run(&why),
    };
    let mut random = seed();
    let (mut model, data) = (Model::default(), disk.mounted_at.join("data"));
    let mut acked = 0;
    for round in 0..number("QUORATE_POWER_ROUNDS", ROUNDS) {
        let mode = random.below(u64::MAX >> 34).to_string();
        let lines = 1 + random.below(LINES_MAX);
        let process = Process::new(std::env::current_exe().unwrap());
        let heard = run_child(process, &data, &mode, lines, |child| {
            cut_under(child, &disk);
        });
        assert!(
            heard.lines >= lines,
            "round {round}: the child ended by itself, {heard:?}"
        );
        disk.unmount().unwrap();
        disk.mount().unwrap();
        check_cut(&disk);
        check(&data, &heard, &mut model).await;
        acked = heard.acked.max(acked);
    }
    println!("{acked} entries were acknowledged over all cuts");
}
