//! What may be written as a value: the registry's own rules, in words for the one who
//! writes. Pure.

/// The longest name of a kind of work, in bytes.
const NAME_MAX: usize = 63;
/// The longest duration: a year.
const YEAR_MS: u64 = 8760 * 3_600_000;
const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// The milliseconds of `300ms`, `30s`, `5m`, `1h30m`.
pub(crate) fn duration(text: &str) -> Result<u64, String> {
    milliseconds(text).ok_or_else(|| {
        format!(
            "{text:?} is not a duration: write whole numbers with a unit, such as \"300ms\", \"30s\", \
             \"5m\" or \"1h30m\", at most \"8760h\""
        )
    })
}

fn milliseconds(text: &str) -> Option<u64> {
    if text.is_empty() || text.len() > 20 {
        return None;
    }
    let (mut rest, mut total, mut first_unit) = (text, 0u64, 0);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let at = UNITS.iter().skip(first_unit).position(|(unit, _)| *unit == &rest[..letters])?;
        first_unit += at + 1; // units go from large to small, each once
        total = total.checked_add(number.checked_mul(UNITS[first_unit - 1].1)?)?;
        rest = &rest[letters..];
    }
    (total <= YEAR_MS).then_some(total)
}

/// The number of `20%`.
pub(crate) fn percent(text: &str) -> Result<u8, String> {
    let number = text.strip_suffix('%').and_then(|number| number.parse().ok());
    number
        .filter(|number| *number <= 100)
        .ok_or_else(|| format!("{text:?} is not a percentage from \"0%\" to \"100%\""))
}

/// A name that can be the `metadata.name` of a TaskDefinition.
pub(crate) fn name(text: &str) -> Result<(), String> {
    if text.is_empty() || text.len() > NAME_MAX {
        let bytes = text.len();
        return Err(format!("a task's name has 1 to {NAME_MAX} bytes, and this one has {bytes}"));
    }
    let edge = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let inner = |b: u8| edge(b) || b == b'-' || b == b'.';
    let bytes = text.as_bytes();
    if bytes.iter().all(|b| inner(*b)) && edge(bytes[0]) && edge(bytes[bytes.len() - 1]) {
        return Ok(());
    }
    Err(format!(
        "{text:?} cannot be a task's name: it is the metadata.name of a TaskDefinition, and has lower-case \
         letters, digits, '-' and '.', beginning and ending with a letter or digit{}",
        instead(text).map(|name| format!("; {name:?} can")).unwrap_or_default()
    ))
}

/// The nearest name that is allowed, if that is plain.
pub(crate) fn instead(text: &str) -> Option<String> {
    let mut made = String::new();
    let mut low_before = false;
    for c in text.chars() {
        if c.is_ascii_uppercase() && low_before {
            made.push('-');
        }
        made.push(if c.is_ascii_alphanumeric() || c == '.' { c.to_ascii_lowercase() } else { '-' });
        low_before = c.is_ascii_lowercase() || c.is_ascii_digit();
    }
    let made = made.trim_matches(['-', '.']).to_owned();
    (name_is_allowed(&made) && text.is_ascii()).then_some(made)
}

fn name_is_allowed(text: &str) -> bool {
    !text.is_empty() && text.len() <= NAME_MAX
}

/// The known word that was probably meant.
pub(crate) fn meant<'a>(written: &str, known: &[&'a str]) -> Option<&'a str> {
    let (nearest, away) =
        known.iter().map(|word| (*word, distance(written, word))).min_by_key(|(_, away)| *away)?;
    (away <= 1 + nearest.len() / 4).then_some(nearest)
}

/// How many letters differ: Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = corner + usize::from(from != *to);
            corner = row[j + 1];
            row[j + 1] = replaced.min(corner + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_not_allowed_comes_with_one_that_is() {
        for (text, better) in
            [("resize_image", "resize-image"), ("ResizeImage", "resize-image"), ("a b", "a-b")]
        {
            assert_eq!(instead(text).as_deref(), Some(better));
            assert!(name(better).is_ok());
        }
        assert_eq!(instead("__"), None);
    }

    #[test]
    fn a_misspelt_word_is_recognised_and_a_strange_one_is_not() {
        let known = ["timeout", "max_attempts", "name"];
        assert_eq!(meant("time_out", &known), Some("timeout"));
        assert_eq!(meant("max_attempt", &known), Some("max_attempts"));
        assert_eq!(meant("nmae", &known), Some("name"));
        assert_eq!(meant("colour", &known), None);
    }
}
