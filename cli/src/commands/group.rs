//! `muster group`

use clap::Args;

use super::exit_of_group;
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::group_progress::GroupProgress;
use crate::output::{Form, Output, group};

/// Show a group: its state, what its jobs and those of groups in it do, and what they took
#[derive(Debug, Args)]
pub(crate) struct Group {
    /// The group, by its path or id:ID; / is the root
    path: String,
    /// Where the group is [default: default]
    #[arg(short, long)]
    namespace: Option<String>,
    /// Follow it until all of its jobs are over; the exit code is then that of `muster wait --group`
    ///
    /// With json, jsonl or name a line for each change, at most one a second.
    #[arg(short, long)]
    watch: bool,
}

impl Group {
    pub(crate) async fn run(self, context: &Context) -> Result<Exit, Failure> {
        let client = context.client().await?;
        let namespace = self.namespace.as_deref().unwrap_or_default();
        if !self.watch {
            let view = client.group(namespace, &self.path).await.map_err(Failure::about_group)?;
            context.output_now().one(&group::Group::from(view))?;
            return Ok(Exit::Success);
        }
        let people = context.output.is_for_people();
        // A stream of documents that are spread over many lines is of use to nobody.
        let form = if context.output.form == Form::Json { Form::Jsonl } else { context.output.form };
        let mut progress = if people { GroupProgress::new(context.console) } else { GroupProgress::silent() };
        let mut watch = client.watch_group(namespace, &self.path);
        let mut last = None;
        while let Some(view) = watch.next().await.map_err(Failure::about_group)? {
            let exit = exit_of_group(&view);
            let group = group::Group::from(view);
            progress.update(&group);
            if !people {
                Output { form, ..context.output_now() }.one(&group)?;
            }
            last = Some((group, exit));
        }
        progress.finish();
        let (group, exit) =
            last.ok_or_else(|| Failure::internal(format!("the watch of group {} told nothing", self.path)))?;
        if people {
            context.output_now().one(&group)?;
        }
        Ok(exit)
    }
}
