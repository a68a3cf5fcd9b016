//! `muster admin`

use clap::{Args, Subcommand};

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::audit::Audit;
use crate::output::store::{Recovered, Store};

/// Look after the cluster: its store's state, recovery from a backup, and a recount of what is counted
#[derive(Debug, Args)]
pub(crate) struct Admin {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Show how the store is: its mode, its members, how full it is, and its alarms
    Status,
    /// Take a store on that was restored from a backup, by beginning a new epoch
    ///
    /// A store that is older than what executors or schedulers have seen of it puts the cluster into safe mode: nothing is
    /// launched or accepted. This ends it. Jobs go on from what the backup knows of them; what happened to them since is
    /// not known any more: tasks whose results came after the backup run again, and jobs submitted after it are gone.
    Recover {
        /// Yes, what the backup does not know of is to be forgotten
        #[arg(long)]
        yes: bool,
    },
    /// Count anew what groups and finished jobs say of themselves, and list what differs
    ///
    /// Groups' counts are compared with all their jobs, and finished jobs' with the states of their tasks. Whichever scheduler keeps the
    /// groups does this by itself every hour, slowly, and repairs what it finds. The exit code is 1 if something differs and was
    /// not repaired.
    Audit {
        /// Put right what is wrong
        #[arg(long)]
        repair: bool,
    },
}

impl Admin {
    pub(crate) async fn run(self, context: &Context) -> Result<Exit, Failure> {
        let client = context.client().await?;
        match self.what {
            What::Status => context.output.one(&Store::from(client.store().await?))?,
            What::Recover { yes } => {
                if !yes {
                    let store = Store::from(client.store().await?);
                    let why = store.safe_mode.unwrap_or_else(|| "the cluster is not in safe mode".to_owned());
                    return Err(Failure::usage(format!("nothing was done: {why}")).help(
                        "with --yes a new epoch begins: what the store does not know of is forgotten, \
                         and unfinished tasks may run again",
                    ));
                }
                context.output.one(&Recovered::from(client.recover().await?))?;
            }
            What::Audit { repair } => {
                let audit = Audit::from(client.audit(repair).await?);
                let is_wrong = audit.findings_total > 0 && !repair;
                context.output.one(&audit)?;
                if is_wrong {
                    return Ok(Exit::Failed);
                }
            }
        }
        Ok(Exit::Success)
    }
}
