//! Container images without Docker: a folder becomes an OCI image layout in a tar file, which `ctr images import` and
//! `docker load` read. The same folder gives the same file, byte for byte. After the OCI image specification 1.1.

mod program;

use std::{
    fs::{self, File},
    io::{self, Read as _, Write},
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

use crate::{
    cache::hex,
    error::{Error, Result},
};

pub use program::add_program;

/// What an image says of itself.
#[derive(Clone, Debug, Default)]
pub struct Image {
    /// What pods call it, such as `localhost/sluice/agent:dev`; one image may have several.
    pub references: Vec<String>,
    /// The program that a container runs, with its first arguments.
    pub entrypoint: Vec<String>,
    /// Arguments that a pod may replace.
    pub arguments: Vec<String>,
    /// Variables, as `NAME=value`; `PATH` is there without being asked for.
    pub environment: Vec<String>,
    /// User and group, as `65532:65532`; root if empty.
    pub user: String,
}

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Go's name of this machine's processor.
const ARCHITECTURE: &str = match std::env::consts::ARCH.as_bytes() {
    b"x86_64" => "amd64",
    b"aarch64" => "arm64",
    _ => std::env::consts::ARCH,
};

impl Image {
    /// An image of one program, called `reference`.
    #[must_use]
    pub fn new(reference: &str, entrypoint: &[&str]) -> Self {
        Self {
            references: vec![reference.to_owned()],
            entrypoint: entrypoint.iter().map(|word| (*word).to_owned()).collect(),
            ..Self::default()
        }
    }

    /// Writes the image of the folder `root` to `target`.
    ///
    /// # Errors
    ///
    /// If the folder can't be read, holds something other than files, folders and links, or the target can't be written.
    pub fn write(&self, root: &Path, target: &Path) -> Result<()> {
        let layer_file = target.with_extension("layer");
        let written = self.write_with(root, target, &layer_file);
        let removed = fs::remove_file(&layer_file).map_err(Error::at("removing", &layer_file));
        written.and(removed)
    }

    fn write_with(&self, root: &Path, target: &Path, layer_file: &Path) -> Result<()> {
        let layer = write_layer(root, layer_file)?;
        let config = Blob::of(&self.config(&layer.digest));
        let manifest = Blob::of(&json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config.descriptor("application/vnd.oci.image.config.v1+json"),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer.digest, layer.size)],
        }));
        let index = Blob::of(&self.index(&manifest));
        let file = File::create(target).map_err(Error::at("creating", target))?;
        let mut tar = Builder::new(io::BufWriter::new(file));
        let write = |error| Error::at("writing", target)(error);
        put(&mut tar, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#).map_err(write)?;
        put(&mut tar, "index.json", &index.content).map_err(write)?;
        for blob in [&config, &manifest] {
            put(&mut tar, &blob_path(&blob.digest), &blob.content).map_err(write)?;
        }
        let content = File::open(layer_file).map_err(Error::at("opening", layer_file))?;
        put_from(&mut tar, &blob_path(&layer.digest), layer.size, content).map_err(write)?;
        tar.into_inner()
            .and_then(|mut file| file.flush())
            .map_err(write)
    }

    fn config(&self, layer: &str) -> Value {
        let mut environment = vec![PATH.to_owned()];
        environment.extend(self.environment.iter().cloned());
        let mut config = json!({"Env": environment, "WorkingDir": "/"});
        for (name, words) in [("Entrypoint", &self.entrypoint), ("Cmd", &self.arguments)] {
            if !words.is_empty() {
                config[name] = json!(words);
            }
        }
        if !self.user.is_empty() {
            config["User"] = json!(self.user);
        }
        json!({
            "architecture": ARCHITECTURE,
            "os": "linux",
            "created": "1970-01-01T00:00:00Z",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [sha256(layer)]},
        })
    }

    fn index(&self, manifest: &Blob) -> Value {
        let entry = |reference: &String| {
            let mut entry = manifest.descriptor("application/vnd.oci.image.manifest.v1+json");
            let tag = reference.rsplit_once(':').map_or("latest", |(_, tag)| tag);
            entry["platform"] = json!({"architecture": ARCHITECTURE, "os": "linux"});
            entry["annotations"] = json!({
                "io.containerd.image.name": reference,
                "org.opencontainers.image.ref.name": tag,
            });
            entry
        };
        json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": self.references.iter().map(entry).collect::<Vec<_>>(),
        })
    }
}

/// A small document and its digest in hexadecimal digits.
struct Blob {
    content: Vec<u8>,
    digest: String,
}

impl Blob {
    fn of(document: &Value) -> Self {
        let content = document.to_string().into_bytes();
        Self {
            digest: hex(&Sha256::digest(&content)),
            content,
        }
    }

    fn descriptor(&self, kind: &str) -> Value {
        descriptor(kind, &self.digest, self.content.len() as u64)
    }
}

struct Layer {
    digest: String,
    size: u64,
}

fn descriptor(kind: &str, digest: &str, size: u64) -> Value {
    json!({"mediaType": kind, "digest": sha256(digest), "size": size})
}

fn sha256(digest: &str) -> String {
    format!("sha256:{digest}")
}

fn blob_path(digest: &str) -> String {
    format!("blobs/sha256/{digest}")
}

fn write_layer(root: &Path, target: &Path) -> Result<Layer> {
    let file = File::create(target).map_err(Error::at("creating", target))?;
    let mut tar = Builder::new(io::BufWriter::new(file));
    append(&mut tar, root, Path::new(""))?;
    tar.into_inner()
        .and_then(|mut file| file.flush())
        .map_err(Error::at("writing", target))?;
    digest_of(target)
}

fn digest_of(path: &Path) -> Result<Layer> {
    let mut file = File::open(path).map_err(Error::at("opening", path))?;
    let (mut hash, mut size, mut buffer) = (Sha256::new(), 0, vec![0; 1 << 16]);
    loop {
        let read = file.read(&mut buffer).map_err(Error::at("reading", path))?;
        if read == 0 {
            return Ok(Layer {
                digest: hex(&hash.finalize()),
                size,
            });
        }
        hash.update(&buffer[..read]);
        size += read as u64;
    }
}

/// In order of names, owned by root and without times: nothing of the building machine gets in.
fn append(tar: &mut Builder<impl Write>, root: &Path, inside: &Path) -> Result<()> {
    let folder = root.join(inside);
    let mut names = fs::read_dir(&folder)
        .and_then(|entries| {
            entries
                .map(|entry| entry.map(|entry| entry.file_name()))
                .collect::<io::Result<Vec<_>>>()
        })
        .map_err(Error::at("reading", &folder))?;
    names.sort();
    for name in names {
        let inside = inside.join(name);
        let path = root.join(&inside);
        append_one(tar, &path, &inside).map_err(Error::at("packing", &path))?;
        if fs::symlink_metadata(&path)
            .map_err(Error::at("reading", &path))?
            .is_dir()
        {
            append(tar, root, &inside)?;
        }
    }
    Ok(())
}

fn append_one(tar: &mut Builder<impl Write>, path: &Path, inside: &PathBuf) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let metadata = fs::symlink_metadata(path)?;
    let mut header = Header::new_gnu();
    header.set_mode(metadata.permissions().mode() & 0o7777);
    header.set_size(0);
    if metadata.is_symlink() {
        header.set_entry_type(EntryType::Symlink);
        tar.append_link(&mut header, inside, fs::read_link(path)?)
    } else if metadata.is_dir() {
        header.set_entry_type(EntryType::Directory);
        tar.append_data(&mut header, inside, io::empty())
    } else if metadata.is_file() {
        header.set_size(metadata.len());
        tar.append_data(&mut header, inside, File::open(path)?)
    } else {
        Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is neither a file nor a folder nor a link",
        ))
    }
}

fn put(tar: &mut Builder<impl Write>, name: &str, content: &[u8]) -> io::Result<()> {
    put_from(tar, name, content.len() as u64, content)
}

fn put_from(
    tar: &mut Builder<impl Write>,
    name: &str,
    size: u64,
    content: impl io::Read,
) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(size);
    tar.append_data(&mut header, name, content)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, os::unix::fs::symlink};

    use super::*;

    fn entries(bytes: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut archive = tar::Archive::new(bytes);
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            (entry.path().unwrap().display().to_string(), content)
        });
        entries.collect()
    }

    #[test]
    fn every_descriptor_names_a_blob_that_is_there() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("bin")).unwrap();
        fs::write(root.path().join("bin/tool"), "tool").unwrap();
        symlink("tool", root.path().join("bin/alias")).unwrap();
        let out = tempfile::tempdir().unwrap();
        let image = Image::new("localhost/x:dev", &["/bin/tool"]);
        let write = |name: &str| {
            let target = out.path().join(name);
            image.write(root.path(), &target).unwrap();
            fs::read(target).unwrap()
        };
        let (first, second) = (write("a.tar"), write("b.tar"));
        assert_eq!(first, second, "the same folder gives the same file");
        let files = entries(&first);
        let index: Value = serde_json::from_slice(&files["index.json"]).unwrap();
        assert_eq!(
            index["manifests"][0]["annotations"]["io.containerd.image.name"],
            "localhost/x:dev"
        );
        let blob = |descriptor: &Value| {
            let digest = descriptor["digest"]
                .as_str()
                .unwrap()
                .strip_prefix("sha256:")
                .unwrap();
            let content = &files[&blob_path(digest)];
            assert_eq!(hex(&Sha256::digest(content)), digest);
            assert_eq!(descriptor["size"], content.len() as u64);
            content.clone()
        };
        let manifest: Value = serde_json::from_slice(&blob(&index["manifests"][0])).unwrap();
        let config: Value = serde_json::from_slice(&blob(&manifest["config"])).unwrap();
        let layer = blob(&manifest["layers"][0]);
        assert_eq!(
            config["rootfs"]["diff_ids"][0],
            manifest["layers"][0]["digest"]
        );
        assert_eq!(config["config"]["Entrypoint"], json!(["/bin/tool"]));
        let inside = entries(&layer);
        assert_eq!(inside["bin/tool"], b"tool");
        assert!(inside.contains_key("bin/alias"), "{:?}", inside.keys());
        assert_eq!(
            fs::read_dir(out.path()).unwrap().count(),
            2,
            "nothing else is left beside the image"
        );
    }

    #[test]
    fn what_is_no_file_is_refused_by_name() {
        let root = tempfile::tempdir().unwrap();
        let socket = root.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let target = root.path().join("image.tar");
        let error = Image::new("x", &[])
            .write(&root.path().join("."), &target)
            .unwrap_err()
            .to_string();
        assert!(error.contains("socket"), "{error}");
    }
}
