//! Owns pattern matching: LIKE under a collation, REGEXP through the regex crate (linear time, no back references).

use super::collation::Collation;
use super::error::{Result, shown, sql_error};

/// Whether `text` is LIKE `pattern`. `escape` 0 means that nothing escapes. `%` and `_` stand for characters, bytes if binary.
pub fn matches(text: &[u8], pattern: &[u8], escape: u8, collation: Collation) -> bool {
    // Greedy with one backtrack point: after the last `%`.
    let (mut at, mut in_pattern) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    loop {
        match pattern.get(in_pattern) {
            Some(b'%') if escape != b'%' => {
                in_pattern += 1;
                retry = Some((at, in_pattern));
                continue;
            }
            Some(&byte) if at < text.len() => {
                let escaped = byte == escape && escape != 0 && in_pattern + 1 < pattern.len();
                let start = in_pattern + usize::from(escaped);
                let width = char_width(&pattern[start..], collation);
                let text_width = char_width(&text[at..], collation);
                let any = byte == b'_' && !escaped;
                if any || same(&text[at..at + text_width], &pattern[start..start + width], collation) {
                    in_pattern = start + width;
                    at += text_width;
                    continue;
                }
            }
            None if at == text.len() => return true,
            _ => {}
        }
        match retry {
            Some((from, resume)) if from < text.len() => {
                at = from + char_width(&text[from..], collation);
                in_pattern = resume;
                retry = Some((at, resume));
            }
            _ => return false,
        }
    }
}

fn char_width(text: &[u8], collation: Collation) -> usize {
    if collation == Collation::Binary {
        return 1;
    }
    let width = match text.first() {
        Some(0xc2..=0xdf) => 2,
        Some(0xe0..=0xef) => 3,
        Some(0xf0..=0xf4) => 4,
        _ => 1,
    };
    width.min(text.len())
}

/// LIKE compares character by character; spaces count even under PAD SPACE.
fn same(a: &[u8], b: &[u8], collation: Collation) -> bool {
    a == b || (a != b" " && b != b" " && collation.equal(a, b))
}

/// Compiles a REGEXP pattern; error 3685 or 3696 for what the engine refuses.
pub fn compile_regexp(pattern: &[u8], ignore_case: bool) -> Result<regex::bytes::Regex> {
    let text =
        std::str::from_utf8(pattern).map_err(|_| sql_error(3685, "Illegal argument to a regular expression."))?;
    if text.is_empty() {
        return Err(sql_error(3685, "Illegal argument to a regular expression."));
    }
    regex::bytes::RegexBuilder::new(text)
        .case_insensitive(ignore_case)
        .size_limit(1 << 20)
        .build()
        .map_err(|_| sql_error(3692, format!("Incorrect description of a regular expression: '{}'", shown(pattern))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn like_table() {
        for (text, pattern, expected) in [
            ("abc", "a%", true),
            ("ABC", "a_c", true),
            ("abc", "b%", false),
            ("a%c", "a\\%c", true),
            ("abc", "a\\%c", false),
            ("", "%", true),
            ("", "_", false),
            ("é", "_", true),
            ("É", "e", true),
            ("mississippi", "m%iss%pi", true),
            ("abc", "%%c", true),
            ("abc", "abc%", true),
            ("a", "a ", false),
        ] {
            let found = matches(text.as_bytes(), pattern.as_bytes(), b'\\', Collation::default());
            assert_eq!(found, expected, "{text} LIKE {pattern}");
        }
        assert!(!matches(b"ABC", b"abc", b'\\', Collation::Utf8mb4Bin));
    }

    proptest! {
        #[test]
        fn no_panic(text in "[ab%_é\\\\]{0,8}", pattern in "[ab%_é\\\\]{0,8}") {
            let _ = matches(text.as_bytes(), pattern.as_bytes(), b'\\', Collation::default());
        }
        #[test]
        fn bytes_no_panic(text in proptest::collection::vec(any::<u8>(), 0..8), pattern in proptest::collection::vec(any::<u8>(), 0..8)) {
            let _ = matches(&text, &pattern, b'\\', Collation::default());
        }
    }
}
