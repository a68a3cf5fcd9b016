//! What simulated tasks leave for each other, and whether it arrives: each file says who made it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use muster_executor::runtime::AttemptKey;

/// Each output has a file for each part that a shuffle of these jobs may have.
const PARTS: u32 = 8;

fn draw(seed: u64, key: AttemptKey) -> u8 {
    blake3::hash(format!("{seed} {} {} {} leaves", key.job, key.stage, key.index).as_bytes()).as_bytes()[0]
}

/// Whether a task leaves files, in any attempt.
fn leaves(seed: u64, key: AttemptKey) -> bool {
    draw(seed, key) < 180
}

/// Who made it; of some tasks each attempt's is another.
fn content(seed: u64, key: AttemptKey) -> String {
    let attempt = if draw(seed, key) < 45 { key.attempt } else { 0 };
    format!("{} {} {} {attempt}", key.job, key.stage, key.index)
}

/// Leaves the output of an attempt that ends well.
pub(crate) fn leave(seed: u64, key: AttemptKey, output: &Path) {
    if leaves(seed, key) {
        for part in 0..PARTS {
            fs::write(output.join(part.to_string()), content(seed, key)).expect("the folder of a simulation has room");
        }
    }
}

/// Looks at everything in a task's input directory. Says how many outputs with files are there.
pub(crate) fn check(seed: u64, reader: AttemptKey, input: &Path) -> Result<usize, String> {
    let mut read = 0;
    for stage in children(input) {
        let mut makers = Vec::new();
        for index in children(&stage) {
            let number: u32 = name(&index).parse().map_err(|_| format!("{} is no task", index.display()))?;
            let files = children(&index);
            let made_by: BTreeSet<String> =
                files.iter().map(|file| fs::read_to_string(file).unwrap_or_else(|error| error.to_string())).collect();
            // One file of a shuffle, all of anything else.
            if !matches!(files.len(), 0 | 1 | 8) || made_by.len() > 1 {
                return Err(format!("{} has {} files of {made_by:?}", index.display(), files.len()));
            }
            makers.push((number, made_by.into_iter().next()));
        }
        let made_in = makers.iter().find_map(|(_, made_by)| made_by.as_deref()?.split(' ').nth(1)?.parse().ok());
        let Some(made_in) = made_in else { continue };
        for (index, made_by) in makers {
            let maker = AttemptKey { job: reader.job, stage: made_in, index, attempt: 0 };
            let expected = leaves(seed, maker).then(|| content(seed, maker));
            let known = |text: &String| text.rsplit_once(' ').map(|(maker, _)| maker.to_owned());
            if made_by.as_ref().and_then(known) != expected.as_ref().and_then(known) {
                return Err(format!("task {index} of {} left {expected:?}, and {made_by:?} is here", stage.display()));
            }
            read += usize::from(made_by.is_some());
        }
    }
    Ok(read)
}

fn name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// In order; none if there is no such directory.
fn children(path: &Path) -> Vec<std::path::PathBuf> {
    let mut children: Vec<_> = fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    children.sort();
    children
}
