//! What the programs cost the verifier and the stack, held to the budget of the design. Counted in the object, by reading its
//! instructions: every access relative to the frame pointer, and every call between functions.

use std::collections::{BTreeMap, HashMap};

use object::read::elf::ElfFile64;
use object::{
    LittleEndian, Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget,
    SectionKind, SymbolKind,
};
use sluice_datapath::load::{Datapath, Sizes};
use sluice_datapath::object::embedded;

use crate::kernel_rig::kernel_tests;

/// Instructions that the verifier walks through.
const INSTRUCTIONS: u32 = 200_000;
/// Bytes of stack on the deepest chain of calls, by what the kernel rounds each function's frame up to (`round_up_stack_depth` in
/// `kernel/bpf/verifier.c`): to 16 since 6.8 where programs are compiled, which is what the design's budget means; to 32 before and where
/// they are not, when the chain must still fit into the 512 bytes that there are.
const STACK: [(u32, u32); 2] = [(16, 400), (32, 512)];

#[test]
fn the_programs_stay_within_the_verifier_s_budget() {
    if !kernel_tests() {
        return;
    }
    let datapath = Datapath::open(None, &Sizes::small()).unwrap();
    for (name, instructions) in datapath.verified_instructions().unwrap() {
        println!("{name}: {instructions} verified instructions of {INSTRUCTIONS}");
        assert!(
            (1..=INSTRUCTIONS).contains(&instructions),
            "{name}: {instructions}"
        );
    }
}

#[test]
fn the_programs_stay_within_the_stack_s_budget() {
    // Without the programs in this binary there is nothing to count.
    let Ok(object) = embedded() else {
        assert!(!kernel_tests(), "the programs are not built");
        return;
    };
    let functions = functions(object);
    let names = [
        "from_endpoint",
        "to_endpoint",
        "from_outside",
        "to_outside",
        "from_overlay",
        "to_overlay",
        "trace",
    ];
    for (name, program) in
        names.map(|name| (name, functions.values().find(|f| f.name == name).unwrap()))
    {
        for (rounding, most) in STACK {
            let chain = deepest(program, &functions, rounding);
            let bytes: u32 = chain.iter().map(|f| f.frame(rounding)).sum();
            println!("{name}: {bytes} bytes of stack of {most}, frames rounded to {rounding}");
            for function in &chain {
                println!("    {:3} {}", function.frame(rounding), function.name);
            }
            assert!((1..=most).contains(&bytes), "{name}: {bytes}");
        }
    }
}

#[test]
fn stack_and_calls_are_read_off_instructions() {
    // r1 = r10; r1 += -40; *(u64 *)(r10 - 48) = r1; r2 = *(u32 *)(r10 - 8); call +2; exit
    let code: [[u8; 8]; 6] = [
        [0xbf, 0xa1, 0, 0, 0, 0, 0, 0],
        [0x07, 0x01, 0, 0, 0xd8, 0xff, 0xff, 0xff],
        [0x7b, 0x1a, 0xd0, 0xff, 0, 0, 0, 0],
        [0x61, 0xa2, 0xf8, 0xff, 0, 0, 0, 0],
        [0x85, 0x10, 0, 0, 2, 0, 0, 0],
        [0x95, 0, 0, 0, 0, 0, 0, 0],
    ];
    let (stack, calls) = scan(&code.concat());
    assert_eq!((stack, calls), (48, vec![(32, 2)]));
}

/// One function of the object.
#[derive(Debug)]
struct Function {
    name: String,
    /// The lowest byte it touches below its frame pointer.
    stack: u32,
    calls: Vec<Place>,
}

/// Section, and offset in it.
type Place = (usize, u64);

impl Function {
    fn frame(&self, rounding: u32) -> u32 {
        self.stack.max(1).next_multiple_of(rounding)
    }
}

/// The functions in the object, by where they begin.
fn functions(object: &[u8]) -> BTreeMap<Place, Function> {
    let file = ElfFile64::<LittleEndian>::parse(object).unwrap();
    let mut found = BTreeMap::new();
    for section in file.sections().filter(|s| s.kind() == SectionKind::Text) {
        let bytes = section.data().unwrap();
        let relocations: HashMap<u64, RelocationTarget> = section
            .relocations()
            .map(|(at, r)| (at, r.target()))
            .collect();
        let symbols = file
            .symbols()
            .filter(|s| s.kind() == SymbolKind::Text && s.section_index() == Some(section.index()));
        for symbol in symbols {
            let (start, size) = (symbol.address(), symbol.size());
            let code =
                &bytes[usize::try_from(start).unwrap()..usize::try_from(start + size).unwrap()];
            let (stack, calls) = scan(code);
            let calls = calls
                .into_iter()
                .map(|(at, distance)| match relocations.get(&(start + at)) {
                    // Counted from the symbol, one more than the instructions between (`Documentation/bpf/llvm_reloc.rst`).
                    Some(RelocationTarget::Symbol(index)) => {
                        let target = file.symbol_by_index(*index).unwrap();
                        let section = target.section_index().unwrap();
                        (
                            section.0,
                            target.address().wrapping_add_signed((distance + 1) * 8),
                        )
                    }
                    _ => (
                        section.index().0,
                        (start + at + 8).wrapping_add_signed(distance * 8),
                    ),
                })
                .collect();
            found.insert(
                (section.index().0, start),
                Function {
                    name: symbol.name().unwrap().to_owned(),
                    stack,
                    calls,
                },
            );
        }
    }
    found
}

/// How deep a function's frame is, and which of its instructions (offset) call what (distance in instructions).
///
/// A negative number added to a copy of the frame pointer is a place in the frame. A copy made before the last instruction counts too if
/// no other has overwritten its register: rather too much than too little.
fn scan(code: &[u8]) -> (u32, Vec<(u64, i64)>) {
    const FRAME_POINTER: u8 = 10;
    let (mut stack, mut calls) = (0, Vec::new());
    // Which registers hold the frame pointer, or a place in the frame.
    let mut places = 0_u16;
    for (at, word) in (0_u64..).step_by(8).zip(code.chunks_exact(8)) {
        let [code, registers, o0, o1, i0, i1, i2, i3] = *word else {
            unreachable!("eight bytes");
        };
        let (to, from) = (registers & 0xf, registers >> 4);
        let offset = i64::from(i16::from_le_bytes([o0, o1]));
        let number = i64::from(i32::from_le_bytes([i0, i1, i2, i3]));
        let depth = match (code, code & 7) {
            (_, 1) if from == FRAME_POINTER => -offset,
            (_, 2 | 3) if to == FRAME_POINTER => -offset,
            // r += number
            (0x07, _) if places >> to & 1 != 0 && (-512..0).contains(&number) => -number,
            // A call between functions.
            (0x85, _) if from == 1 => {
                calls.push((at, number));
                0
            }
            _ => 0,
        };
        match code {
            // r = r10, or a copy of a copy
            0xbf if from == FRAME_POINTER || places >> from & 1 != 0 => places |= 1 << to,
            // r += number leaves a place a place; stores and jumps write no register.
            0x07 => {}
            _ if matches!(code & 7, 0 | 1 | 4 | 7) => places &= !(1 << to),
            _ => {}
        }
        stack = stack.max(u32::try_from(depth.max(0)).unwrap());
    }
    (stack, calls)
}

/// The chain of calls that takes most stack, from a function on.
fn deepest<'a>(
    function: &'a Function,
    all: &'a BTreeMap<Place, Function>,
    rounding: u32,
) -> Vec<&'a Function> {
    let called = |place| all.get(place).expect("a call leads to a function");
    let below = function
        .calls
        .iter()
        .map(|place| deepest(called(place), all, rounding))
        .max_by_key(|chain| chain.iter().map(|f| f.frame(rounding)).sum::<u32>());
    let mut chain = vec![function];
    chain.extend(below.unwrap_or_default());
    chain
}
