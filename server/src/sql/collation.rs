//! Owns collations: comparison, sort keys and names. Text is always UTF-8 in memory and in rows.
//!
//! What is exact and what is near. `utf8mb4_0900_ai_ci` is computed, not read from the DUCET tables: a character is
//! decomposed (NFKD), combining marks are dropped, the rest is lower-cased, and letters that DUCET writes as another letter with
//! a secondary difference (`ß`, `æ`, `ø`, `đ`, `ł`, `ħ`, `ŧ`, `œ`) are spelled out. ASCII has DUCET's order: white space, punctuation,
//! symbols, digits, letters; control characters weigh nothing. Other characters follow in code point order, so equality agrees with MySQL for
//! Latin, Greek and Cyrillic text, while the order of non-ASCII punctuation and between some scripts differs. The `as_ci` and `as_cs`
//! collations append accents and case as later levels. The `general_ci` and `unicode_ci` collations use the same weights with PAD SPACE; trailing spaces
//! are cut before comparing, so text that continues with a control character sorts after, not before, its padded prefix.
//!
//! Sort keys of text never contain 0x00, so that a key can be closed with 0x00 in a compound key. Binary keys may.

use std::cmp::Ordering;

use unicode_normalization::{UnicodeNormalization, char::is_combining_mark};

/// A collation, and with it a character set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
#[allow(missing_docs)] // named as in MySQL
pub enum Collation {
    Binary = 0,
    #[default]
    Utf8mb4_0900AiCi = 1,
    Utf8mb4_0900AsCi = 2,
    Utf8mb4_0900AsCs = 3,
    Utf8mb4_0900Bin = 4,
    Utf8mb4Bin = 5,
    Utf8mb4GeneralCi = 6,
    Utf8mb4UnicodeCi = 7,
    Utf8mb4Unicode520Ci = 8,
    Utf8mb3GeneralCi = 9,
    Utf8mb3Bin = 10,
    Utf8mb3UnicodeCi = 11,
}

/// What a collation looks at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Bytes,
    Primary,
    Accents,
    Case,
}

struct Info {
    collation: Collation,
    id: u16,
    name: &'static str,
    charset: &'static str,
    level: Level,
    pad_space: bool,
}

const INFO: [Info; 12] = {
    const fn info(
        collation: Collation,
        id: u16,
        name: &'static str,
        charset: &'static str,
        level: Level,
        pad_space: bool,
    ) -> Info {
        Info { collation, id, name, charset, level, pad_space }
    }
    use Collation as C;
    use Level as L;
    [
        info(C::Binary, 63, "binary", "binary", L::Bytes, false),
        info(C::Utf8mb4_0900AiCi, 255, "utf8mb4_0900_ai_ci", "utf8mb4", L::Primary, false),
        info(C::Utf8mb4_0900AsCi, 305, "utf8mb4_0900_as_ci", "utf8mb4", L::Accents, false),
        info(C::Utf8mb4_0900AsCs, 278, "utf8mb4_0900_as_cs", "utf8mb4", L::Case, false),
        info(C::Utf8mb4_0900Bin, 309, "utf8mb4_0900_bin", "utf8mb4", L::Bytes, false),
        info(C::Utf8mb4Bin, 46, "utf8mb4_bin", "utf8mb4", L::Bytes, true),
        info(C::Utf8mb4GeneralCi, 45, "utf8mb4_general_ci", "utf8mb4", L::Primary, true),
        info(C::Utf8mb4UnicodeCi, 224, "utf8mb4_unicode_ci", "utf8mb4", L::Primary, true),
        info(C::Utf8mb4Unicode520Ci, 246, "utf8mb4_unicode_520_ci", "utf8mb4", L::Primary, true),
        info(C::Utf8mb3GeneralCi, 33, "utf8mb3_general_ci", "utf8mb3", L::Primary, true),
        info(C::Utf8mb3Bin, 83, "utf8mb3_bin", "utf8mb3", L::Bytes, true),
        info(C::Utf8mb3UnicodeCi, 192, "utf8mb3_unicode_ci", "utf8mb3", L::Primary, true),
    ]
};

impl Collation {
    /// Every collation, for SHOW COLLATION.
    pub fn all() -> impl Iterator<Item = Collation> {
        INFO.iter().map(|info| info.collation)
    }
    fn info(self) -> &'static Info {
        &INFO[self as usize]
    }
    /// MySQL's name.
    pub fn name(self) -> &'static str {
        self.info().name
    }
    /// MySQL's id, as in column definitions.
    pub fn id(self) -> u16 {
        self.info().id
    }
    /// Character set name.
    pub fn charset(self) -> &'static str {
        self.info().charset
    }
    /// PAD SPACE attribute: trailing spaces do not count.
    pub fn pad_space(self) -> bool {
        self.info().pad_space
    }
    /// By MySQL name, `utf8_` meaning `utf8mb3_`.
    pub fn from_name(name: &str) -> Option<Self> {
        let lower = name.to_ascii_lowercase();
        let lower = lower.strip_prefix("utf8_").map_or(lower.clone(), |rest| format!("utf8mb3_{rest}"));
        INFO.iter().find(|info| info.name == lower).map(|info| info.collation)
    }
    /// By MySQL id.
    pub fn from_id(id: u16) -> Option<Self> {
        INFO.iter().find(|info| info.id == id).map(|info| info.collation)
    }
    /// Default collation of a character set.
    pub fn default_of_charset(charset: &str) -> Option<Self> {
        match charset.to_ascii_lowercase().as_str() {
            "utf8mb4" => Some(Self::Utf8mb4_0900AiCi),
            "utf8" | "utf8mb3" => Some(Self::Utf8mb3GeneralCi),
            "binary" => Some(Self::Binary),
            _ => None,
        }
    }
    /// The byte-wise collation of the same character set.
    pub fn binary_of_charset(self) -> Self {
        match self.charset() {
            "utf8mb4" => Self::Utf8mb4Bin,
            "utf8mb3" => Self::Utf8mb3Bin,
            _ => Self::Binary,
        }
    }
    /// Longest character, in bytes.
    pub const fn max_bytes_per_char(self) -> u32 {
        match self {
            Self::Binary => 1,
            Self::Utf8mb3GeneralCi | Self::Utf8mb3Bin | Self::Utf8mb3UnicodeCi => 3,
            _ => 4,
        }
    }
    /// Whether strings are equal exactly if their bytes are.
    pub fn is_bytewise(self) -> bool {
        self.info().level == Level::Bytes && !self.pad_space()
    }
    /// Whether letters compare without case.
    pub fn is_case_insensitive(self) -> bool {
        matches!(self.info().level, Level::Primary | Level::Accents)
    }

    /// SQL comparison of two strings.
    pub fn compare(self, a: &[u8], b: &[u8]) -> Ordering {
        let info = self.info();
        let (a, b) = if info.pad_space { (trim_spaces(a), trim_spaces(b)) } else { (a, b) };
        match info.level {
            Level::Bytes => a.cmp(b),
            Level::Primary => compare_primary(a, b),
            level => compare_primary(a, b).then_with(|| {
                let (mut left, mut right) = (Vec::new(), Vec::new());
                push_late_levels(a, level, &mut left);
                push_late_levels(b, level, &mut right);
                left.cmp(&right)
            }),
        }
    }

    /// Equality, faster than [`Self::compare`] for identical bytes.
    pub fn equal(self, a: &[u8], b: &[u8]) -> bool {
        a == b || (!self.is_bytewise() && self.compare(a, b) == Ordering::Equal)
    }

    /// Appends the key whose byte order is this collation's order, and whose equality is its equality.
    pub fn sort_key(self, text: &[u8], out: &mut Vec<u8>) {
        let info = self.info();
        let text = if info.pad_space { trim_spaces(text) } else { text };
        match info.level {
            Level::Bytes => out.extend_from_slice(text),
            Level::Primary => push_primary(text, out),
            level => {
                push_primary(text, out);
                out.push(LEVEL_END);
                push_late_levels(text, level, out);
            }
        }
    }

    /// Appends the sort key in a form that can be followed by further key parts: the order of concatenations is the order of tuples.
    pub fn sort_key_terminated(self, text: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        self.sort_key(text, out);
        if out[start..].contains(&0) {
            let raw = out.split_off(start);
            for byte in raw {
                out.push(byte);
                if byte == 0 {
                    out.push(0xff);
                }
            }
        }
        out.extend_from_slice(&[0, 0]);
    }
}

const LEVEL_END: u8 = 1;
/// First byte of a weight that carries a code point; ASCII weights are below.
const WIDE: u8 = 0xe0;

fn trim_spaces(mut text: &[u8]) -> &[u8] {
    while let [rest @ .., b' '] = text {
        text = rest;
    }
    text
}

/// Weights of ASCII, 0 for what is ignored. See the module comment.
const ASCII_WEIGHT: [u8; 128] = {
    const ORDER: &[u8] = b"\t\n\x0b\x0c\r _-,;:!?.'\"()[]{}@*/\\&#%`^+<=>|~$0123456789abcdefghijklmnopqrstuvwxyz";
    let mut table = [0u8; 128];
    let mut index = 0;
    while index < ORDER.len() {
        let byte = ORDER[index];
        table[byte as usize] = index as u8 + 2;
        table[byte.to_ascii_uppercase() as usize] = index as u8 + 2;
        index += 1;
    }
    table
};

/// Calls `emit` with the primary weights of a non-ASCII character.
fn wide_weights(ch: char, emit: &mut impl FnMut(u32)) {
    for part in std::iter::once(ch).nfkd() {
        if is_combining_mark(part) || is_ignorable(part) {
            continue;
        }
        for lower in part.to_lowercase() {
            if lower.is_ascii() {
                emit_ascii(lower as u8, emit);
                continue;
            }
            match spelled_out(lower) {
                Some(letters) => letters.bytes().for_each(|byte| emit_ascii(byte, emit)),
                None if is_combining_mark(lower) => {}
                None => emit(u32::from(WIDE) << 24 | lower as u32),
            }
        }
    }
}

fn emit_ascii(byte: u8, emit: &mut impl FnMut(u32)) {
    let weight = ASCII_WEIGHT[usize::from(byte & 0x7f)];
    if weight != 0 {
        emit(u32::from(weight) << 24);
    }
}

fn is_ignorable(ch: char) -> bool {
    matches!(ch, '\u{ad}' | '\u{80}'..='\u{84}' | '\u{86}'..='\u{9f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2064}' | '\u{feff}')
}

fn spelled_out(ch: char) -> Option<&'static str> {
    Some(match ch {
        'ß' => "ss",
        'æ' => "ae",
        'ø' => "o",
        'đ' => "d",
        'ł' => "l",
        'ħ' => "h",
        'ŧ' => "t",
        'œ' => "oe",
        'ς' => return None,
        _ => return None,
    })
}

/// Next character of UTF-8 text and its length; a byte that is not UTF-8 counts as its own character.
fn next_char(text: &[u8]) -> Option<(char, usize)> {
    let first = *text.first()?;
    let width = match first {
        0..=0x7f => return Some((char::from(first), 1)),
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => 1,
    };
    let decoded = text.get(..width).and_then(|bytes| std::str::from_utf8(bytes).ok()).and_then(|s| s.chars().next());
    Some(decoded.map_or((char::from_u32(0x10_ff00 | u32::from(first)).unwrap_or('\u{fffd}'), 1), |ch| (ch, width)))
}

/// Weights as u32: ASCII weights in the top byte, wide ones with the code point, so that integer order is key order.
struct Weights<'a> {
    text: &'a [u8],
    pending: smallvec::SmallVec<[u32; 4]>,
}

impl<'a> Weights<'a> {
    fn new(text: &'a [u8]) -> Self {
        Self { text, pending: smallvec::SmallVec::new() }
    }
}

impl Iterator for Weights<'_> {
    type Item = u32;
    fn next(&mut self) -> Option<u32> {
        loop {
            if !self.pending.is_empty() {
                return Some(self.pending.remove(0));
            }
            let (ch, width) = next_char(self.text)?;
            self.text = &self.text[width..];
            if ch.is_ascii() {
                let weight = ASCII_WEIGHT[ch as usize];
                if weight != 0 {
                    return Some(u32::from(weight) << 24);
                }
            } else {
                wide_weights(ch, &mut |weight| self.pending.push(weight));
            }
        }
    }
}

fn compare_primary(a: &[u8], b: &[u8]) -> Ordering {
    // ASCII without ignorable characters, byte by byte; each character's weights stand alone, so the slow path may start anywhere.
    let mut at = 0;
    while let (Some(&left), Some(&right)) = (a.get(at), b.get(at)) {
        if !left.is_ascii() || !right.is_ascii() {
            break;
        }
        let (left, right) = (ASCII_WEIGHT[usize::from(left)], ASCII_WEIGHT[usize::from(right)]);
        if left == 0 || right == 0 {
            break;
        }
        if left != right {
            return left.cmp(&right);
        }
        at += 1;
    }
    let (a, b) = (&a[at..], &b[at..]);
    if a.is_empty() && b.is_empty() { Ordering::Equal } else { Weights::new(a).cmp(Weights::new(b)) }
}

fn push_primary(text: &[u8], out: &mut Vec<u8>) {
    out.reserve(text.len());
    let mut at = 0;
    while let Some(&byte) = text.get(at).filter(|byte| byte.is_ascii()) {
        let weight = ASCII_WEIGHT[usize::from(byte)];
        if weight != 0 {
            out.push(weight);
        }
        at += 1;
    }
    for weight in Weights::new(&text[at..]) {
        if weight & 0x00ff_ffff == 0 {
            out.push((weight >> 24) as u8);
        } else {
            // 7 bits a byte with the high bit set: no zero byte in the key.
            let code = weight & 0x00ff_ffff;
            out.extend_from_slice(&[WIDE, 0x80 | (code >> 14) as u8, 0x80 | (code >> 7) as u8, 0x80 | code as u8]);
        }
    }
}

fn push_late_levels(text: &[u8], level: Level, out: &mut Vec<u8>) {
    let text = String::from_utf8_lossy(text);
    let mut buffer = [0u8; 4];
    let mut push = |ch: char| out.extend(ch.encode_utf8(&mut buffer).bytes().filter(|byte| *byte != 0));
    if level == Level::Accents {
        text.nfkd().flat_map(char::to_lowercase).for_each(&mut push);
    } else {
        // MySQL puts lower case before upper case.
        text.nfkd()
            .map(|ch| if ch.is_uppercase() { ch.to_lowercase().next().unwrap_or(ch) } else { swap_lower(ch) })
            .for_each(&mut push);
    }
}

/// Exchanges the cases of ASCII letters, so that byte order puts lower case first.
fn swap_lower(ch: char) -> char {
    ch.to_ascii_uppercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn default_collation_ignores_case_and_accents() {
        let c = Collation::Utf8mb4_0900AiCi;
        for (a, b) in
            [("a", "A"), ("é", "e"), ("straße", "STRASSE"), ("Ångström", "angstrom"), ("e\u{301}", "E"), ("ﬁ", "fi")]
        {
            assert_eq!(c.compare(a.as_bytes(), b.as_bytes()), Ordering::Equal, "{a} = {b}");
        }
        for (a, b) in [("a", "b"), ("a", "a "), ("Z", "я"), ("_", "0"), ("9", "a"), ("", "a"), ("a", "ab"), ("ab", "B")]
        {
            assert_eq!(c.compare(a.as_bytes(), b.as_bytes()), Ordering::Less, "{a} < {b}");
        }
    }

    #[test]
    fn pad_space_and_binary() {
        assert!(Collation::Utf8mb4GeneralCi.equal(b"a  ", b"A"));
        assert!(!Collation::Utf8mb4_0900AiCi.equal(b"a  ", b"A"));
        assert!(Collation::Utf8mb4Bin.equal(b"a  ", b"a"));
        assert!(!Collation::Utf8mb4Bin.equal(b"A", b"a"));
        assert!(!Collation::Utf8mb4_0900AsCi.equal("é".as_bytes(), b"e"));
        assert!(Collation::Utf8mb4_0900AsCi.equal("É".as_bytes(), "é".as_bytes()));
        assert_eq!(Collation::Utf8mb4_0900AsCs.compare(b"a", b"A"), Ordering::Less);
    }

    #[test]
    fn names_and_ids_are_unique_and_found() {
        for collation in Collation::all() {
            assert_eq!(Collation::from_id(collation.id()), Some(collation));
            assert_eq!(Collation::from_name(collation.name()), Some(collation));
            assert_eq!(INFO[collation as usize].collation, collation);
        }
    }

    fn texts() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            "[a-cA-C éß\u{301}0-]{0,6}".prop_map(String::into_bytes),
            proptest::collection::vec(any::<u8>(), 0..8)
        ]
    }

    proptest! {
        #[test]
        fn sort_keys_order_as_compare_does(a in texts(), b in texts()) {
            for collation in Collation::all() {
                let (mut left, mut right) = (Vec::new(), Vec::new());
                collation.sort_key(&a, &mut left);
                collation.sort_key(&b, &mut right);
                prop_assert_eq!(collation.compare(&a, &b), left.cmp(&right), "{}", collation.name());
                if collation != Collation::Binary && collation != Collation::Utf8mb4_0900Bin && !a.contains(&0) {
                    prop_assert!(!left.contains(&0));
                }
            }
        }

        #[test]
        fn terminated_keys_order_as_tuples(a in texts(), b in texts(), c in texts(), d in texts()) {
            for collation in [Collation::Binary, Collation::Utf8mb4_0900AiCi] {
                let (mut left, mut right) = (Vec::new(), Vec::new());
                collation.sort_key_terminated(&a, &mut left);
                collation.sort_key_terminated(&c, &mut left);
                collation.sort_key_terminated(&b, &mut right);
                collation.sort_key_terminated(&d, &mut right);
                let expected = collation.compare(&a, &b).then(collation.compare(&c, &d));
                prop_assert_eq!(expected, left.cmp(&right));
            }
        }
    }
}
