//! Finds a task's program, and says what to do when it cannot be started.
//!
//! The search is done here and not left to the standard library because that gives up `posix_spawn` for the slower
//! fork when the environment has a PATH of its own and the program's name no slash.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::fs::{Access, access};

use super::wire::Start;

/// Starts the process of a run in a group of its own, with pipes on its standard output and error.
pub(super) fn start(start: &Start) -> Result<Child, String> {
    let Some(name) = start.argv.first().filter(|name| !name.is_empty()) else {
        return Err("cannot start: the argv is empty; name a program in `run`".to_owned());
    };
    let search = start.env.iter().find(|(key, _)| key == "PATH").map_or("", |(_, value)| value.as_str());
    let program = find(name, search)?;
    Command::new(&program)
        .arg0(name)
        .args(&start.argv[1..])
        .env_clear()
        .envs(start.env.iter().map(|(key, value)| (key, value)))
        .current_dir(&start.directory)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(|error| explain(name, &error, &start.directory))
}

fn find(name: &str, search: &str) -> Result<PathBuf, String> {
    if name.contains('/') {
        return Ok(PathBuf::from(name));
    }
    let mut not_executable = None;
    for directory in search.split(':').filter(|directory| !directory.is_empty()) {
        let path = Path::new(directory).join(OsStr::new(name));
        if access(&path, Access::EXEC_OK).is_ok() && path.is_file() {
            return Ok(path);
        }
        if path.is_file() {
            not_executable = Some(path);
        }
    }
    Err(match not_executable {
        Some(path) => format!("cannot start `{name}`: {} is not executable; chmod +x it", path.display()),
        None => format!(
            "cannot start `{name}`: program not found in PATH ({search}); install it on the executor's machine, \
             or write its full path"
        ),
    })
}

fn explain(name: &str, error: &std::io::Error, directory: &Path) -> String {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::NotFound => format!(
            "cannot start `{name}`: no such file, or its interpreter (the first line, after #!) is missing; \
             a relative path is looked up from the task's own work directory"
        ),
        ErrorKind::PermissionDenied => {
            format!("cannot start `{name}`: permission denied; is it an executable file? (chmod +x)")
        }
        ErrorKind::ArgumentListTooLong => {
            format!("cannot start `{name}`: its arguments and environment are too long; pass them in a file")
        }
        ErrorKind::InvalidInput => {
            format!("cannot start `{name}`: an argument or variable holds a NUL byte or a bad name: {error}")
        }
        _ => format!("cannot start `{name}` in {}: {error}", directory.display()),
    }
}
