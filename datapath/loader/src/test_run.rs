//! Running a program on a packet given as bytes: the real program, in the real kernel, with the real maps. What the packet means may not
//! enter.

use std::time::Duration;

use aya::programs::{TestRun, TestRunOptions};
use sluice_abi::event::Hook;

use crate::load::{Datapath, LoadError, name_of};

/// Room for a packet that a program lengthens.
const OUTPUT: usize = 2048;
/// Bytes of `struct __sk_buff` (include/uapi/linux/bpf.h).
const CONTEXT: usize = 192;
/// Offsets in `struct __sk_buff`: the fields that a test run may set (`convert___skb_to_skb` in `net/bpf/test_run.c`).
const MARK: usize = 8;
const INGRESS_IFINDEX: usize = 36;
const IFINDEX: usize = 40;

/// What surrounds the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Input {
    /// Interface the packet is seen at, one of the calling thread's namespace; 0 or 1 for the loopback interface.
    pub ifindex: u32,
    /// Interface the packet came in by, or 0.
    pub ingress_ifindex: u32,
    /// The packet's mark.
    pub mark: u32,
    /// How often to run; the time is the mean.
    pub repeat: u32,
}

impl Default for Input {
    fn default() -> Self {
        Self {
            ifindex: 0,
            ingress_ifindex: 0,
            mark: 0,
            repeat: 1,
        }
    }
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// What the program returned: a `TCX_*` code.
    pub code: u32,
    /// Mean time of a run, as the kernel measured it.
    pub time: Duration,
    /// The packet as the last run left it.
    pub packet: Vec<u8>,
}

impl Datapath {
    /// Runs a program on an Ethernet frame of at least 14 bytes.
    ///
    /// # Errors
    /// The kernel refuses the packet or the interface.
    pub fn test_run(&self, hook: Hook, packet: &[u8], input: &Input) -> Result<Output, LoadError> {
        let mut context = [0; CONTEXT];
        for (offset, value) in [
            (MARK, input.mark),
            (INGRESS_IFINDEX, input.ingress_ifindex),
            (IFINDEX, input.ifindex),
        ] {
            context[offset..offset + 4].copy_from_slice(&value.to_ne_bytes());
        }
        let mut out = vec![0; packet.len() + OUTPUT];
        let result = self
            .classifier(hook)?
            .test_run(TestRunOptions {
                data_in: Some(packet),
                data_out: Some(&mut out),
                ctx_in: Some(&context),
                repeat: input.repeat,
                ..TestRunOptions::default()
            })
            .map_err(|error| LoadError::TestRun(name_of(hook), error))?;
        out.truncate(result.data_size_out as usize);
        Ok(Output {
            code: result.return_value,
            time: result.duration,
            packet: out,
        })
    }
}
