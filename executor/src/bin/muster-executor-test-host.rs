//! For the tests of this crate: the supervisor, or a whole executor, in a process of its own that can be killed.

use std::path::PathBuf;

use anyhow::Context as _;
use muster_executor::{Executor, Mode, Options, supervisor};

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some("supervise") => Ok(supervisor::run()?),
        Some("executor") => {
            let scheduler = arguments.next().context("the scheduler's address")?;
            let data_dir = PathBuf::from(arguments.next().context("the data directory")?);
            let mode = match arguments.next().as_deref() {
                Some("pull") => Mode::Pull,
                _ => Mode::Push,
            };
            tokio::runtime::Runtime::new()?.block_on(async {
                let mut options = Options::new(data_dir, vec![scheduler]);
                options.mode = mode;
                let handle = Executor::start(options).await?;
                handle.finished().await;
                Ok(())
            })
        }
        other => anyhow::bail!("supervise or executor, not {other:?}"),
    }
}
