//! Records of the kernel's tables as bytes: unsigned numbers as LEB128, addresses as they are. Nothing of the kernel's own layout is
//! relied on, so that two releases with different layouts understand each other while the wire version is the same.

use std::net::IpAddr;

use ipnet::IpNet;
use sluice_abi::{
    Cookie, Identity, Range,
    ipcache::{Address, AddressInfo, PrefixKey},
    policy::{AttributionKey, PeerCell, PeerKey},
    program::{Cell, INLINE_RANGES, PortRange, Program, RangeKey},
};

use crate::error::DecodeError;

/// The entry is there: what follows says what it is.
const PRESENT: u8 = 1;
/// The address is an IPv4 one, of four bytes.
const V4: u8 = 2;
/// The host's identity differs from the address's and follows it.
const HOST: u8 = 4;

/// Something with a record.
pub(super) trait Pack: Sized {
    fn pack(&self, out: &mut Vec<u8>);
    fn unpack(reader: &mut Reader<'_>) -> Result<Self, DecodeError>;
}

/// A run of records.
pub(super) fn pack_all<'a, T: Pack + 'a>(records: impl IntoIterator<Item = &'a T>) -> Vec<u8> {
    let mut out = Vec::new();
    for record in records {
        record.pack(&mut out);
    }
    out
}

/// All records of some runs.
pub(super) fn unpack_all<T: Pack, B: AsRef<[u8]>>(
    field: &'static str,
    blobs: impl IntoIterator<Item = B>,
) -> Result<Vec<T>, DecodeError> {
    let mut all = Vec::new();
    for blob in blobs {
        let mut reader = Reader::new(field, blob.as_ref());
        while !reader.bytes.is_empty() {
            all.push(T::unpack(&mut reader)?);
        }
    }
    Ok(all)
}

/// Exactly one record.
pub(super) fn unpack_one<T: Pack>(field: &'static str, bytes: &[u8]) -> Result<T, DecodeError> {
    let mut reader = Reader::new(field, bytes);
    let value = T::unpack(&mut reader)?;
    if reader.bytes.is_empty() {
        Ok(value)
    } else {
        Err(reader.wrong(format!("{} bytes too many", reader.bytes.len())))
    }
}

/// Reads records of one field.
pub(super) struct Reader<'a> {
    field: &'static str,
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) const fn new(field: &'static str, bytes: &'a [u8]) -> Self {
        Self { field, bytes }
    }

    fn wrong(&self, reason: impl Into<String>) -> DecodeError {
        DecodeError::Invalid {
            field: self.field,
            reason: reason.into(),
        }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let Some((bytes, rest)) = self.bytes.split_first_chunk::<N>() else {
            return Err(self.wrong("ends within a record"));
        };
        self.bytes = rest;
        Ok(*bytes)
    }

    fn byte(&mut self) -> Result<u8, DecodeError> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn number<T: TryFrom<u64>>(&mut self) -> Result<T, DecodeError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return T::try_from(value).map_err(|_| self.wrong(format!("{value} is too large")));
            }
        }
        Err(self.wrong("a number does not end"))
    }
}

fn number(out: &mut Vec<u8>, value: impl Into<u64>) {
    prost::encoding::encode_varint(value.into(), out);
}

impl Pack for Cell {
    fn pack(&self, out: &mut Vec<u8>) {
        out.extend([self.verdict, self.flags]);
        number(out, self.slot);
        number(out, self.redirect);
    }

    fn unpack(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            verdict: reader.byte()?,
            flags: reader.byte()?,
            slot: reader.number()?,
            redirect: reader.number()?,
        })
    }
}

impl Pack for (u32, Program) {
    fn pack(&self, out: &mut Vec<u8>) {
        let (id, program) = self;
        number(out, *id);
        number(out, program.count);
        number(out, program.flags);
        program.other.pack(out);
        let mut used = program.ranges.iter();
        let used = used.rposition(|range| *range != PortRange::default());
        let ranges = &program.ranges[..used.map_or(0, |last| last + 1)];
        number(out, ranges.len() as u64);
        for range in ranges {
            number(out, range.low);
            number(out, range.high);
            out.push(range.protocol);
            range.cell.pack(out);
        }
    }

    fn unpack(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let id = reader.number()?;
        let mut program = Program {
            count: reader.number()?,
            flags: reader.number()?,
            other: Cell::unpack(reader)?,
            ..Program::default()
        };
        let used: usize = reader.number()?;
        if used > INLINE_RANGES || usize::from(program.count) > INLINE_RANGES {
            return Err(reader.wrong(format!(
                "program {id} has {used} ranges of {}, more than {INLINE_RANGES}",
                program.count
            )));
        }
        for range in &mut program.ranges[..used] {
            *range = PortRange {
                low: reader.number()?,
                high: reader.number()?,
                protocol: reader.byte()?,
                cell: Cell::unpack(reader)?,
                ..PortRange::default()
            };
        }
        Ok((id, program))
    }
}

impl Pack for RangeKey {
    fn pack(&self, out: &mut Vec<u8>) {
        number(out, self.program);
        number(out, self.prefix_bits);
        out.push(self.protocol);
        out.extend(self.port);
    }

    fn unpack(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let key = Self {
            program: reader.number()?,
            prefix_bits: reader.number()?,
            protocol: reader.byte()?,
            reserved: 0,
            port: reader.take()?,
        };
        if (Self::EXACT_BITS..=Self::ALL_BITS).contains(&key.prefix_bits) {
            Ok(key)
        } else {
            Err(reader.wrong(format!("a range of {} bits", key.prefix_bits)))
        }
    }
}

impl Pack for (RangeKey, Cell) {
    fn pack(&self, out: &mut Vec<u8>) {
        self.0.pack(out);
        self.1.pack(out);
    }

    fn unpack(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok((RangeKey::unpack(reader)?, Cell::unpack(reader)?))
    }
}

impl Pack for AttributionKey {
    fn pack(&self, out: &mut Vec<u8>) {
        number(out, self.attribution);
        number(out, self.slot);
    }

    fn unpack(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            attribution: reader.number()?,
            slot: reader.number()?,
        })
    }
}

impl Pack for (AttributionKey, Cookie) {
    fn pack(&self, out: &mut Vec<u8>) {
        self.0.pack(out);
        number(out, self.1.0);
    }

    fn unpack(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok((AttributionKey::unpack(reader)?, Cookie(reader.number()?)))
    }
}

impl Pack for Identity {
    fn pack(&self, out: &mut Vec<u8>) {
        number(out, self.0);
    }

    fn unpack(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self(reader.number()?))
    }
}

impl Pack for (Range, Identity) {
    fn pack(&self, out: &mut Vec<u8>) {
        out.push(self.0 as u8);
        self.1.pack(out);
    }

    fn unpack(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let range = match reader.byte()? {
            0 => Range::Reserved,
            1 => Range::Pod,
            2 => Range::Cidr,
            3 => Range::Node,
            4 => Range::Local,
            5 => Range::OtherCluster,
            other => return Err(reader.wrong(format!("no range of identities has number {other}"))),
        };
        Ok((range, Identity::unpack(reader)?))
    }
}

impl Pack for PeerCell {
    fn pack(&self, out: &mut Vec<u8>) {
        number(out, self.program);
        number(out, self.attribution);
    }

    fn unpack(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            program: reader.number()?,
            attribution: reader.number()?,
        })
    }
}

impl Pack for (Identity, PeerCell) {
    fn pack(&self, out: &mut Vec<u8>) {
        self.0.pack(out);
        self.1.pack(out);
    }

    fn unpack(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok((Identity::unpack(reader)?, PeerCell::unpack(reader)?))
    }
}

impl Pack for PeerKey {
    fn pack(&self, out: &mut Vec<u8>) {
        number(out, self.table);
        self.identity.pack(out);
    }

    fn unpack(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            table: reader.number()?,
            identity: Identity::unpack(reader)?,
        })
    }
}

impl Pack for (Address, Option<AddressInfo>) {
    fn pack(&self, out: &mut Vec<u8>) {
        out.push(tag(&self.0, self.1.as_ref()));
        pack_address(&self.0, out);
        pack_info(self.1.as_ref(), out);
    }

    fn unpack(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let tag = reader.byte()?;
        Ok((unpack_address(tag, reader)?, unpack_info(tag, reader)?))
    }
}

impl Pack for (PrefixKey, Option<AddressInfo>) {
    fn pack(&self, out: &mut Vec<u8>) {
        out.push(tag(&self.0.address, self.1.as_ref()));
        number(out, self.0.prefix_bits);
        pack_address(&self.0.address, out);
        pack_info(self.1.as_ref(), out);
    }

    fn unpack(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let tag = reader.byte()?;
        let key = PrefixKey {
            prefix_bits: reader.number()?,
            address: unpack_address(tag, reader)?,
        };
        if key.prefix_bits > 128 {
            return Err(reader.wrong(format!("a prefix of {} bits", key.prefix_bits)));
        }
        Ok((key, unpack_info(tag, reader)?))
    }
}

fn tag(address: &Address, info: Option<&AddressInfo>) -> u8 {
    let mut tag = if address.is_v4() { V4 } else { 0 };
    if let Some(info) = info {
        tag |= PRESENT;
        if info.host_identity != info.identity {
            tag |= HOST;
        }
    }
    tag
}

fn pack_address(address: &Address, out: &mut Vec<u8>) {
    let skip = if address.is_v4() { 12 } else { 0 };
    out.extend(&address.0[skip..]);
}

fn unpack_address(tag: u8, reader: &mut Reader<'_>) -> Result<Address, DecodeError> {
    if tag & !(PRESENT | V4 | HOST) != 0 {
        return Err(reader.wrong(format!("unknown flags {tag:#x}")));
    }
    if tag & V4 != 0 {
        Ok(Address::v4(reader.take()?))
    } else {
        Ok(Address(reader.take()?))
    }
}

fn pack_info(info: Option<&AddressInfo>, out: &mut Vec<u8>) {
    let Some(info) = info else { return };
    info.identity.pack(out);
    if info.host_identity != info.identity {
        info.host_identity.pack(out);
    }
    number(out, info.node);
    number(out, info.flags);
}

fn unpack_info(tag: u8, reader: &mut Reader<'_>) -> Result<Option<AddressInfo>, DecodeError> {
    if tag & PRESENT == 0 {
        return Ok(None);
    }
    let identity = Identity::unpack(reader)?;
    let host_identity = if tag & HOST == 0 {
        identity
    } else {
        Identity::unpack(reader)?
    };
    Ok(Some(AddressInfo {
        identity,
        host_identity,
        node: reader.number()?,
        flags: reader.number()?,
    }))
}

impl Pack for IpAddr {
    fn pack(&self, out: &mut Vec<u8>) {
        match self {
            Self::V4(address) => out.extend(address.octets()),
            Self::V6(address) => out.extend(address.octets()),
        }
    }

    /// Takes all that is left: 4 bytes or 16.
    fn unpack(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match reader.bytes.len() {
            4 => Ok(Self::from(reader.take::<4>()?)),
            16 => Ok(Self::from(reader.take::<16>()?)),
            other => Err(reader.wrong(format!("an address of {other} bytes"))),
        }
    }
}

impl Pack for IpNet {
    fn pack(&self, out: &mut Vec<u8>) {
        out.push(self.prefix_len());
        self.addr().pack(out);
    }

    fn unpack(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let bits = reader.byte()?;
        let address = IpAddr::unpack(reader)?;
        Self::new(address, bits).map_err(|error| reader.wrong(error.to_string()))
    }
}
