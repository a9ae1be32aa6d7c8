//! A program with the shared libraries that it needs, copied into an image's folder.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    command,
    error::{Error, Result},
};

/// Copies a program into an image's folder, as `/<its name>`, with the shared libraries that it needs where its loader looks
/// for them.
///
/// # Errors
///
/// If the program can't be read or needs a library that this machine lacks.
pub fn add_program(program: &Path, root: &Path) -> Result<()> {
    let name = program.file_name().ok_or_else(|| Error::Argument {
        what: format!("the program {}", program.display()),
        why: "it has no file name".to_owned(),
    })?;
    fs::create_dir_all(root).map_err(Error::at("creating", root))?;
    fs::copy(program, root.join(name)).map_err(Error::at("copying", program))?;
    for library in libraries(program)? {
        let target = root.join(library.strip_prefix("/").unwrap_or(&library));
        if let Some(folder) = target.parent() {
            fs::create_dir_all(folder).map_err(Error::at("creating", folder))?;
        }
        fs::copy(&library, &target).map_err(Error::at("copying", &library))?;
    }
    Ok(())
}

/// `ldd(1)` prints `name => /path (address)`, or `/path (address)` for the loader itself.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let listed = match command::output(Command::new("ldd").arg(program)) {
        Ok(listed) => listed,
        // It says so, and fails, for a static program.
        Err(Error::Failed { stderr, .. }) if stderr.contains("not a dynamic executable") => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(error),
    };
    parse_libraries(&listed).map_err(|line| Error::Missing {
        what: format!("a library of {}", program.display()),
        hint: format!("ldd says: {line}"),
    })
}

fn parse_libraries(listed: &str) -> Result<Vec<PathBuf>, &str> {
    let mut found = Vec::new();
    for line in listed.lines().map(str::trim) {
        if line.ends_with("not found") {
            return Err(line);
        }
        let path = line
            .rsplit("=> ")
            .next()
            .unwrap_or(line)
            .split(" (")
            .next()
            .unwrap_or_default();
        if path.starts_with('/') {
            found.push(path.into());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_where_ldd_says() {
        let listed = "\tlinux-vdso.so.1 (0x1)\n\tlibc.so.6 => /lib/x/libc.so.6 (0x2)\n\t/lib64/ld.so.2 (0x3)\n";
        let expected: Vec<PathBuf> = vec!["/lib/x/libc.so.6".into(), "/lib64/ld.so.2".into()];
        assert_eq!(parse_libraries(listed).unwrap(), expected);
        assert!(parse_libraries("\tlibz.so => not found\n").is_err());
        assert!(parse_libraries("\tstatically linked\n").unwrap().is_empty());
    }

    #[test]
    fn a_program_runs_with_nothing_but_what_was_copied() {
        let root = tempfile::tempdir().unwrap();
        let own = std::env::current_exe().unwrap();
        add_program(&own, root.path()).unwrap();
        let copied = libraries(&root.path().join(own.file_name().unwrap())).unwrap();
        assert!(!copied.is_empty());
        for library in copied {
            assert!(
                root.path()
                    .join(library.strip_prefix("/").unwrap())
                    .is_file(),
                "{}",
                library.display()
            );
        }
    }
}
