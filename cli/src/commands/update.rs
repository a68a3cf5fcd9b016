//! `muster update`

use std::path::PathBuf;

use clap::{Args, Subcommand};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use muster_client::{Client, v1};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::bulk::{Bunch, Documents};
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::update::Update;

/// Bunches that are sent at once.
const AT_ONCE: usize = 4;

/// Submit many jobs and groups that come into being all at once, or not at all
#[derive(Debug, Args)]
pub(crate) struct Updates {
    /// Where it is [default: default]
    #[arg(short, long, global = true, value_name = "NAMESPACE")]
    namespace: Option<String>,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Submit all jobs and groups of a file: when this is answered, all of them exist, and none before
    ///
    /// The file has specs with lines `---` between them, or each as JSON in a line of its own. A document `make_group: {path: PATH}`, also with
    /// `attributes`, `cancel_after_failures` and `callback`, makes a group. If it breaks off, the same file with the same token goes on
    /// where it was.
    Submit {
        /// The file; - for standard input
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// What the update is known by: the same file under the same token is submitted once [default: a random one]
        #[arg(long, value_name = "TOKEN")]
        token: Option<String>,
    },
    /// Show an update
    Show {
        /// Its token
        #[arg(value_name = "TOKEN")]
        token: String,
    },
    /// Give an update up that is not committed: nothing of it will ever exist
    Abandon {
        /// Its token
        #[arg(value_name = "TOKEN")]
        token: String,
    },
}

impl Updates {
    pub(crate) async fn run(self, context: &Context) -> Result<Exit, Failure> {
        let namespace = self.namespace.unwrap_or_default();
        let client = context.client().await?;
        let view = match self.what {
            What::Show { token } => client.update(&namespace, &token).await?,
            What::Abandon { token } => client.abandon_update(&namespace, &token).await?,
            What::Submit { file, token } => {
                let documents = Documents::open(&file, context.console.color)?;
                let token = token.unwrap_or_else(|| format!("{:016x}", rand::random::<u64>()));
                client.open_update(&namespace, &token).await?;
                context.console.note(&format!("update {token}"));
                let again = |failure: Failure| {
                    failure.help(format!(
                        "nothing is committed by this; once it is mended, the same with --token {token} goes on"
                    ))
                };
                let staged = stage(&client, &namespace, &token, documents).await.map_err(again)?;
                client.commit_update(&namespace, &token, staged).await?
            }
        };
        context.output.one(&Update::from(view))?;
        Ok(Exit::Success)
    }
}

/// Sends all bunches; answers how many groups and jobs they had. A few of them are in memory at a time.
async fn stage(client: &Client, namespace: &str, token: &str, mut documents: Documents) -> Result<(u64, u64), Failure> {
    let (sender, receiver) = mpsc::channel::<Result<Bunch, Failure>>(AT_ONCE);
    // Reading blocks, for as long as whoever writes to it takes.
    let reading = std::thread::spawn(move || {
        while let Some(bunch) = documents.bunch().transpose() {
            let is_last = bunch.is_err();
            if sender.blocking_send(bunch).is_err() || is_last {
                return;
            }
        }
    });
    let counts = ReceiverStream::new(receiver)
        .zip(stream::iter(0_u64..))
        .map(|(bunch, number)| async move {
            let Bunch { groups, jobs } = bunch?;
            let counts = (groups.len() as u64, jobs.len() as u64);
            let request = v1::StageUpdateRequest {
                namespace: namespace.to_owned(),
                token: token.to_owned(),
                bunch: number,
                groups,
                jobs,
            };
            client.stage_update(request).await?;
            Ok::<_, Failure>(counts)
        })
        .buffer_unordered(AT_ONCE)
        .try_fold((0, 0), async |(groups, jobs), (more_groups, more_jobs)| Ok((groups + more_groups, jobs + more_jobs)))
        .await?;
    // It has sent all there is.
    let _ = reading.join();
    Ok(counts)
}
