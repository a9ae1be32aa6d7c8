//! Building everything that a cluster is made of, each part only if it isn't there: programs from Go modules whose versions
//! and digests are pinned in `modules/`, and the images that pods need. Starting anything may not enter.

mod debs;
mod go;
mod images;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use crate::{
    cache::Cache,
    error::{Error, Result},
};

/// Builds what is missing. `say` is told of every step that did something, with its time.
pub(crate) fn everything(cache: &Cache, say: &mut dyn FnMut(&str)) -> Result<()> {
    for folder in [cache.programs(), cache.images(), cache.work()] {
        fs::create_dir_all(&folder).map_err(Error::at("creating", &folder))?;
    }
    let begin = Instant::now();
    let mut steps = Steps { say, built: 0 };
    let (late, early): (Vec<_>, Vec<_>) = go::PROGRAMS
        .iter()
        .partition(|program| program.is_for_upstream_tests_only());
    for program in early {
        steps.run(
            program.name,
            &cache.programs().join(program.name),
            |target| program.build(target),
        )?;
    }
    go::link_kubernetes(&cache.programs())?;
    for image in images::IMAGES {
        let file = cache.images().join(format!("{}.tar", image.name));
        steps.run(&format!("image {}", image.name), &file, |target| {
            image.build(cache, target)
        })?;
    }
    for program in late {
        steps.run(
            program.name,
            &cache.programs().join(program.name),
            |target| program.build(target),
        )?;
    }
    let (built, folder) = (steps.built, cache.programs());
    say(&match built {
        0 => format!("everything was built before: {}", folder.display()),
        _ => format!(
            "{built} parts built in {:.1} s: {}",
            begin.elapsed().as_secs_f64(),
            folder.display()
        ),
    });
    Ok(())
}

/// Builds the reference plugins `bridge` and `host-local` if they aren't there, and gives the folder they are in. `say` is told of what is
/// built.
///
/// # Errors
///
/// If the manifests can't be read, or Go fails.
pub fn build_plugins(say: &mut dyn FnMut(&str)) -> Result<PathBuf> {
    let folder = Cache::find()?.programs();
    fs::create_dir_all(&folder).map_err(Error::at("creating", &folder))?;
    let mut steps = Steps { say, built: 0 };
    for program in go::PROGRAMS {
        if REFERENCE.contains(&program.name) {
            let target = folder.join(program.name);
            steps.run(program.name, &target, |target| program.build(target))?;
        }
    }
    Ok(folder)
}

/// A plugin, and the one that it asks for addresses.
const REFERENCE: [&str; 2] = ["bridge", "host-local"];

struct Steps<'a> {
    say: &'a mut dyn FnMut(&str),
    built: usize,
}

impl Steps<'_> {
    /// Makes `target` by way of a file beside it, so that a killed build leaves nothing that looks finished.
    fn run(
        &mut self,
        what: &str,
        target: &Path,
        make: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<()> {
        if target.exists() {
            return Ok(());
        }
        let begin = Instant::now();
        (self.say)(&format!("building {what}"));
        let mut partial = target.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        make(&partial)?;
        fs::rename(&partial, target).map_err(Error::at("writing", target))?;
        (self.say)(&format!("{:>6.1} s  {what}", begin.elapsed().as_secs_f64()));
        self.built += 1;
        Ok(())
    }
}

/// Whether all that a cluster needs is built.
pub(crate) fn check(cache: &Cache) -> Result<()> {
    let programs = go::PROGRAMS
        .iter()
        .filter(|program| !program.is_for_upstream_tests_only());
    let programs = programs.map(|program| cache.programs().join(program.name));
    present(programs.chain(image_files(cache)))
}

/// Whether the upstream tests are built.
pub(crate) fn check_upstream_tests(cache: &Cache) -> Result<()> {
    present(
        go::PROGRAMS
            .iter()
            .map(|program| cache.programs().join(program.name)),
    )
}

fn present(mut files: impl Iterator<Item = PathBuf>) -> Result<()> {
    match files.find(|path| !path.exists()) {
        None => Ok(()),
        Some(path) => Err(Error::Missing {
            what: path.display().to_string(),
            hint: "build it with `cargo xtask cluster build`, some 20 minutes from nothing"
                .to_owned(),
        }),
    }
}

/// Images that every node loads.
pub(crate) fn common_images(cache: &Cache) -> Result<Vec<PathBuf>> {
    check(cache)?;
    Ok(image_files(cache).collect())
}

fn image_files(cache: &Cache) -> impl Iterator<Item = PathBuf> {
    images::IMAGES
        .iter()
        .map(|image| cache.images().join(format!("{}.tar", image.name)))
}
