//! Reads what `strace -f -y -xx` recorded.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::disk::Event;

/// The system calls that change files, and those that make changes last.
pub const CALLS: &str = "openat,open,creat,write,pwrite64,writev,pwritev,ftruncate,truncate,fallocate,fsync,fdatasync,\
                         msync,rename,renameat,renameat2,unlink,unlinkat,rmdir,mkdir,mkdirat,link,linkat,lseek";

/// The recorded operations in order.
pub fn parse(text: &str) -> Vec<Event> {
    let mut parser = Parser::default();
    for line in text.lines() {
        let (pid, rest) = line.split_once(' ').unwrap();
        let rest = rest.trim_start();
        if let Some(begun) = rest.strip_suffix("<unfinished ...>") {
            parser.begins(begun);
            let call = parser.calls;
            parser.unfinished.insert(pid.to_owned(), (begun.trim_end().to_owned(), call));
        } else if rest.starts_with("<... ") {
            let Some((begun, call)) = parser.unfinished.remove(pid) else { continue };
            let end = rest.split_once("resumed>").unwrap().1;
            parser.ends(&format!("{begun}{end}"), call, true);
        } else if rest.contains('(') {
            parser.begins(rest);
            let call = parser.calls;
            parser.ends(rest, call, false);
        }
    }
    parser.events
}

#[derive(Default)]
struct Parser {
    events: Vec<Event>,
    unfinished: HashMap<String, (String, usize)>,
    calls: usize,
    /// Where `write` goes on, by descriptor, and how long each file is.
    positions: HashMap<String, u64>,
}

impl Parser {
    /// A sync covers what was written before it began.
    fn begins(&mut self, text: &str) {
        self.calls += 1;
        let (name, arguments) = text.split_once('(').unwrap();
        if matches!(name, "fsync" | "fdatasync") {
            let path = descriptor(arguments).1;
            self.events.push(Event::SyncBegins { path, call: self.calls });
        }
    }

    fn ends(&mut self, text: &str, call: usize, _resumed: bool) {
        let Some((before, result)) = text.rsplit_once(" = ") else { return };
        if result.starts_with('-') || result.starts_with('?') {
            let name = text.split('(').next().unwrap();
            assert!(!matches!(name, "fsync" | "fdatasync"), "a sync failed while recording: {text}");
            return;
        }
        let (name, arguments) = before.split_once('(').unwrap();
        let arguments = arguments.trim_end().trim_end_matches(')');
        let strings: Vec<Vec<u8>> = arguments.split('"').skip(1).step_by(2).map(unescape).collect();
        let path = |n: usize| PathBuf::from(String::from_utf8(strings[n].clone()).unwrap());
        match name {
            "openat" => {
                let (number, opened) = descriptor(result);
                self.positions.insert(number, 0);
                if arguments.contains("O_CREAT") {
                    self.events.push(Event::Create(opened.clone()));
                }
                if arguments.contains("O_TRUNC") {
                    self.events.push(Event::Truncate { path: opened, length: 0 });
                }
            }
            "pwrite64" => {
                let (_, path) = descriptor(arguments);
                let at = arguments.rsplit(", ").next().unwrap().parse().unwrap();
                let written: usize = result.trim().parse().unwrap();
                self.events.push(Event::Write { path, at, data: strings[0][..written].to_vec() });
            }
            "write" => {
                let (number, path) = descriptor(arguments);
                let written: usize = result.trim().parse().unwrap();
                let data = strings[0][..written].to_vec();
                if number == "1" {
                    let said = String::from_utf8_lossy(&data).into_owned();
                    self.events.extend(said.lines().map(|line| Event::Said(line.to_owned())));
                    return;
                }
                let position = self.positions.entry(number).or_default();
                self.events.push(Event::Write { path, at: *position, data });
                *position += written as u64;
            }
            "lseek" => {
                let (number, _) = descriptor(arguments);
                self.positions.insert(number, result.trim().parse().unwrap());
            }
            "ftruncate" => {
                let (_, path) = descriptor(arguments);
                let length = arguments.rsplit(", ").next().unwrap().parse().unwrap();
                self.events.push(Event::Truncate { path, length });
            }
            "fsync" | "fdatasync" => {
                let path = descriptor(arguments).1;
                self.events.push(Event::SyncEnds { path, call });
            }
            "rename" => self.events.push(Event::Rename { from: path(0), to: path(1) }),
            "mkdir" => self.events.push(Event::MakeFolder(path(0))),
            "unlink" | "rmdir" => self.events.push(Event::Remove(path(0))),
            "unlinkat" => {
                let folder =
                    if arguments.starts_with("AT_FDCWD") { PathBuf::new() } else { descriptor(arguments).1 };
                self.events.push(Event::Remove(folder.join(path(0))));
            }
            other => panic!("the model does not know {other}: {}", &text[..text.len().min(200)]),
        }
    }
}

/// `5</path>` as number and path; strace writes both in clear or as `\x2f…`.
fn descriptor(text: &str) -> (String, PathBuf) {
    let (number, rest) = text.split_once('<').unwrap_or((text, ">"));
    let path = rest.split_once('>').map_or(rest, |(path, _)| path);
    let path = String::from_utf8(unescape(path)).unwrap();
    (number.trim().to_owned(), Path::new(&path).to_owned())
}

fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len() / 4);
    let mut rest = text.as_bytes();
    while let Some((first, others)) = rest.split_first() {
        if let [b'\\', b'x', high, low, others @ ..] = rest {
            let digit = |c: u8| (c as char).to_digit(16).unwrap() as u8;
            bytes.push(digit(*high) << 4 | digit(*low));
            rest = others;
        } else {
            bytes.push(*first);
            rest = others;
        }
    }
    bytes
}
