//! Bounds-checked reading and writing of the protocol's integers and strings. No input can make it panic.

/// A packet that ends early or holds a value its field can't have. The text names the field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed packet: {0}")]
pub struct Malformed(pub &'static str);

/// A cursor over one packet.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Reads from the packet's start.
    pub fn new(packet: &'a [u8]) -> Self {
        Self(packet)
    }
    /// Whether everything is read.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    /// Everything not yet read.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
    /// `len` bytes.
    pub fn bytes(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], Malformed> {
        let (head, tail) = self.0.split_at_checked(len).ok_or(Malformed(what))?;
        self.0 = tail;
        Ok(head)
    }
    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Malformed> {
        let (head, tail) = self.0.split_first_chunk::<N>().ok_or(Malformed(what))?;
        self.0 = tail;
        Ok(*head)
    }
    /// One byte.
    pub fn u8(&mut self, what: &'static str) -> Result<u8, Malformed> {
        self.array::<1>(what).map(|[b]| b)
    }
    /// Two bytes, least significant first.
    pub fn u16(&mut self, what: &'static str) -> Result<u16, Malformed> {
        self.array(what).map(u16::from_le_bytes)
    }
    /// Three bytes, least significant first.
    pub fn u24(&mut self, what: &'static str) -> Result<u32, Malformed> {
        self.array::<3>(what).map(|[a, b, c]| u32::from_le_bytes([a, b, c, 0]))
    }
    /// Four bytes, least significant first.
    pub fn u32(&mut self, what: &'static str) -> Result<u32, Malformed> {
        self.array(what).map(u32::from_le_bytes)
    }
    /// Eight bytes, least significant first.
    pub fn u64(&mut self, what: &'static str) -> Result<u64, Malformed> {
        self.array(what).map(u64::from_le_bytes)
    }
    /// A length-encoded integer. 0xfb (NULL) and 0xff are no integers.
    pub fn lenenc(&mut self, what: &'static str) -> Result<u64, Malformed> {
        match self.u8(what)? {
            n @ 0..=0xfa => Ok(u64::from(n)),
            0xfc => self.u16(what).map(u64::from),
            0xfd => self.u24(what).map(u64::from),
            0xfe => self.u64(what),
            0xfb | 0xff => Err(Malformed(what)),
        }
    }
    /// A string with its length before it.
    pub fn lenenc_bytes(&mut self, what: &'static str) -> Result<&'a [u8], Malformed> {
        let len = usize::try_from(self.lenenc(what)?).map_err(|_| Malformed(what))?;
        self.bytes(len, what)
    }
    /// A string that ends with a zero byte.
    pub fn nul_bytes(&mut self, what: &'static str) -> Result<&'a [u8], Malformed> {
        let end = self.0.iter().position(|&b| b == 0).ok_or(Malformed(what))?;
        let text = self.bytes(end, what)?;
        self.u8(what)?;
        Ok(text)
    }
    /// Like [`Reader::nul_bytes`], but the packet's end will do as well as a zero byte.
    pub fn nul_bytes_or_rest(&mut self) -> &'a [u8] {
        match self.nul_bytes("string") {
            Ok(text) => text,
            Err(_) => self.rest(),
        }
    }
}

/// Writing the same forms. The buffer grows as needed.
pub trait Put {
    /// One byte.
    fn put_u8(&mut self, n: u8);
    /// Two bytes, least significant first.
    fn put_u16(&mut self, n: u16);
    /// The lower three bytes, least significant first.
    fn put_u24(&mut self, n: u32);
    /// Four bytes, least significant first.
    fn put_u32(&mut self, n: u32);
    /// Eight bytes, least significant first.
    fn put_u64(&mut self, n: u64);
    /// A length-encoded integer.
    fn put_lenenc(&mut self, n: u64);
    /// A string with its length before it.
    fn put_lenenc_bytes(&mut self, text: &[u8]);
    /// A string with a zero byte behind it; `text` must hold none.
    fn put_nul_bytes(&mut self, text: &[u8]);
}

impl Put for Vec<u8> {
    fn put_u8(&mut self, n: u8) {
        self.push(n);
    }
    fn put_u16(&mut self, n: u16) {
        self.extend_from_slice(&n.to_le_bytes());
    }
    fn put_u24(&mut self, n: u32) {
        let [a, b, c, _] = n.to_le_bytes();
        self.extend_from_slice(&[a, b, c]);
    }
    fn put_u32(&mut self, n: u32) {
        self.extend_from_slice(&n.to_le_bytes());
    }
    fn put_u64(&mut self, n: u64) {
        self.extend_from_slice(&n.to_le_bytes());
    }
    fn put_lenenc(&mut self, n: u64) {
        match n {
            0..=0xfa => self.push(n as u8),
            0xfb..=0xffff => {
                self.push(0xfc);
                self.put_u16(n as u16);
            }
            0x1_0000..=0xff_ffff => {
                self.push(0xfd);
                self.put_u24(n as u32);
            }
            _ => {
                self.push(0xfe);
                self.put_u64(n);
            }
        }
    }
    fn put_lenenc_bytes(&mut self, text: &[u8]) {
        self.put_lenenc(text.len() as u64);
        self.extend_from_slice(text);
    }
    fn put_nul_bytes(&mut self, text: &[u8]) {
        self.extend_from_slice(text);
        self.push(0);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn lenenc_round_trips(n in prop_oneof![0u64..0x2_0000, 0xff_0000u64..0x100_0100, any::<u64>()]) {
            let mut buf = Vec::new();
            buf.put_lenenc(n);
            let mut reader = Reader::new(&buf);
            prop_assert_eq!(reader.lenenc("n"), Ok(n));
            prop_assert!(reader.is_empty());
        }

        #[test]
        fn any_bytes_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..64), ops in prop::collection::vec(0u8..9, 0..16)) {
            let mut r = Reader::new(&bytes);
            for op in ops {
                let _ = match op {
                    0 => r.u8("").map(drop),
                    1 => r.u16("").map(drop),
                    2 => r.u24("").map(drop),
                    3 => r.u32("").map(drop),
                    4 => r.u64("").map(drop),
                    5 => r.lenenc("").map(drop),
                    6 => r.lenenc_bytes("").map(drop),
                    7 => r.nul_bytes("").map(drop),
                    _ => { r.nul_bytes_or_rest(); Ok(()) }
                };
            }
        }
    }

    #[test]
    fn a_length_beyond_the_packet_is_malformed() {
        let mut r = Reader::new(&[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]);
        assert_eq!(r.lenenc_bytes("name"), Err(Malformed("name")));
    }
}
