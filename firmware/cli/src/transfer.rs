//! `postern export` and `postern import`: the device database as one readable file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use control::{Chunk, Client, Request, Response};
use serde_json::json;

use crate::ask::{connect, print, socket};
use crate::command::Postern;
use crate::exit::{Exit, Failure};

/// Writes an export to `file`, in place only once it is whole; or to standard output.
pub(crate) fn export(postern: &Postern, file: Option<&Path>) -> Result<Exit, Failure> {
    let socket = socket(postern);
    let mut client = connect(&socket)?;
    client.send(&Request::Export).map_err(|error| Failure::client(&socket, &error))?;
    let Some(file) = file else {
        let written = receive(&mut client, &socket, &mut |text| print(text));
        return written.map(|_| Exit::Done);
    };
    let part = part_of(file);
    let octets = write(&mut client, &socket, &part).and_then(|octets| {
        fs::rename(&part, file).map_err(|error| Failure::file(file, "written", &error))?;
        Ok(octets)
    });
    if octets.is_err() {
        // Best effort: the failure itself is what counts.
        let _ = fs::remove_file(&part);
    }
    let octets = octets?;
    let done = if postern.json {
        json!({ "answer": "exported", "file": file, "octets": octets }).to_string()
    } else {
        format!("{octets} octets written to {}", file.display())
    };
    print(&(done + "\n"))?;
    Ok(Exit::Done)
}

fn part_of(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".part");
    name.into()
}

fn write(client: &mut Client, socket: &Path, part: &Path) -> Result<u64, Failure> {
    let bad = |error: io::Error| Failure::file(part, "written", &error);
    let mut out =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(part).map_err(bad)?;
    let octets = receive(client, socket, &mut |text| out.write_all(text.as_bytes()).map_err(bad))?;
    out.sync_all().map_err(bad)?;
    Ok(octets)
}

/// Takes the parts as they come, so that no export needs to fit in memory; says how many octets they had.
fn receive(
    client: &mut Client,
    socket: &Path,
    take: &mut dyn FnMut(&str) -> Result<(), Failure>,
) -> Result<u64, Failure> {
    let mut octets = 0;
    loop {
        match client.receive().map_err(|error| Failure::client(socket, &error))? {
            Response::Export(Chunk { text, last }) => {
                octets += text.len() as u64;
                take(&text)?;
                if last {
                    return Ok(octets);
                }
            }
            Response::Error(error) => return Err(error.into()),
            _ => {
                return Err(Failure::new(
                    "protocol",
                    "the gateway answered something else",
                    "look into its log",
                ));
            }
        }
    }
}

/// Sends an export back, part by part.
pub(crate) fn import(postern: &Postern, file: &Path) -> Result<Exit, Failure> {
    let bad = |error: io::Error| Failure::file(file, "read", &error);
    let mut text = String::new();
    if file == Path::new("-") {
        io::stdin().read_to_string(&mut text).map_err(bad)?;
    } else {
        File::open(file).and_then(|mut file| file.read_to_string(&mut text)).map_err(bad)?;
    }
    let socket = socket(postern);
    let mut client = connect(&socket)?;
    for chunk in Chunk::all(&text) {
        let last = chunk.last;
        match client.ask(&Request::Import(chunk)).map_err(|error| Failure::client(&socket, &error))? {
            Response::Done { .. } if !last => {}
            answer @ Response::Imported(_) if last => {
                let json = || serde_json::to_string(&answer).unwrap_or_default() + "\n";
                print(&if postern.json { json() } else { crate::show::answer(&answer) })?;
                return Ok(Exit::Done);
            }
            Response::Error(error) => return Err(error.into()),
            _ => break,
        }
    }
    Err(Failure::new("protocol", "the gateway answered something else", "look into its log"))
}
