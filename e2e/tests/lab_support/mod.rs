//! What the lab's tests share: a lab of their own that is gone when the test ends, however it ends, and traffic in its pods.
#![allow(dead_code, reason = "each test binary uses its part of this")]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use sluice_datapath::net::{NetNs, in_namespace};
use sluice_lab::{LabName, Options, Supervisor, cleanup, store::Manifest};
use sluice_world::{Mode, PodRef};

/// Whether kernel tests are wanted; says so where they are not.
pub(crate) fn enabled() -> bool {
    let wanted = std::env::var_os("SLUICE_KERNEL_TESTS").is_some_and(|value| value == "1");
    if !wanted {
        eprintln!("skipped: needs root and SLUICE_KERNEL_TESTS=1");
    }
    wanted
}

/// The `sluice` program of this build, built first if need be.
pub(crate) fn program() -> PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    let build = || {
        let own = std::env::current_exe().unwrap();
        // <target>/<profile>/deps/<this test>
        let profile = own.ancestors().nth(2).unwrap();
        let mut cargo = Command::new(env!("CARGO"));
        cargo
            .args(["build", "--quiet", "--package", "sluice", "--target-dir"])
            .arg(profile.parent().unwrap());
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        assert!(cargo.status().unwrap().success(), "building sluice");
        profile.join("sluice")
    };
    PROGRAM.get_or_init(build).clone()
}

/// A name that no other lab of this machine has. Removed when it is dropped.
pub(crate) struct OwnName(pub(crate) LabName);

impl OwnName {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Self(format!("t{}x{count}", std::process::id()).parse().unwrap())
    }

    pub(crate) fn namespace(&self, pod: &str) -> NetNs {
        let (namespace, name) = pod.split_once('/').unwrap();
        let pod = PodRef {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        NetNs::open(&self.0.pod_namespace(&pod)).unwrap()
    }

    /// Everything of the lab that is on the machine.
    pub(crate) fn traces(&self) -> Vec<String> {
        let mut found = NetNs::list(&self.0.namespace_prefix()).unwrap();
        for path in [
            self.0.directory(),
            Path::new("/sys/fs/bpf/sluice").join(self.0.instance()),
        ] {
            if path.exists() {
                found.push(path.display().to_string());
            }
        }
        let name = self.0.to_string();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
            if words.get(1) == Some(&b"lab".as_slice()) && words.contains(&name.as_bytes()) {
                found.push(String::from_utf8_lossy(&line).replace('\0', " "));
            }
        }
        found
    }
}

impl Drop for OwnName {
    fn drop(&mut self) {
        let _ = cleanup::down(&self.0);
    }
}

/// A folder with these files, gone when it is dropped.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new(name: &OwnName, files: &[(&str, &str)]) -> Self {
        let path = std::env::temp_dir().join(format!("sluice-{}", name.0));
        fs::create_dir_all(&path).unwrap();
        for (file, text) in files {
            fs::write(path.join(file), text).unwrap();
        }
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A client, a server with ports of both transports, and a host outside.
pub(crate) const PODS: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: a, labels: {app: client}}
spec: {containers: [{name: c, image: i}]}
---
apiVersion: v1
kind: Pod
metadata: {name: server, namespace: a, labels: {app: server}}
spec:
  containers:
    - name: c
      image: i
      ports: [{containerPort: 8080}, {containerPort: 9000, protocol: UDP}]
---
apiVersion: v1
kind: Pod
metadata:
  name: outside
  namespace: x
  annotations: {sluice.io/lab-external: "203.0.113.9,2001:db8:9::9"}
spec: {containers: [{name: c, image: i, ports: [{containerPort: 443}]}]}
"#;

/// A lab in this process.
pub(crate) fn up(name: &OwnName, folder: &Folder) -> Supervisor {
    Supervisor::up(&Options {
        name: name.0.clone(),
        sources: vec![folder.0.clone()],
        mode: Some(Mode::Default),
        watch: false,
        program: program(),
    })
    .unwrap()
}

pub(crate) fn manifest(text: &str) -> Manifest {
    Manifest {
        file: "test".to_owned(),
        text: text.to_owned(),
    }
}

/// A pod's addresses, IPv4 first.
pub(crate) fn addresses(supervisor: &Supervisor, pod: &str) -> Vec<IpAddr> {
    let (namespace, name) = pod.split_once('/').unwrap();
    let pod = PodRef {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    };
    supervisor.world().pods[&pod].addresses.clone()
}

/// A UDP socket of a pod: at this address of its own, or at any of the address's family where no port is given.
pub(crate) fn udp(namespace: &NetNs, address: IpAddr, port: u16) -> UdpSocket {
    let any: IpAddr = if address.is_ipv4() {
        "0.0.0.0".parse().unwrap()
    } else {
        "::".parse().unwrap()
    };
    let at = if port == 0 { any } else { address };
    in_namespace(namespace, || UdpSocket::bind((at, port)).unwrap()).unwrap()
}

/// A connection from a pod to a responder, greeted.
pub(crate) struct Talk {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
}

impl Talk {
    pub(crate) fn open(namespace: &NetNs, to: SocketAddr) -> Self {
        let stream = in_namespace(namespace, || {
            TcpStream::connect_timeout(&to, Duration::from_secs(3)).unwrap()
        })
        .unwrap();
        stream.set_nodelay(true).unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        reader.read_line(&mut String::new()).unwrap();
        Self { stream, reader }
    }

    /// Says one byte and waits this long for its echo.
    pub(crate) fn echoes(&mut self, patience: Duration) -> bool {
        self.stream.set_read_timeout(Some(patience)).unwrap();
        self.stream.write_all(b"x").unwrap();
        self.reader.read_exact(&mut [0]).is_ok()
    }

    /// Waits this long for the echo of what was said before.
    pub(crate) fn hears(&mut self, patience: Duration) -> bool {
        self.stream.set_read_timeout(Some(patience)).unwrap();
        self.reader.read_exact(&mut [0]).is_ok()
    }
}

/// Runs `sluice` and returns whether it succeeded, with what it printed.
pub(crate) fn sluice(arguments: &[&str]) -> (bool, String) {
    // A command that should have ended and did not must not hold the tests up.
    let output = Command::new("timeout")
        .arg("60")
        .arg(program())
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text)
}
