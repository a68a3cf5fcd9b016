//! What simulated tasks leave for each other, and whether it arrives: each file says who made it.

use std::fs;
use std::path::{Path, PathBuf};

use muster_executor::runtime::AttemptKey;

/// Each output has a file for each part that a shuffle of these jobs may have.
const PARTS: u32 = 8;
/// The variable by which a stage's tasks know what they must find: the kind of input, and of how many tasks.
pub(crate) const EXPECTED: &str = "EXPECTED_INPUT";

/// What a task finds in its input directory.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Expected {
    Nothing,
    /// That is not known.
    Whatever,
    /// Of all tasks of a stage.
    All(u32),
    /// Of its own task of a stage.
    Each,
    /// Its own part, of all tasks of a stage.
    Shuffle(u32),
}

impl Expected {
    pub(crate) fn of(variable: Option<&str>) -> Self {
        let (kind, tasks) = variable.and_then(|text| text.split_once(' ')).unwrap_or_default();
        let tasks = tasks.parse().unwrap_or(0);
        match kind {
            "all" => Self::All(tasks),
            "each" => Self::Each,
            "shuffle" => Self::Shuffle(tasks),
            "whatever" => Self::Whatever,
            _ => Self::Nothing,
        }
    }
}

fn draw(seed: u64, key: AttemptKey) -> u8 {
    blake3::hash(format!("{seed} {} {} leaves", key.job, key.index).as_bytes()).as_bytes()[0]
}

/// Whether a task leaves files: that hangs on its index alone, so that a reader knows it of any stage.
fn leaves(seed: u64, key: AttemptKey) -> bool {
    draw(seed, key) < 180
}

/// Leaves the output of an attempt that ends well. Of some tasks each attempt's is another.
pub(crate) fn leave(seed: u64, key: AttemptKey, output: &Path) {
    if leaves(seed, key) {
        let attempt = if draw(seed, key) < 45 { key.attempt } else { 0 };
        let content = format!("{} {} {attempt} {}", key.job, key.index, key.stage);
        for part in 0..PARTS {
            fs::write(output.join(part.to_string()), &content).expect("the folder of a simulation has room");
        }
    }
}

/// Looks whether a task finds what it must, and nothing else. Says how many outputs with files are there.
pub(crate) fn check(seed: u64, reader: AttemptKey, expected: Expected, input: &Path) -> Result<usize, String> {
    let stages = children(input);
    let (tasks, parts) = match expected {
        Expected::Whatever => return Ok(0),
        Expected::Nothing if stages.is_empty() => return Ok(0),
        Expected::Nothing => return Err(format!("{stages:?} is here, and nothing was wanted")),
        Expected::All(tasks) => (0..tasks, 0..PARTS),
        Expected::Each => (reader.index..reader.index + 1, 0..PARTS),
        Expected::Shuffle(tasks) => (0..tasks, reader.index..reader.index + 1),
    };
    let [stage] = stages.as_slice() else { return Err(format!("{stages:?} are here, of one stage")) };
    let here: Vec<String> = children(stage).iter().map(|task| name(task)).collect();
    let wanted: Vec<String> = tasks.clone().map(|index| index.to_string()).collect();
    if here != wanted {
        return Err(format!("tasks {here:?} are here, and {wanted:?} are wanted"));
    }
    let mut read = 0;
    let mut stages_said = Vec::new();
    for index in tasks {
        let maker = AttemptKey { index, ..reader };
        let files = children(&stage.join(index.to_string()));
        let names: Vec<String> = files.iter().map(|file| name(file)).collect();
        let wanted = if leaves(seed, maker) { parts.clone() } else { 0..0 };
        if names != wanted.map(|part| part.to_string()).collect::<Vec<_>>() {
            return Err(format!("of task {index} the files {names:?} are here"));
        }
        let mut said: Vec<String> =
            files.iter().map(|file| fs::read_to_string(file).unwrap_or_else(|error| error.to_string())).collect();
        said.dedup();
        let Some(first) = said.first() else { continue };
        if said.len() > 1 || !first.starts_with(&format!("{} {index} ", reader.job)) {
            return Err(format!("of task {index} there is {said:?}"));
        }
        stages_said.push(first.rsplit_once(' ').map(|(_, stage)| stage.to_owned()));
        read += 1;
    }
    stages_said.dedup();
    if stages_said.len() > 1 {
        return Err(format!("what is here of one stage is of {stages_said:?}"));
    }
    Ok(read)
}

fn name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// In order; none if there is no such directory. All names here have one digit, or are of one stage.
fn children(path: &Path) -> Vec<PathBuf> {
    let mut children: Vec<_> = fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    children.sort();
    children
}
