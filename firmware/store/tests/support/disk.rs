//! A disk that forgets: replays recorded file operations and shows what a power cut may leave of them.
//!
//! What an `fsync` or `fdatasync` of a file covered when it began is kept. Of everything else each 4 KiB page may be kept,
//! lost, or torn between 512-octet sectors, and the file's length may be old or new. Names (creations, renames, removals)
//! are kept in order, but only a sync of a folder makes those before it last; later ones may be lost from the end.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use super::Rng;

/// One recorded operation.
#[derive(Clone, Debug)]
pub enum Event {
    Create(PathBuf),
    MakeFolder(PathBuf),
    Write {
        path: PathBuf,
        at: u64,
        data: Vec<u8>,
    },
    Truncate {
        path: PathBuf,
        length: u64,
    },
    SyncBegins {
        path: PathBuf,
        call: usize,
    },
    SyncEnds {
        path: PathBuf,
        call: usize,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    Remove(PathBuf),
    /// A line the writer printed.
    Said(String),
}

/// What the cut does to writes that were not synced.
#[derive(Clone, Copy, Debug)]
pub enum Cut {
    AllLost,
    AllKept,
    Pages,
    Torn,
}

#[derive(Clone, Debug, Default)]
struct Content {
    synced: Vec<u8>,
    written: Vec<u8>,
}

/// `None`: a folder.
type Names = BTreeMap<PathBuf, Option<usize>>;

#[derive(Default)]
pub struct Disk {
    contents: Vec<Content>,
    synced_names: Names,
    names: Names,
    /// Changes of names not yet synced, oldest first.
    unsynced: Vec<NameChange>,
    syncing: HashMap<usize, (Option<usize>, Vec<u8>, usize)>,
}

#[derive(Clone)]
enum NameChange {
    Add(PathBuf, Option<usize>),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

fn apply(names: &mut Names, change: &NameChange) {
    match change {
        NameChange::Add(path, content) => {
            names.insert(path.clone(), *content);
        }
        NameChange::Remove(path) => {
            names.remove(path);
        }
        NameChange::Rename(from, to) => {
            let moved: Vec<_> = names.keys().filter(|path| path.starts_with(from)).cloned().collect();
            for path in moved {
                let content = names.remove(&path).unwrap();
                let rest = path.strip_prefix(from).unwrap();
                names.insert(if rest.as_os_str().is_empty() { to.clone() } else { to.join(rest) }, content);
            }
        }
    }
}

impl Disk {
    /// Takes the next operation. `syncs`: whether syncs do anything (a disk on which they do nothing must fail the test).
    pub fn take(&mut self, event: &Event, syncs: bool) {
        match event {
            Event::Create(path) => {
                if !self.names.contains_key(path) {
                    self.contents.push(Content::default());
                    self.rename_names(NameChange::Add(path.clone(), Some(self.contents.len() - 1)));
                }
            }
            Event::MakeFolder(path) => self.rename_names(NameChange::Add(path.clone(), None)),
            Event::Rename { from, to } => self.rename_names(NameChange::Rename(from.clone(), to.clone())),
            Event::Remove(path) => self.rename_names(NameChange::Remove(path.clone())),
            Event::Write { path, at, data } => {
                if let Some(content) = self.content(path) {
                    let at = *at as usize;
                    if content.written.len() < at + data.len() {
                        content.written.resize(at + data.len(), 0);
                    }
                    content.written[at..at + data.len()].copy_from_slice(data);
                }
            }
            Event::Truncate { path, length } => {
                if let Some(content) = self.content(path) {
                    content.written.resize(*length as usize, 0);
                }
            }
            Event::SyncBegins { path, call } => {
                let file = self.names.get(path).copied().flatten();
                let copy = file.map(|file| self.contents[file].written.clone()).unwrap_or_default();
                self.syncing.insert(*call, (file, copy, self.unsynced.len()));
            }
            Event::SyncEnds { path, call } => {
                let (file, copy, names) = self.syncing.remove(call).unwrap();
                if !syncs {
                    return;
                }
                match file {
                    Some(file) => self.contents[file].synced = copy,
                    None if self.names.get(path) == Some(&None) || path.parent().is_some() => {
                        for change in self.unsynced.drain(..names.min(self.unsynced.len())) {
                            apply(&mut self.synced_names, &change);
                        }
                    }
                    None => {}
                }
            }
            Event::Said(_) => {}
        }
    }

    fn rename_names(&mut self, change: NameChange) {
        apply(&mut self.names, &change);
        self.unsynced.push(change);
    }

    fn content(&mut self, path: &Path) -> Option<&mut Content> {
        let file = self.names.get(path).copied().flatten()?;
        self.contents.get_mut(file)
    }

    /// Writes below `to` what is left of the files recorded below `from`.
    pub fn after_cut(&self, from: &Path, to: &Path, cut: Cut, rng: &mut Rng) {
        let mut names = self.synced_names.clone();
        let kept = match cut {
            Cut::AllLost => 0,
            Cut::AllKept => self.unsynced.len(),
            Cut::Pages | Cut::Torn => rng.below(self.unsynced.len() + 1),
        };
        for change in &self.unsynced[..kept] {
            apply(&mut names, change);
        }
        for (path, content) in names {
            let Ok(rest) = path.strip_prefix(from) else { continue };
            let target = to.join(rest);
            match content {
                None => fs::create_dir_all(target).unwrap(),
                Some(content) => {
                    // The folder's own name may be among what was lost.
                    if target.parent().is_some_and(Path::is_dir) {
                        fs::write(&target, self.contents[content].after_cut(cut, rng)).unwrap();
                        if target.file_name().unwrap() == "keys" {
                            use std::os::unix::fs::PermissionsExt;
                            fs::set_permissions(&target, fs::Permissions::from_mode(0o600)).unwrap();
                        }
                    }
                }
            }
        }
    }
}

impl Content {
    fn after_cut(&self, cut: Cut, rng: &mut Rng) -> Vec<u8> {
        match cut {
            Cut::AllLost => return self.synced.clone(),
            Cut::AllKept => return self.written.clone(),
            Cut::Pages | Cut::Torn => {}
        }
        let (old, new) = (&self.synced, &self.written);
        let length = if rng.below(2) == 0 { old.len() } else { new.len() };
        let byte = |of: &Vec<u8>, at: usize| of.get(at).copied().unwrap_or(0);
        let mut left = vec![0; length];
        for page in (0..length).step_by(4_096) {
            let torn = matches!(cut, Cut::Torn) && rng.below(4) == 0;
            let mut keep = rng.below(2) == 0;
            for (offset, to) in left[page..(page + 4_096).min(length)].iter_mut().enumerate() {
                if torn && offset % 512 == 0 {
                    keep = rng.below(2) == 0;
                }
                *to = if keep { byte(new, page + offset) } else { byte(old, page + offset) };
            }
        }
        left
    }
}
