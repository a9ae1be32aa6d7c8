//! Finds the workspace's shell scripts.

use std::{
    fs::{self, File},
    io::Read as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::workspace::Workspace;

/// Every shell script of the checkout, told by its first line, for not all have an extension.
pub(crate) fn find(workspace: &Workspace) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    collect(&workspace.root, &workspace.target, &mut found)?;
    found.sort();
    Ok(found)
}

fn collect(folder: &Path, target: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        if kind.is_dir() && path != target && !is_foreign(&path) {
            collect(&path, target, found)?;
        } else if kind.is_file() && is_shell(&first_bytes(&path)?) {
            found.push(path);
        }
    }
    Ok(())
}

/// Whether what lies in this folder is other programs' making.
fn is_foreign(folder: &Path) -> bool {
    folder.ends_with(".git") || folder.ends_with("target") || folder.ends_with("node_modules")
}

fn first_bytes(path: &Path) -> Result<Vec<u8>> {
    let mut start = Vec::new();
    File::open(path)
        .and_then(|file| file.take(64).read_to_end(&mut start))
        .with_context(|| format!("reading {}", path.display()))?;
    Ok(start)
}

fn is_shell(start: &[u8]) -> bool {
    let first = start
        .split(|&byte| byte == b'\n')
        .next()
        .unwrap_or_default();
    first.starts_with(b"#!")
        && String::from_utf8_lossy(first)
            .split(['/', ' '])
            .any(|word| matches!(word, "sh" | "bash" | "dash"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_script_is_told_by_its_first_line() {
        assert!(is_shell(b"#!/usr/bin/env bash\nset -e\n"));
        assert!(is_shell(b"#!/bin/sh -e"));
        assert!(!is_shell(b"#!/usr/bin/env python3\n# bash\n"));
        assert!(!is_shell(b"//! sh\n"));
        assert!(!is_shell(b""));
    }
}
