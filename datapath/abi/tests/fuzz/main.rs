//! Fuzz targets of the packet parser and the classification over ordinary memory: no frame, however wrong, makes them panic, read what is
//! not theirs, or contradict themselves.
//!
//! Each target is an ordinary test that runs for a second; `cargo xtask fuzz` runs it for longer, with the fuzzer of `cargo bolero` where
//! that is installed. What frames mean may not enter: that is the specification's.

#[path = "../common/mod.rs"]
mod common;
mod frames;

use std::time::Duration;

use bolero::check;
use common::{A, B, Node};
use frames::{Recipe, Watched};
use sluice_abi::{
    Reason,
    packet::{Head, Packet},
    parse::{self, Headers},
};

/// How long a target runs as an ordinary test; `BOLERO_RANDOM_TEST_TIME_MS` overrides it.
const TIME: Duration = Duration::from_secs(1);

/// Memory is all there is here.
fn twin() -> Option<Box<dyn common::Twin>> {
    None
}

#[test]
fn random_bytes_are_parsed_without_harm() {
    check!()
        .with_test_time(TIME)
        .with_type::<Vec<u8>>()
        .for_each(|bytes| parsed_without_harm(bytes));
}

#[test]
fn spoilt_frames_are_parsed_without_harm() {
    check!()
        .with_test_time(TIME)
        .with_type::<Recipe>()
        .for_each(|recipe| parsed_without_harm(&recipe.frame()));
}

#[test]
fn a_cut_frame_is_refused_or_means_the_same() {
    check!()
        .with_test_time(TIME)
        .with_type::<(Recipe, u16)>()
        .for_each(|(recipe, cut)| {
            let frame = recipe.frame();
            let keep = usize::from(*cut) % (frame.len() + 1);
            cut_agrees(&frame, keep);
        });
}

#[test]
fn what_is_behind_the_packet_means_nothing() {
    check!()
        .with_test_time(TIME)
        .with_type::<(Recipe, Vec<u8>)>()
        .for_each(|(recipe, trailer)| {
            let frame = recipe.frame();
            if let Ok(headers) = headers(frame.as_slice()) {
                let mut padded = frame[..usize::try_from(headers.end).unwrap()].to_vec();
                padded.extend(trailer);
                assert_eq!(self::headers(padded.as_slice()), Ok(headers));
            }
        });
}

#[test]
fn any_sequence_of_frames_gets_outcomes() {
    check!()
        .with_test_time(TIME)
        .with_type::<Vec<(u8, Recipe)>>()
        .for_each(|sequence| {
            let mut node = Node::new();
            for (hook, recipe) in sequence {
                judged(&mut node, *hook, &recipe.frame());
            }
        });
}

/// What classification reads of a frame before it asks any table.
fn headers<P: Packet + ?Sized>(packet: &P) -> Result<Headers, Reason> {
    let (mut head, mut headers) = (Head::default(), Headers::default());
    let available = parse::link(packet, &mut head, &mut headers)?;
    parse::network(packet, &head, available, &mut headers)?;
    if !headers.is(Headers::LATER) {
        parse::transport(packet, &head, available, &mut headers)?;
    }
    Ok(headers)
}

/// The offsets that parsing gives are within the frame, twice the same, and every byte was read within the IP packet.
fn parsed_without_harm(bytes: &[u8]) {
    let watched = Watched::new(bytes);
    let first = headers(&watched);
    assert_eq!(first, headers(bytes), "the same frame, read twice");
    let Ok(outer) = first else { return };
    let length = u32::try_from(bytes.len()).unwrap();
    assert!(outer.transport <= outer.end && outer.end <= length);
    assert!(
        watched.furthest() <= outer.end,
        "a header was read behind the packet"
    );
    if outer.is(Headers::ICMP_ERROR) {
        let mut inner = Headers::default();
        if parse::quoted(&watched, &outer, &mut inner).is_ok() {
            assert!(inner.end <= outer.end && inner.transport <= inner.end);
            assert!(!inner.is(Headers::ICMP_ERROR), "an error about an error");
        }
        assert!(
            watched.furthest() <= outer.end,
            "a quotation was read behind the packet"
        );
    }
}

/// A frame cut within its packet is refused; one that only lost what is behind the packet means the same.
fn cut_agrees(frame: &[u8], keep: usize) {
    let (whole, cut) = (headers(frame), headers(&frame[..keep]));
    match whole {
        Ok(whole) if u32::try_from(keep).unwrap() >= whole.end => assert_eq!(cut, Ok(whole)),
        Ok(_) => assert!(cut.is_err(), "cut to {keep} bytes, and nothing is missing"),
        Err(_) => assert!(cut.is_err(), "cut to {keep} bytes, and right for that"),
    }
}

/// There is an outcome; a drop has a reason, and is told of or counted as held back.
fn judged(node: &mut Node, hook: u8, frame: &[u8]) {
    node.memory.now += 1_000_000;
    let result = match hook % 5 {
        0 => node.send(A, frame),
        1 => node.give(B, 0, frame),
        2 => node.give(B, 9, frame),
        3 => node.arrive(frame),
        _ => {
            node.trace(frame, u32::from(hook));
            return;
        }
    };
    if let Err(reason) = result {
        assert_ne!(reason, Reason::None);
        assert_ne!(reason, Reason::Internal);
    }
}
