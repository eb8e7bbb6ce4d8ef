//! What a pack is called in the cluster: its canonical path, as the name of a lock.
//!
//! `pack/<namespace>/<path>`, where the path is that of the directory with symlinks and `..`
//! resolved, its components joined by `/`: absolute, or what is below the root of the host, `.` for
//! the root itself. In it, `%` and every byte that a lock's name cannot hold (control characters,
//! what is not UTF-8) is `%` and two hex digits, so that different paths have different names. A
//! name that would be longer than a lock's may be is `pack/<namespace>/%sha256-<hex>`, the SHA-256
//! of the path so written. No path is written so: in one, `%` is followed by hex digits only.

use std::fmt::Write;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use quorate_client::statemachine::Name;
use quorate_client::statemachine::limits::NAME_BYTES_MAX;
use sha2::{Digest, Sha256};

/// The path of a directory that exists or may be made, with nothing in it to be resolved.
///
/// What does not exist is taken as if it were made as plain directories, which is what making them
/// with their parents would do.
pub(crate) fn canonical(path: &Path) -> io::Result<PathBuf> {
    let canonical = match fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => resolve(path)?,
        resolved => resolved?,
    };
    match fs::metadata(&canonical) {
        Ok(found) if !found.is_dir() => Err(no_directory(&canonical)),
        _ => Ok(canonical),
    }
}

/// Component by component: what exists is resolved by the file system, what does not by itself.
fn resolve(path: &Path) -> io::Result<PathBuf> {
    let mut resolved = PathBuf::new();
    let mut missing = 0_usize;
    for component in std::env::current_dir()?.join(path).components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                resolved.pop();
                missing = missing.saturating_sub(1);
            }
            Component::Normal(name) if missing > 0 => {
                resolved.push(name);
                missing += 1;
            }
            Component::Normal(name) => match step(&resolved.join(name))? {
                Some(found) => resolved = found,
                None => {
                    resolved.push(name);
                    missing = 1;
                }
            },
            Component::Prefix(_) | Component::RootDir => resolved.push(component),
        }
    }
    Ok(resolved)
}

/// None if there is nothing. A symlink that leads nowhere may lead to another pack later, so that
/// it names none.
fn step(path: &Path) -> io::Result<Option<PathBuf>> {
    match fs::canonicalize(path) {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Err(error) => match fs::symlink_metadata(path) {
            Ok(_) => Err(io::Error::new(
                error.kind(),
                format!("the symlink {} leads nowhere", path.display()),
            )),
            Err(_) => Ok(None),
        },
    }
}

fn no_directory(path: &Path) -> io::Error {
    let problem = format!("{} is no directory, so it is no pack", path.display());
    io::Error::new(io::ErrorKind::NotADirectory, problem)
}

/// The part of a canonical path that names the pack on every host with its own root.
pub(crate) fn below(canonical: &Path, root: Option<&Path>) -> io::Result<PathBuf> {
    let Some(root) = root else {
        return Ok(canonical.to_owned());
    };
    match canonical.strip_prefix(root) {
        Ok(below) => Ok(below.to_owned()),
        Err(_) => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "{} is not below the root {}, so that other hosts have no name for it; open it \
                 with a PackLocks without a root",
                canonical.display(),
                root.display()
            ),
        )),
    }
}

/// The lock's name for a path from [`below`].
pub(crate) fn key(namespace: &str, path: &Path) -> Name {
    let written = written(path);
    let mut key = format!("pack/{namespace}/{written}");
    if key.len() > NAME_BYTES_MAX {
        key = format!("pack/{namespace}/%sha256-{}", hex(&Sha256::digest(written)));
    }
    Name::parse("key", key).expect("no control characters are left, and the length is checked")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn written(path: &Path) -> String {
    let mut text = String::new();
    let mut first = true;
    for component in path.components() {
        let root = component == Component::RootDir;
        if !first && !root && !text.ends_with('/') {
            text.push('/');
        }
        match root {
            true => text.push('/'),
            false => escape(component.as_os_str().as_encoded_bytes(), &mut text),
        }
        first = false;
    }
    if text.is_empty() {
        text.push('.');
    }
    text
}

fn escape(bytes: &[u8], text: &mut String) {
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c == '%' || c.is_control() {
                true => escape_all(c.encode_utf8(&mut [0; 4]).as_bytes(), text),
                false => text.push(c),
            }
        }
        escape_all(chunk.invalid(), text);
    }
}

fn escape_all(bytes: &[u8], text: &mut String) {
    for byte in bytes {
        let _ = write!(text, "%{byte:02X}");
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::collections::BTreeSet;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;

    use super::*;

    fn named(namespace: &str, path: impl AsRef<OsStr>) -> String {
        key(namespace, Path::new(path.as_ref())).to_string()
    }

    #[test]
    fn a_plain_path_is_its_own_name() {
        assert_eq!(named("ns", "/home/u/übung"), "pack/ns//home/u/übung");
        assert_eq!(named("ns", "tools/vim"), "pack/ns/tools/vim");
        assert_eq!(named("ns", "/"), "pack/ns//");
        assert_eq!(named("ns", ""), "pack/ns/.");
    }

    #[test]
    fn what_no_name_may_hold_is_written_in_hex() {
        assert_eq!(named("ns", "/a%b"), "pack/ns//a%25b");
        assert_eq!(named("ns", "/a\nb"), "pack/ns//a%0Ab");
        assert_eq!(named("ns", "/a\u{85}b"), "pack/ns//a%C2%85b");
        assert_eq!(
            named("ns", OsStr::from_bytes(b"/a\xff\xc3b")),
            "pack/ns//a%FF%C3b"
        );
    }

    #[test]
    fn paths_that_look_alike_have_names_of_their_own() {
        let long = format!("/{}", "x".repeat(600));
        let hash = named("ns", &long);
        let paths: Vec<&[u8]> = vec![
            b"/a",
            b"a",
            b"/a/b",
            b"a/b",
            b"/a%2Fb",
            b"/a%25",
            b"/a%",
            b"/a\xff",
            b"/a%FF",
            b"/A",
            b"/a b",
            b"/a\x01",
            b"/a%01",
            b"",
            b"/",
            b"%sha256-00",
            b"/%sha256-00",
            hash.as_bytes(),
            &hash.as_bytes()["pack/ns/".len()..],
            long.as_bytes(),
        ];
        let mut names = BTreeSet::new();
        for path in paths {
            for namespace in ["ns", "ns%", "n"] {
                let name = named(namespace, OsStr::from_bytes(path));
                assert!(
                    names.insert(name.clone()),
                    "{name} is the name of two packs"
                );
            }
        }
    }

    #[test]
    fn a_long_path_is_named_by_its_hash_from_the_first_byte_too_many() {
        let fits = format!("/{}", "x".repeat(NAME_BYTES_MAX - "pack/ns//".len()));
        assert_eq!(named("ns", &fits).len(), NAME_BYTES_MAX);
        let long = named("ns", format!("{fits}x"));
        assert!(long.starts_with("pack/ns/%sha256-"), "{long}");
        assert_eq!(long.len(), "pack/ns/%sha256-".len() + 64);
        assert_ne!(long, named("ns", format!("{fits}y")));
        // Escapes count: a short path of strange bytes may have a long name.
        let strange = [b"/".as_slice(), &[0xff; 200]].concat();
        assert!(named("ns", OsStr::from_bytes(&strange)).starts_with("pack/ns/%sha256-"));
    }

    #[test]
    fn the_hash_of_a_long_path_stays_the_same() {
        let long = format!("/{}", "x".repeat(600));
        let hash = "0a0787f9a06aaf226f872c1f7ca905cf0d4effe6d6d40b1e42998af15aaa254f";
        assert_eq!(named("ns", long), format!("pack/ns/%sha256-{hash}"));
    }

    #[test]
    fn symlinks_dots_and_slashes_lead_to_one_path() {
        let dir = tempfile::tempdir().expect("a directory");
        let base = fs::canonicalize(dir.path()).expect("it exists");
        let pack = base.join("real/pack");
        fs::create_dir_all(&pack).expect("made");
        symlink(base.join("real"), base.join("link")).expect("linked");
        for path in [
            "real/pack",
            "link/pack",
            "link/pack/",
            "real/./pack",
            "link/../real/pack",
        ] {
            assert_eq!(canonical(&base.join(path)).expect(path), pack, "{path}");
        }
    }

    #[test]
    fn what_does_not_exist_is_resolved_as_if_it_were_made() {
        let dir = tempfile::tempdir().expect("a directory");
        let base = fs::canonicalize(dir.path()).expect("it exists");
        fs::create_dir_all(base.join("real")).expect("made");
        symlink(base.join("real"), base.join("link")).expect("linked");
        let cases = [
            ("link/new/pack", "real/new/pack"),
            ("link/new/../pack/", "real/pack"),
            ("new/../link/pack", "real/pack"),
            ("new/deep/../../link/./pack", "real/pack"),
        ];
        for (path, resolved) in cases {
            let before = canonical(&base.join(path)).expect(path);
            assert_eq!(before, base.join(resolved), "{path}");
        }
        assert!(!base.join("real/new").exists(), "nothing was made");
        // Once made, it is called what it was called before.
        fs::create_dir_all(base.join("link/new/pack")).expect("made");
        let after = canonical(&base.join("link/new/pack")).expect("it exists");
        assert_eq!(after, base.join("real/new/pack"));
    }

    #[test]
    fn what_names_no_directory_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let base = dir.path();
        fs::write(base.join("file"), "").expect("written");
        symlink(base.join("nowhere"), base.join("dangling")).expect("linked");
        symlink(base.join("loop"), base.join("loop")).expect("linked");
        for path in [
            "file",
            "file/pack",
            "dangling",
            "dangling/pack",
            "loop/pack",
        ] {
            canonical(&base.join(path)).expect_err(path);
        }
    }

    #[test]
    fn a_pack_outside_the_root_is_refused() {
        let (root, inside) = (Path::new("/srv/a"), Path::new("/srv/a/b/c"));
        assert_eq!(below(inside, Some(root)).expect("below"), Path::new("b/c"));
        assert_eq!(below(inside, None).expect("any"), inside);
        for outside in ["/srv", "/srv/ab", "/home"] {
            let refused = below(Path::new(outside), Some(root)).expect_err(outside);
            assert!(refused.to_string().contains("/srv/a"), "{refused}");
        }
    }
}
