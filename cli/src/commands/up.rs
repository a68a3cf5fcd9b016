//! `muster up`

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use super::daemon;
use crate::configuration::DEFAULT_ADDRESS;
use crate::context::Context;
use crate::embedded::Embedded;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::offer::Offer;
use crate::output::views::Started;
use crate::quantity;
use crate::signals::Signals;

/// Start a cluster on this machine: a scheduler and an executor in one process, with everything in one directory
///
/// Jobs that were not finished when the last `muster up` on the directory ended go on. Ctrl-C stops it in good order, a
/// second one at once.
#[derive(Debug, Args)]
pub(crate) struct Up {
    /// Where everything is kept [default: ~/.local/share/muster]
    #[arg(long, env = "MUSTER_DATA_DIR", hide_env_values = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where to listen; port 0 takes a free one [default: 127.0.0.1:7077]
    #[arg(long, env = "MUSTER_LISTEN", hide_env_values = true, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Listen beyond this machine, though nobody is authenticated
    #[arg(long)]
    allow_remote: bool,
    /// A label of the executor, for placement; may be given several times
    #[arg(long = "label", value_parser = quantity::pair, value_name = "KEY=VALUE")]
    labels: Vec<(String, String)>,
    #[command(flatten)]
    offer: Offer,
}

impl Up {
    pub(crate) async fn run(self, context: &Context) -> Result<Exit, Failure> {
        let mut signals = Signals::listen()?;
        let data_dir = context.settings.data_dir(self.data_dir)?;
        let usual = || DEFAULT_ADDRESS.parse().expect("the default is an address");
        let listen = self.listen.or(context.settings.file.up.listen).unwrap_or_else(usual);
        let offer = |options: &mut muster_executor::Options| {
            self.offer.apply(&context.settings.file.executor, options);
            options.labels.extend(self.labels);
        };
        let embedded = Embedded::start(&data_dir, listen, self.allow_remote, offer).await?;
        let address = embedded.address().to_string();
        context.output.one(&Started {
            what: "up",
            id: None,
            address: address.clone(),
            data_dir: Some(data_dir.display().to_string()),
        })?;
        if context.output.is_for_people() {
            // The default address needs no saying.
            let option = if address == DEFAULT_ADDRESS { String::new() } else { format!(" --schedulers {address}") };
            context.console.note(&format!(
                "\nSubmit a job:     muster submit --wait FILE{option}\nSee what runs:    muster jobs{option}\n\
                 Stop:             Ctrl-C; unfinished jobs go on with the next `muster up`"
            ));
        }
        let ended = tokio::select! {
            biased;
            _ = signals.next() => Ok(()),
            failure = embedded.failed() => Err(failure),
        };
        daemon::stop(context, &mut signals, embedded.stop()).await?;
        ended.map(|()| Exit::Success)
    }
}
