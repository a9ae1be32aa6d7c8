//! Strings as numbers, so that labels compare and hash in one instruction. What a string means may not enter.

use rustc_hash::FxHashMap;

/// A string of an [`Interner`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Symbol(u32);

/// Gives every string one number. Strings are kept for the life of the index: label vocabularies are small and come back.
#[derive(Debug, Default)]
pub struct Interner {
    symbols: FxHashMap<Box<str>, Symbol>,
    strings: Vec<Box<str>>,
}

impl Interner {
    /// The symbol of this string.
    ///
    /// # Panics
    /// Past four billion different strings, which memory ends before.
    pub fn intern(&mut self, string: &str) -> Symbol {
        if let Some(&symbol) = self.symbols.get(string) {
            return symbol;
        }
        let symbol = Symbol(u32::try_from(self.strings.len()).expect("fewer than 2^32 strings"));
        self.strings.push(string.into());
        self.symbols.insert(string.into(), symbol);
        symbol
    }

    /// The string of a symbol of this interner.
    #[must_use]
    pub fn text(&self, symbol: Symbol) -> &str {
        &self.strings[symbol.0 as usize]
    }
}
