//! Taking everything out of a node: found by names and marks alone, whoever made it and however that ended.

use std::{
    fs, io,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use sluice_datapath::net::Netlink;

use crate::{
    endpoint::pod_links,
    install,
    node::{OVERLAY_DEVICE, remove_routes},
    options::{DatapathOptions, Files},
};

/// How long a running agent gets to end.
const GRACE: Duration = Duration::from_secs(10);

/// Ends the agent and removes what it and its predecessors left. Repeating it is no error. Returns what was removed, for people.
///
/// # Errors
/// Something can't be removed; the order is such that pods can't be started with what is half gone.
pub fn cleanup(files: &Files, datapath: &DatapathOptions) -> Result<Vec<String>> {
    let mut removed = Vec::new();
    if install::remove_conflist(&files.cni_conf_dir).context("removing the list of plugins")? {
        removed.push("list of plugins".to_owned());
    }
    end_agent(&files.status_socket(), &datapath.instance)?;
    // A last look: the agent may have written it again before it ended.
    install::remove_conflist(&files.cni_conf_dir).context("removing the list of plugins")?;
    if sluice_agent::remove_instance(&datapath.instance)? {
        removed.push(format!("datapath `{}`", datapath.instance));
    }
    let routes = remove_routes()?;
    if routes > 0 {
        removed.push(format!("{routes} routes"));
    }
    let mut netlink = Netlink::open()?;
    for name in pod_links()?
        .iter()
        .map(String::as_str)
        .chain([OVERLAY_DEVICE])
    {
        if let Some(link) = netlink.link(name)? {
            netlink.delete_link(link.index)?;
            removed.push(format!("interface {name}"));
        }
    }
    if install::remove_plugin(&files.cni_bin_dir).context("removing the plugin")? {
        removed.push("plugin".to_owned());
    }
    for folder in [&files.state_dir, &files.run_dir] {
        empty(folder).with_context(|| format!("removing {}", folder.display()))?;
    }
    Ok(removed)
}

/// Asks a running agent to end, and waits until its datapath is free.
fn end_agent(socket: &Path, instance: &str) -> Result<()> {
    if ask(socket, "POST", "/stop").is_err() {
        return Ok(());
    }
    let until = Instant::now() + GRACE;
    while ask(socket, "GET", "/status").is_ok() {
        anyhow::ensure!(
            Instant::now() < until,
            "the agent of instance `{instance}` does not end"
        );
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Asks a running agent over its status socket, and returns the body of the answer.
///
/// # Errors
/// There is none, or it says no.
pub fn ask(socket: &Path, method: &str, path: &str) -> io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(GRACE))?;
    // HTTP/1.0: the answer ends with the connection.
    write!(stream, "{method} {path} HTTP/1.0\r\nHost: agent\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no HTTP answer"))?;
    let line = head.lines().next().unwrap_or_default();
    if line.split(' ').nth(1) == Some("200") {
        Ok(body.to_owned())
    } else {
        Err(io::Error::other(line.to_owned()))
    }
}

/// Removes what is in a folder. The folder itself may be a mount, and stays if it is.
fn empty(folder: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    match fs::remove_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Ok(()),
        other => other,
    }
}
