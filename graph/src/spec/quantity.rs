//! Durations, amounts of memory and shares of cores, as people write them. Exact: no floating point on the way.

use std::time::Duration;

use super::finding::shown;

/// Why a quantity could not be read: message and help.
pub(super) type Wrong = (String, String);

/// Digits before the point that are looked at; more is beyond every limit.
const WHOLE_DIGITS_MAX: usize = 18;
/// Digits behind the point that are looked at.
const FRACTION_DIGITS_MAX: usize = 12;

/// A decimal number times a unit. `None`: not a number; `Some(None)`: too large, or not a whole number of units.
enum Scaled {
    Exact(u64),
    NotWhole,
    TooLarge,
    NotANumber,
}

fn scaled(text: &str, unit: u64) -> Scaled {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let (whole, fraction) = match text.split_once('.') {
        Some((whole, fraction)) if digits(fraction) => (whole, fraction.trim_end_matches('0')),
        Some(_) => return Scaled::NotANumber,
        None => (text, ""),
    };
    if !digits(whole) {
        return Scaled::NotANumber;
    }
    let whole = whole.trim_start_matches('0');
    if whole.len() > WHOLE_DIGITS_MAX {
        return Scaled::TooLarge;
    }
    if fraction.len() > FRACTION_DIGITS_MAX {
        return Scaled::NotWhole;
    }
    // At most 18 + 12 digits times a unit below 2^47: within 128 bits.
    let number = |part: &str| part.bytes().fold(0u128, |sum, b| sum * 10 + u128::from(b - b'0'));
    let scale = 10u128.pow(u32::try_from(fraction.len()).expect("at most 12 digits"));
    let product = (number(whole) * scale + number(fraction)) * u128::from(unit);
    if product % scale != 0 {
        return Scaled::NotWhole;
    }
    u64::try_from(product / scale).map_or(Scaled::TooLarge, Scaled::Exact)
}

const DURATION_HELP: &str = "write for example 90s, 5m, 1h30m or 250ms; a plain number means seconds";
/// Milliseconds of each unit, largest first.
const DURATION_UNITS: &[(&str, u64)] = &[("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// `90s`, `5m`, `1h30m`, `1.5h`; a plain number is seconds. In whole milliseconds.
pub(super) fn duration(text: &str) -> Result<Duration, Wrong> {
    let not_one = || (format!("`{}` is not a duration", shown(text)), DURATION_HELP.to_owned());
    let text = text.trim();
    if text.starts_with('-') {
        return Err((format!("`{}` is negative", shown(text)), DURATION_HELP.to_owned()));
    }
    let mut rest = text;
    let mut total: u64 = 0;
    let mut next_unit = 0;
    while !rest.is_empty() {
        let number_len = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(number_len);
        if number.is_empty() {
            return Err(not_one());
        }
        let after = after.trim_start_matches(' ');
        let unit_len = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_len);
        let unit_ms = if unit.is_empty() && number.len() == text.len() {
            1_000
        } else {
            let Some(position) = DURATION_UNITS.iter().position(|(name, _)| *name == unit) else {
                return Err(match unit {
                    "" => not_one(),
                    _ => (
                        format!("`{}` is not a unit of time", shown(unit)),
                        "the units are d, h, m, s and ms, for example 1h30m".to_owned(),
                    ),
                });
            };
            if position < next_unit {
                return Err((
                    format!("the units of `{}` are not in order", shown(text)),
                    "write each unit once, the larger ones first, for example 1h30m".to_owned(),
                ));
            }
            next_unit = position + 1;
            DURATION_UNITS[position].1
        };
        let part = match scaled(number, unit_ms) {
            Scaled::Exact(part) => part,
            Scaled::NotWhole => {
                return Err((
                    format!("`{}` is not a whole number of milliseconds", shown(text)),
                    "round it to milliseconds".to_owned(),
                ));
            }
            // What is too large for 64 bits is too large for every limit; the limit is what the user is told.
            Scaled::TooLarge => u64::MAX,
            Scaled::NotANumber => return Err(not_one()),
        };
        total = total.saturating_add(part);
        rest = after.trim_start_matches(' ');
    }
    if text.is_empty() { Err(not_one()) } else { Ok(Duration::from_millis(total)) }
}

/// Milliseconds as short as they can be written, for messages.
pub(super) fn show_duration(duration: Duration) -> String {
    let mut rest = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if rest == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (unit, size) in DURATION_UNITS {
        if rest >= *size {
            text.push_str(&format!("{}{unit}", rest / size));
            rest %= size;
        }
    }
    text
}

const MEMORY_HELP: &str = "write for example 512MiB, 2GiB or 1.5GB; a plain number means bytes";
const MEMORY_UNITS: &[(&str, u64)] = &[
    ("", 1),
    ("B", 1),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// `2GiB`, `512 MB`; a plain number is bytes.
pub(super) fn memory(text: &str) -> Result<u64, Wrong> {
    let text = text.trim();
    if text.starts_with('-') {
        return Err((format!("`{}` is negative", shown(text)), MEMORY_HELP.to_owned()));
    }
    let number_len = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(number_len);
    let unit = unit.trim_start_matches(' ');
    let Some((_, size)) = MEMORY_UNITS.iter().find(|(name, _)| *name == unit) else {
        if number.is_empty() {
            return Err((format!("`{}` is not an amount of memory", shown(text)), MEMORY_HELP.to_owned()));
        }
        let letter = unit.chars().next().map(|c| c.to_ascii_uppercase());
        let help = match letter {
            Some(c @ ('K' | 'M' | 'G' | 'T')) if unit.len() <= 3 => {
                format!("write {number}{c}iB (1024-based) or {number}{c}B (1000-based)")
            }
            _ => "the units are B, KB, MB, GB, TB, KiB, MiB, GiB and TiB".to_owned(),
        };
        return Err((format!("`{}` is not a unit of memory", shown(unit)), help));
    };
    match scaled(number, *size) {
        Scaled::Exact(bytes) => Ok(bytes),
        // The limit is what the user is told.
        Scaled::TooLarge => Ok(u64::MAX),
        Scaled::NotWhole => {
            Err((format!("`{}` is not a whole number of bytes", shown(text)), "use a smaller unit".to_owned()))
        }
        Scaled::NotANumber => Err((format!("`{}` is not an amount of memory", shown(text)), MEMORY_HELP.to_owned())),
    }
}

/// Bytes as short as they can be written exactly, for messages.
pub(super) fn show_memory(bytes: u64) -> String {
    let units = [("TiB", 1u64 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units.iter().find(|(_, size)| bytes >= *size && bytes.is_multiple_of(*size)) {
        Some((unit, size)) => format!("{} {unit}", bytes / size),
        None => format!("{bytes} bytes"),
    }
}

const CPU_HELP: &str = "write for example 2, 0.5 or \"500m\" (thousandths of a core)";

/// Thousandths of a core: `0.5`, `2`, `500m`.
pub(super) fn cpu_milli(text: &str) -> Result<u32, Wrong> {
    let text = text.trim();
    if text.starts_with('-') {
        return Err((format!("`{}` is negative", shown(text)), CPU_HELP.to_owned()));
    }
    let (number, unit) = text.strip_suffix('m').map_or((text, 1_000), |number| (number, 1));
    match scaled(number, unit) {
        // The limit is what the user is told.
        Scaled::Exact(milli) => Ok(u32::try_from(milli).unwrap_or(u32::MAX)),
        Scaled::TooLarge => Ok(u32::MAX),
        Scaled::NotWhole => Err((
            format!("`{}` is finer than a thousandth of a core", shown(text)),
            "round it to thousandths, for example 0.125".to_owned(),
        )),
        Scaled::NotANumber => Err((format!("`{}` is not a number of cores", shown(text)), CPU_HELP.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_exact() {
        let ms = |text: &str| duration(text).map(|d| d.as_millis()).map_err(|(message, _)| message);
        for (text, expected) in [
            ("90s", 90_000),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("1h 30m", 5_400_000),
            ("5 m", 300_000),
            ("1.5h", 5_400_000),
            ("250ms", 250),
            ("1d2h3m4s5ms", 93_784_005),
            ("10", 10_000),
            ("0.25", 250),
            ("0", 0),
            ("007s", 7_000),
        ] {
            assert_eq!(ms(text), Ok(expected), "{text}");
        }
        for text in [
            "",
            "s",
            "1x",
            "1h5",
            "30m1h",
            "1m1m",
            "5 6",
            "5 minutes",
            "-1s",
            "1e3",
            ".5",
            "1.",
            "1.2.3s",
            "0.0001s",
            "1h-1m",
            "½h",
        ] {
            assert!(ms(text).is_err(), "{text}: {:?}", ms(text));
        }
        assert_eq!(ms("99999999999999999999999d"), Ok(u128::from(u64::MAX)), "saturates; the limit is told later");
    }

    #[test]
    fn shown_durations_read_back() {
        for millis in [0, 1, 999, 1_000, 61_001, 5_400_000, 93_784_005] {
            let shown = show_duration(Duration::from_millis(millis));
            assert_eq!(duration(&shown).unwrap().as_millis(), u128::from(millis), "{shown}");
        }
    }

    #[test]
    fn amounts_of_memory_are_exact() {
        for (text, expected) in [
            ("1024", 1_024),
            ("2GiB", 2 << 30),
            ("2 GiB", 2 << 30),
            ("1.5GiB", 3 << 29),
            ("512MB", 512_000_000),
            ("1kB", 1_000),
            ("0", 0),
            ("64TiB", 64 << 40),
        ] {
            assert_eq!(memory(text), Ok(expected), "{text}");
        }
        for text in ["", "GiB", "2Gi", "2 gib", "-1", "1.5", "0.3B", "1e9", "1.MiB", "2GiB!"] {
            assert!(memory(text).is_err(), "{text}");
        }
    }

    #[test]
    fn cores_are_exact() {
        for (text, expected) in [("1", 1_000), ("0.5", 500), ("500m", 500), ("0.001", 1), ("0", 0), ("1.10", 1_100)] {
            assert_eq!(cpu_milli(text), Ok(expected), "{text}");
        }
        for text in ["", "m", "0.0001", "0.5m", "1 core", "-1", "1e2", "½"] {
            assert!(cpu_milli(text).is_err(), "{text}");
        }
    }
}
