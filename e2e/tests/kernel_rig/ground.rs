//! The network namespace that frames are seen in: interfaces with the numbers that the specification uses, and nothing else. It goes
//! with the process.

use std::cell::Cell;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use nix::sched::{CloneFlags, setns, unshare};

use crate::common::{A, B, OUTWARD, OVERLAY_DEVICE, ifindex};

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Moves this thread there.
pub(crate) fn enter() {
    static NAMESPACE: OnceLock<File> = OnceLock::new();
    if INSIDE.get() {
        return;
    }
    let namespace = NAMESPACE.get_or_init(|| std::thread::spawn(build).join().unwrap());
    setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
    INSIDE.set(true);
}

/// Makes it. Without a name, so that nothing is left of it whatever happens.
fn build() -> File {
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    let mut commands = String::new();
    // The third is no endpoint's.
    for index in [ifindex(A), ifindex(B), ifindex(5), OUTWARD, OVERLAY_DEVICE] {
        writeln!(commands, "link add name i{index} index {index} type bridge").unwrap();
    }
    // A way out, for frames that take the node's routes.
    write!(
        commands,
        "link set i{OUTWARD} up\naddress add 192.168.0.7/24 dev i{OUTWARD}\naddress add fd01::7/64 dev i{OUTWARD} nodad\n\
         route add default via 192.168.0.1\nroute add default via fd01::1\n"
    )
    .unwrap();
    let mut ip = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    ip.stdin
        .take()
        .unwrap()
        .write_all(commands.as_bytes())
        .unwrap();
    assert!(
        ip.wait().unwrap().success(),
        "ip could not make the interfaces"
    );
    for family in ["ipv4/conf", "ipv6/conf"] {
        std::fs::write(format!("/proc/sys/net/{family}/all/forwarding"), "1").unwrap();
    }
    File::open("/proc/thread-self/ns/net").unwrap()
}
