//! Link-layer addresses of Ethernet. Only their form and text may enter.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// An Ethernet address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// A locally administered unicast address made of `number`, so that equal numbers give equal addresses.
    #[must_use]
    pub const fn local(number: u32) -> Self {
        let [a, b, c, d] = number.to_be_bytes();
        Self([0x02, 0x51, a, b, c, d])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            let colon = if at == 0 { "" } else { ":" };
            write!(f, "{colon}{byte:02x}")?;
        }
        Ok(())
    }
}

/// The text is no Ethernet address.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("`{0}` is no Ethernet address: six hexadecimal bytes with colons between them are wanted")]
pub struct BadMac(pub String);

impl FromStr for Mac {
    type Err = BadMac;

    fn from_str(text: &str) -> Result<Self, BadMac> {
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            *byte = parts
                .next()
                .filter(|part| part.len() == 2)
                .and_then(|part| u8::from_str_radix(part, 16).ok())
                .ok_or_else(|| BadMac(text.to_owned()))?;
        }
        if parts.next().is_some() {
            return Err(BadMac(text.to_owned()));
        }
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_bytes_agree_and_bad_text_is_refused() {
        let mac = Mac([0x02, 0, 0xab, 0xcd, 0xef, 1]);
        assert_eq!(mac.to_string(), "02:00:ab:cd:ef:01");
        assert_eq!(mac.to_string().parse(), Ok(mac));
        for bad in [
            "",
            "02:00:ab:cd:ef",
            "02:00:ab:cd:ef:01:02",
            "2:0:ab:cd:ef:1",
            "zz:00:00:00:00:00",
        ] {
            assert!(bad.parse::<Mac>().is_err(), "{bad}");
        }
    }

    #[test]
    fn local_addresses_are_unicast_and_locally_administered() {
        for number in [0, 1, u32::MAX] {
            assert_eq!(Mac::local(number).0[0] & 0b11, 0b10);
        }
    }
}
