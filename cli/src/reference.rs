//! How a job, a stage or a task is named on the command line: `ID[/stage[/task]]`.
//!
//! Stages of nested jobs have slashes in their names (`a/b/c`), so the rule is: the first part is the job; a last part
//! that is a number is the task, unless it is the only part after the job. Where `a` is a nested job, which has no tasks itself,
//! `ID/a/7` is the stage `7` in it all the same: schedulers know. One more slash at the end says so from the start: `ID/a/7/`.

use std::fmt;
use std::str::FromStr;

use muster_client::JobId;

/// A job, a stage of it, or a task of that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reference {
    pub(crate) job: JobId,
    pub(crate) stage: Option<String>,
    pub(crate) index: Option<u32>,
}

impl FromStr for Reference {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (job, rest) = text.split_once('/').unwrap_or((text, ""));
        let job = job.parse().map_err(|error| format!("{error}"))?;
        let (stage, index) = match rest.rsplit_once('/') {
            None if rest.is_empty() => (None, None),
            None => (Some(rest), None),
            Some((stage, "")) => (Some(stage), None),
            Some((stage, last)) => match last.parse::<u32>() {
                Ok(index) => (Some(stage), Some(index)),
                Err(_) => (Some(rest), None),
            },
        };
        if stage.is_some_and(|stage| stage.is_empty() || stage.starts_with('/')) {
            return Err(format!("'{text}' has no stage between its slashes; write ID/stage or ID/stage/task"));
        }
        Ok(Self { job, stage: stage.map(str::to_owned), index })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.job)?;
        if let Some(stage) = &self.stage {
            write!(f, "/{stage}")?;
        }
        if let Some(index) = self.index {
            write!(f, "/{index}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_name_jobs_stages_and_tasks_at_any_depth() {
        let id = JobId(0x1234_5678_9abc).to_string();
        for (rest, stage, index) in [
            ("", None, None),
            ("/", None, None),
            ("/map", Some("map"), None),
            ("/map/3", Some("map"), Some(3)),
            ("/a/b/c", Some("a/b/c"), None),
            ("/a/b/c/3", Some("a/b/c"), Some(3)),
            ("/3", Some("3"), None),
            ("/3/3", Some("3"), Some(3)),
            ("/a/7/", Some("a/7"), None),
            ("/map/99999999999", Some("map/99999999999"), None),
        ] {
            let reference: Reference = format!("{id}{rest}").parse().expect(rest);
            assert_eq!((reference.stage.as_deref(), reference.index), (stage, index), "{rest}");
        }
        for wrong in ["", "map/3", "0/map"] {
            assert!(wrong.parse::<Reference>().is_err(), "{wrong}");
        }
        assert!(format!("{id}//3").parse::<Reference>().is_err());
    }
}
