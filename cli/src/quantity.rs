//! Durations, amounts of memory and cores, as people write them in flags and in the configuration.

use std::time::Duration;

/// A duration: `10s`, `1m30s`, `2h`, or a plain number of seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("'{text}' is not a duration: write for instance 10s, 1m30s or 2h");
    if let Ok(seconds) = text.parse::<u32>() {
        return Ok(Duration::from_secs(seconds.into()));
    }
    let signed: jiff::SignedDuration = text.parse().map_err(|_| wrong())?;
    Duration::try_from(signed).map_err(|_| wrong())
}

/// Bytes: `512MiB`, `2GiB`, `1.5GB`, or a plain number.
pub(crate) fn memory(text: &str) -> Result<u64, String> {
    let wrong = || format!("'{text}' is not an amount of memory: write for instance 512MiB or 2GiB");
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim() {
        "" | "B" => 1,
        "kB" | "KB" => 1000,
        "KiB" => 1 << 10,
        "MB" => 1_000_000,
        "MiB" => 1 << 20,
        "GB" => 1_000_000_000,
        "GiB" => 1 << 30,
        "TB" => 1_000_000_000_000,
        "TiB" => 1 << 40,
        _ => return Err(wrong()),
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor).ok_or_else(wrong);
    }
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let bytes = number * factor as f64;
    // 2^53: below it every whole number is exact, above it nobody means a fraction.
    if bytes.is_finite() && (0.0..9e15).contains(&bytes) { Ok(bytes as u64) } else { Err(wrong()) }
}

/// Thousandths of a core: `4`, `0.5`, `500m`.
pub(crate) fn cpus(text: &str) -> Result<u32, String> {
    let wrong = || format!("'{text}' is not a number of cores: write for instance 4, 0.5 or 500m");
    if let Some(milli) = text.strip_suffix('m') {
        return milli.parse().map_err(|_| wrong());
    }
    let cores: f64 = text.parse().map_err(|_| wrong())?;
    let milli = (cores * 1000.0).round();
    if milli.is_finite() && (0.0..=f64::from(u32::MAX)).contains(&milli) { Ok(milli as u32) } else { Err(wrong()) }
}

/// `name=number`.
pub(crate) fn named_amount(text: &str) -> Result<(String, u32), String> {
    let wrong = || format!("'{text}' is not name=number, as in gpu=1");
    let (name, amount) = text.split_once('=').ok_or_else(wrong)?;
    if name.is_empty() {
        return Err(wrong());
    }
    Ok((name.to_owned(), amount.parse().map_err(|_| wrong())?))
}

/// `name=device,device`.
pub(crate) fn named_devices(text: &str) -> Result<(String, Vec<String>), String> {
    let wrong = || format!("'{text}' is not name=device,device, as in gpu=0,1");
    let (name, devices) = text.split_once('=').ok_or_else(wrong)?;
    let devices: Vec<String> = devices.split(',').map(|device| device.trim().to_owned()).collect();
    if name.is_empty() || devices.iter().any(String::is_empty) {
        return Err(wrong());
    }
    Ok((name.to_owned(), devices))
}

/// `key=value`, the value possibly empty.
pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("'{text}' is not KEY=VALUE, as in zone=a")),
    }
}

/// Bytes for people: three digits that matter and a binary unit.
pub(crate) fn bytes_for_people(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A duration for people: its two largest units.
pub(crate) fn duration_for_people(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..10 => format!("{:.1}s", duration.as_secs_f64()),
        10..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_people_write_them() {
        assert_eq!(duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(memory("2GiB"), Ok(2 << 30));
        assert_eq!(memory("1.5 KiB"), Ok(1536));
        assert_eq!(memory("10"), Ok(10));
        assert_eq!(cpus("0.5"), Ok(500));
        assert_eq!(cpus("250m"), Ok(250));
        assert_eq!(named_amount("gpu=2"), Ok(("gpu".to_owned(), 2)));
        assert_eq!(named_devices("gpu=0, 3"), Ok(("gpu".to_owned(), vec!["0".to_owned(), "3".to_owned()])));
        assert_eq!(pair("zone="), Ok(("zone".to_owned(), String::new())));
    }

    #[test]
    fn what_is_not_a_quantity_is_refused_with_an_example() {
        let mistakes = [
            duration("-1s").err(),
            duration("soon").err(),
            memory("2 gigs").err(),
            memory("99999999999TiB").err(),
            memory("").err(),
            cpus("-1").err(),
            cpus("many").err(),
            named_amount("gpu").err(),
            named_amount("=1").err(),
            named_devices("gpu").err(),
            named_devices("gpu=0,,1").err(),
            named_devices("=0").err(),
            pair("zone").err(),
        ];
        for mistake in mistakes {
            let said = mistake.expect("refused");
            assert!(said.contains("for instance") || said.contains("as in"), "{said}");
        }
    }

    #[test]
    fn quantities_are_shown_short() {
        assert_eq!(bytes_for_people(1023), "1023 B");
        assert_eq!(bytes_for_people(1536), "1.5 KiB");
        assert_eq!(bytes_for_people((1 << 20) - 1), "1.0 MiB");
        assert_eq!(bytes_for_people(u64::MAX), "16.0 EiB");
        assert_eq!(duration_for_people(Duration::from_millis(1250)), "1.2s");
        assert_eq!(duration_for_people(Duration::from_secs(61)), "1m01s");
        assert_eq!(duration_for_people(Duration::from_secs(90_000)), "1d01h");
    }
}
