//! Entry points of the kernel programs. Each is a shell that hands its packet and its maps to `sluice-abi`; logic that
//! could be tested outside the kernel may not enter.
//!
//! The crate is built for `bpfel-unknown-none` by `cargo xtask ebpf`. On a host target it compiles too, so that clippy
//! and rust-analyzer see it, into a program that does nothing.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
// See the same line in `sluice-abi`.
#![allow(clippy::inline_always)]
// The macro hands every program its context by value.
#![allow(clippy::needless_pass_by_value)]

mod frame;
mod kernel;
mod maps;

use aya_ebpf::{
    bindings::tcx_action_base::{TCX_DROP, TCX_NEXT},
    macros::classifier,
    programs::TcContext,
};
use sluice_abi::{
    classify,
    config::Config,
    context::{Context, Outcome},
    datapath::Datapath,
    masquerade::MARK,
};

use crate::{frame::Frame, kernel::Kernel, maps::SCRATCH};

/// This CPU's working memory.
#[inline(always)]
fn context() -> Option<&'static mut Context> {
    let context = SCRATCH.get_ptr_mut(0)?;
    // SAFETY: one program at a time runs on a CPU at these hooks (softirqs are off), so that nobody else has this copy. Its bytes start
    // as zeros, which are valid for every field, and are written by this code only.
    Some(unsafe { &mut *context })
}

/// Does what was decided for a packet.
#[inline(always)]
fn act(frame: Frame, outcome: Outcome, context: &mut Context) -> i32 {
    let target = Kernel.endpoint(context.deliver);
    let (by_fib, overlay) = match Kernel.config() {
        Some(config) => (config.flags & Config::FORWARD != 0, config.overlay_ifindex),
        None => (false, 0),
    };
    frame.send(outcome, context, target, by_fib, overlay)
}

/// What a pod sends: tcx ingress of its interface's host side.
#[classifier]
fn from_endpoint(packet: TcContext) -> i32 {
    let frame = Frame::new(packet.skb.skb);
    let Some(context) = context() else {
        return TCX_DROP;
    };
    let outcome = classify::from_endpoint(&Kernel, &frame, context, frame.seen());
    act(frame, outcome, context)
}

/// What this node's stack sends to a pod: tcx egress of its interface's host side.
#[classifier]
fn to_endpoint(packet: TcContext) -> i32 {
    let frame = Frame::new(packet.skb.skb);
    let Some(context) = context() else {
        return TCX_DROP;
    };
    let outcome = classify::to_endpoint(&Kernel, &frame, context, frame.seen());
    act(frame, outcome, context)
}

/// What arrives from elsewhere: tcx ingress of the devices that face outward.
#[classifier]
fn from_outside(packet: TcContext) -> i32 {
    let frame = Frame::new(packet.skb.skb);
    let Some(context) = context() else {
        return TCX_DROP;
    };
    let outcome = classify::from_outside(&Kernel, &frame, context, frame.seen());
    act(frame, outcome, context)
}

/// What leaves for elsewhere: tcx egress of the devices that face outward.
#[classifier]
fn to_outside(packet: TcContext) -> i32 {
    let frame = Frame::new(packet.skb.skb);
    let mark = frame.mark();
    // Nearly all that leaves.
    if mark & MARK == 0 {
        return TCX_NEXT;
    }
    let Some(context) = context() else {
        return TCX_DROP;
    };
    let outcome = classify::to_outside(&Kernel, &frame, context, frame.seen(), mark);
    // Devices on top of each other see it one after the other.
    frame.set_mark(mark & !MARK);
    act(frame, outcome, context)
}

/// What another node sent to this one in the overlay: tcx ingress of the overlay's device.
#[classifier]
fn from_overlay(packet: TcContext) -> i32 {
    let frame = Frame::new(packet.skb.skb);
    let Some(context) = context() else {
        return TCX_DROP;
    };
    let wrapped = frame.tunnel(&mut context.tunnel);
    let outcome = classify::from_overlay(&Kernel, &frame, context, frame.seen(), wrapped);
    act(frame, outcome, context)
}

/// What this node's stack, or a program here, sends to other nodes: tcx egress of the overlay's device.
#[classifier]
fn to_overlay(packet: TcContext) -> i32 {
    let frame = Frame::new(packet.skb.skb);
    let Some(context) = context() else {
        return TCX_DROP;
    };
    if frame.tunnel(&mut context.tunnel) {
        // A program at a pod's interface has judged and wrapped it.
        return TCX_NEXT;
    }
    let outcome = classify::to_overlay(&Kernel, &frame, context, frame.seen());
    act(frame, outcome, context)
}

/// Judges a test packet and tells what both ends decided. Its mark is the node from whose sight it is judged. Never attached.
#[classifier]
fn trace(packet: TcContext) -> i32 {
    let frame = Frame::new(packet.skb.skb);
    let Some(context) = context() else {
        return TCX_DROP;
    };
    let outcome = classify::trace(&Kernel, &frame, context, frame.seen(), frame.mark());
    act(frame, outcome, context)
}

/// The licence that the kernel reads from the object; the helpers reserved for GPL programs need it.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
#[used]
pub static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
