//! `muster groups`

use clap::{Args, Subcommand};
use muster_client::{Client, Error};
use muster_proto::v1;

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::group::{Group, tree};
use crate::quantity;

/// What is meant where no namespace is named.
const DEFAULT_NAMESPACE: &str = "default";

/// List a group and those in it, as a tree, with what their jobs do; or create some
///
/// Each line counts the jobs of its group and of all groups in it. A group that is called as a verb is written with a / before it.
#[derive(Debug, Args)]
pub(crate) struct Groups {
    /// From this group on, by its path or id:ID [default: /, the root]
    path: Option<String>,
    /// So many levels below it [default: all]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    depth: Option<u32>,
    /// Where the groups are [default: default]
    #[arg(short, long, global = true)]
    namespace: Option<String>,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Create(Create),
}

/// Create groups; what is said of a group when it is created stays
///
/// Names are 1 to 64 letters, digits and . _ -, a letter or digit first; a path has up to five of them. The same again is the same
/// group.
#[derive(Debug, Args)]
struct Create {
    /// The groups, by their paths: names from the root on, with / between them
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<String>,
    /// Something to know the group by; may be given several times
    #[arg(long, value_parser = quantity::pair, value_name = "NAME=VALUE")]
    attribute: Vec<(String, String)>,
    /// Have the group cancel itself when so many of its jobs, those of groups in it too, have failed [default: never]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    cancel_after_failures: Option<u64>,
    /// Tell this http URL of each completion of the group: a POST with JSON, repeated until it is answered with success
    #[arg(long, value_name = "URL")]
    callback: Option<String>,
    /// Create what is missing around them too
    #[arg(short, long)]
    parents: bool,
}

/// A namespace as answers show it.
pub(super) fn namespace_text(namespace: String) -> String {
    if namespace.is_empty() { DEFAULT_NAMESPACE.to_owned() } else { namespace }
}

/// The paths of the groups around one, from the root on, which is left out.
fn around(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(move |(place, _)| &path[..place]).filter(|around| !around.is_empty())
}

impl Create {
    async fn run(self, client: &Client, namespace: &str) -> Result<Vec<v1::GroupView>, Failure> {
        let request = |path: &str, spec: v1::GroupSpec| v1::CreateGroupRequest {
            namespace: namespace.to_owned(),
            path: path.to_owned(),
            spec: Some(spec),
        };
        let spec = v1::GroupSpec {
            attributes: self.attribute.into_iter().collect(),
            cancel_after_failures: self.cancel_after_failures.unwrap_or(0),
            callback: self.callback.unwrap_or_default(),
        };
        let mut created = Vec::new();
        for path in &self.paths {
            for around in around(path).filter(|_| self.parents) {
                match client.create_group(request(around, v1::GroupSpec::default())).await {
                    // One that was made otherwise is there all the same.
                    Ok(_) | Err(Error::AlreadyExists(_)) => {}
                    Err(error) => return Err(Failure::about_group(error)),
                }
            }
            created.push(client.create_group(request(path, spec.clone())).await.map_err(Failure::about_group)?);
        }
        Ok(created)
    }
}

impl Groups {
    pub(crate) async fn run(self, context: &Context) -> Result<Exit, Failure> {
        if self.verb.is_some() && (self.path.is_some() || self.depth.is_some()) {
            return Err(Failure::usage("PATH and --depth say what is listed, and `create` lists nothing")
                .help("write `muster groups create PATH…`"));
        }
        let client = context.client().await?;
        let namespace = self.namespace.unwrap_or_default();
        let groups: Vec<Group> = match self.verb {
            Some(Verb::Create(create)) => create.run(&client, &namespace).await?.into_iter().map(Group::from).collect(),
            None => {
                let (path, depth) = (self.path.unwrap_or_default(), self.depth.unwrap_or(0));
                tree(client.list_groups(&namespace, &path, depth).await.map_err(Failure::about_group)?)
            }
        };
        context.output_now().list(&groups)?;
        Ok(Exit::Success)
    }
}

#[cfg(test)]
mod tests {
    use super::around;

    #[test]
    fn the_groups_around_one_come_from_the_outside_in() {
        for (path, expected) in [("a", ""), ("/a", ""), ("/", ""), ("a/b/c", "a a/b"), ("/a/b", "/a")] {
            assert_eq!(around(path).collect::<Vec<_>>().join(" "), expected, "{path}");
        }
    }
}
